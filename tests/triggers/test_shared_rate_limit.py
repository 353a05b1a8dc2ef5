"""What a gateway that limits its clients sees of many triggers, over real sockets."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator

import pytest

from airflow_provider_flux.client import rate_limiter
from airflow_provider_flux.client.aio import POOL_SIZE
from airflow_provider_flux.client.rate_limiter import rate_limiter_of
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.triggers.flux import TIMED_OUT, FluxPredictionTrigger
from tests.conftest import KEY, Connect

SCHNELL = "black-forest-labs/flux-schnell"
BOAT = {"prompt": "A paper boat"}


@pytest.fixture(autouse=True)
def connection(emulator: Emulator, connect: Connect) -> Iterator[None]:
    connect(emulator.url, gateway="deerapi")
    yield
    rate_limiter._rate_limiters.clear()


async def made(count: int, conn_id: str = "flux_default") -> list[str]:
    def make() -> list[str]:
        return [FluxHook(conn_id).create_prediction(SCHNELL, BOAT).id for _ in range(count)]

    return await asyncio.to_thread(make)


async def fire(
    prediction_id: str, *, interval: float, conn_id: str = "flux_default", seconds: float = 60, after: float = 0.0
) -> str:
    await asyncio.sleep(after)
    now = time.time()
    trigger = FluxPredictionTrigger(
        flux_conn_id=conn_id,
        prediction_id=prediction_id,
        model=SCHNELL,
        submitted_at=now,
        deadline=now + seconds,
        poll_interval=interval,
    )
    (event,) = [event.payload async for event in trigger.run()]
    status: str = event["status"]
    return status


def gets(emulator: Emulator) -> list[float]:
    """Return when each poll arrived, in order."""
    return sorted(record.at for record in emulator.requests if record.kind == "get")


def most_in(seconds: float, moments: list[float]) -> int:
    return max(sum(moment <= other < moment + seconds for other in moments) for moment in moments)


@pytest.mark.parametrize(("hint", "spread"), [("header", 1.0), ("none", 1.0), ("header", 0.0)])
async def test_a_gateway_that_limits_sees_hardly_more_requests_than_one_that_does_not(
    emulator: Emulator, connect: Connect, hint: str, spread: float
) -> None:
    """GET: 429, 5xx, timeouts, resets, HTML"""
    # A hundred predictions want a hundred polls a second, of which the gateway takes 75.
    count = 100
    with Emulator(key=KEY) as plain:
        connect(plain.url, gateway="deerapi", conn_id="plain")
        gateways = {"plain": plain, "flux_default": emulator}
        ids: dict[str, list[str]] = {}
        for conn_id, gateway in gateways.items():
            gateway.add_outcome("stuck", times=None)
            ids[conn_id] = await made(count, conn_id)
        emulator.settings(reads_per_minute=75 * 60, burst=10, rate_hint=hint)

        def finish() -> None:
            for conn_id, gateway in gateways.items():
                for prediction_id in ids[conn_id]:
                    gateway.finish(prediction_id)

        asyncio.get_running_loop().call_later(5.5, finish)
        ended = await asyncio.gather(
            *(
                fire(prediction_id, conn_id=conn_id, interval=1.0, after=spread * number / count)
                for conn_id in gateways
                for number, prediction_id in enumerate(ids[conn_id])
            )
        )
        assert ended == ["succeeded"] * 2 * count
        assert 429 in {record.status for record in emulator.requests}
        assert emulator.gets <= 1.3 * plain.gets, [(r.kind, r.status, round(r.at % 1000, 2)) for r in emulator.requests]
        assert emulator.posts == count


async def test_a_429_to_one_trigger_holds_back_all_others_of_the_connection(emulator: Emulator) -> None:
    """429, whoever meets it"""
    """GET: 429, 5xx, timeouts, resets, HTML"""
    ids = await made(20)
    emulator.add_fault("429_header", on="get", times=1, retry_after=1.0)
    await asyncio.gather(*(fire(id_, interval=0.2, after=0.05 * number) for number, id_ in enumerate(ids)))
    (refused,) = (record.at for record in emulator.requests if record.status == 429)
    on_their_way = 0.02
    assert [moment for moment in gets(emulator) if refused + on_their_way < moment < refused + 1.0] == []


async def test_a_429_also_holds_back_those_that_queue_for_a_connection(emulator: Emulator) -> None:
    ids = await made(POOL_SIZE + 40)
    emulator.settings(latency=0.5)
    emulator.add_fault("429_header", on="get", times=POOL_SIZE, retry_after=1.0)
    await asyncio.gather(*(fire(prediction_id, interval=0.1) for prediction_id in ids))
    refused = max(record.at for record in emulator.requests if record.status == 429)
    assert len([moment for moment in gets(emulator) if moment <= refused]) == POOL_SIZE
    assert [moment for moment in gets(emulator) if refused < moment < refused + 1.5] == []


async def test_it_is_told_once_however_many_triggers_meet_it(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger=rate_limiter.__name__)
    ids = await made(30)
    emulator.add_fault("429_header", on="get", times=5, retry_after=0.05)
    await asyncio.gather(*(fire(prediction_id, interval=0.1) for prediction_id in ids))
    told = [record.getMessage() for record in caplog.records if record.name == rate_limiter.__name__]
    assert len([line for line in told if "slow down" in line]) == 1


async def test_worker_and_triggers_together_stay_below_the_limit_of_the_connection(
    emulator: Emulator, connect: Connect
) -> None:
    connect(emulator.url, gateway="deerapi", requests_per_minute=600)
    emulator.settings(run_time=0.5)
    ids = await made(10)
    await asyncio.gather(made(15), *(fire(prediction_id, interval=0.1) for prediction_id in ids))
    moments = sorted(record.at for record in emulator.requests)
    # Ten a second, and a second's worth at once after a rest.
    assert most_in(2.0, moments) <= 10 * 2 + 10 + 2
    assert emulator.posts == emulator.accepted == 25


async def test_triggers_whose_turn_does_not_come_see_their_deadline(emulator: Emulator, connect: Connect) -> None:
    """deadline (`timeout`, also `execution_timeout`)"""
    (prediction_id,) = await made(1)
    connect(emulator.url, gateway="deerapi", requests_per_minute=2)
    access = FluxHook().access
    for _ in range(5):
        rate_limiter_of(access).turn(access.gateway.get(prediction_id))
    events = await asyncio.gather(*(fire(prediction_id, interval=0.1, seconds=1.5) for _ in range(50)))
    assert events == [TIMED_OUT] * 50
    assert emulator.gets == 0


async def test_every_trigger_has_its_turn(emulator: Emulator, connect: Connect) -> None:
    ids = await made(20)
    connect(emulator.url, gateway="deerapi", requests_per_minute=1_200)
    emulator.add_fault("503", on="get", times=100)
    events = await asyncio.gather(*(fire(prediction_id, interval=0.01) for prediction_id in ids))
    assert events == ["succeeded"] * 20
    polls = [record.prediction_id for record in emulator.requests if record.kind == "get"]
    counts = [polls.count(prediction_id) for prediction_id in ids]
    assert max(counts) - min(counts) <= 2
