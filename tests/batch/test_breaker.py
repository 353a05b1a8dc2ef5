"""A way that is refused again and again is left alone for a while, and tried with one row then."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from airflow_provider_flux.batch import breaker as module
from airflow_provider_flux.batch import ledger
from airflow_provider_flux.batch.breaker import PAUSE, REFUSALS, Breaker
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.protocol.fallbacks import Cause
from tests.batch.task_instance import BatchTaskInstance, table
from tests.conftest import Connect

PRO, ULTRA = "black-forest-labs/flux-2-pro", "black-forest-labs/flux-1.1-pro"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(["pro", "ultra", "last"], logging.getLogger(__name__), clock)


def refuse(breaker: Breaker, times: int, at: int = 0) -> None:
    for _ in range(times):
        breaker.note(at, Cause.UNAVAILABLE)


def test_a_way_is_left_out_after_ten_refusals_running(breaker: Breaker, caplog: pytest.LogCaptureFixture) -> None:
    refuse(breaker, REFUSALS - 1)
    assert (breaker.first(0), breaker.out) == (0, [])
    refuse(breaker, 1)
    assert (breaker.first(0), breaker.out) == (1, ["pro"])
    assert "pro was refused 10 times running: it is left out, and tried with one row every 60 s" in caplog.text


@pytest.mark.parametrize("between", [None, Cause.CREDIT, Cause.REFUSED_CONTENT])
def test_anything_in_between_begins_the_count_anew(breaker: Breaker, between: Cause | None) -> None:
    refuse(breaker, REFUSALS - 1)
    breaker.note(0, between)
    refuse(breaker, REFUSALS - 1)
    assert breaker.out == []


def test_after_a_minute_it_is_tried_with_one_row(breaker: Breaker, clock: Clock) -> None:
    refuse(breaker, REFUSALS)
    clock.now += PAUSE - 1
    assert breaker.first(0) == 1
    clock.now += 1
    assert [breaker.first(0) for _ in range(3)] == [0, 1, 1]
    breaker.note(0, Cause.UNAVAILABLE)
    assert breaker.first(0) == 1
    clock.now += PAUSE
    assert [breaker.first(0) for _ in range(2)] == [0, 1]
    breaker.note(0, None)
    assert [breaker.first(0) for _ in range(2)] == [0, 0]
    assert breaker.out == []


def test_a_row_that_tries_it_and_is_ended_lets_another_one_try(breaker: Breaker, clock: Clock) -> None:
    refuse(breaker, REFUSALS)
    clock.now += PAUSE
    assert [breaker.first(0), breaker.first(0)] == [0, 1]
    breaker.leave(0)
    assert breaker.first(0) == 0


def test_several_ways_can_be_out_and_the_last_one_never_is(breaker: Breaker) -> None:
    for at in range(3):
        refuse(breaker, REFUSALS, at)
    assert [breaker.first(at) for at in range(3)] == [2, 2, 2]


def test_a_batch_spares_a_gateway_that_is_out_and_comes_back_to_it(
    emulator: Emulator, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.3)
    monkeypatch.setattr(ledger, "COMMIT_PAUSE", 0.01)
    connect(emulator.url, gateway="deerapi")
    emulator.settings(run_time=0.05)
    emulator.add_fault("503_model_not_found", on="create", model=PRO, times=12)
    batch = BatchTaskInstance(
        tmp_path, rows=table(60), model=PRO, fallbacks=[{"model": ULTRA}], max_in_flight=1, poll_interval=0.05
    )

    batch.execute()

    made = batch.manifest()
    assert {line["status"] for line in made} == {"succeeded"}
    assert emulator.accepted == 60
    refused = [seen for seen in emulator.requests if seen.fault == "503_model_not_found"]
    # Ten running, then one each time that it was tried again.
    assert len(refused) == 12
    assert emulator.posts == 72
    assert made[-1]["model"] == PRO
    left_out = [line for line in made if "left out" in (line["passed_over"] or "")]
    assert 0 < len(left_out) < 50
    assert batch.store.kept["flux_batch"]["left_out"] == []
