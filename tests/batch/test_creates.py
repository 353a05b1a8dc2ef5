"""How creates travel."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_flux.batch.ledger import Ledger
from airflow_provider_flux.batch.list_lookups import ListLookups
from airflow_provider_flux.batch.model import Attempt, Entry, PlannedRow
from airflow_provider_flux.batch.row_store import RowStore
from airflow_provider_flux.client import aio
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import FluxKilledError, FluxLedgerError
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.protocol.classify import Failure, Reason
from airflow_provider_flux.protocol.flows import Conversation
from airflow_provider_flux.protocol.messages import Log
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus
from airflow_provider_flux.protocol.resume import SubmissionRecord
from airflow_provider_flux.protocol.submission import LookUp
from tests.batch.task_instance import SCHNELL, BatchTaskInstance, kill_after_posts, table
from tests.conftest import Connect


async def test_a_create_never_goes_over_a_kept_connection(emulator: Emulator, connect: Connect) -> None:
    """A connection that the other side closes just then would leave the outcome unknown for no reason."""
    connect(emulator.url, gateway="deerapi")
    access = FluxHook().access
    log: Log = FluxHook().log
    talk = Conversation(access.gateway, log)
    request = access.gateway.create(SCHNELL, {"prompt": "x"})

    async with aio.shared_session(access):
        for _ in range(3):
            made = await aio.run(talk.submit(request, deadline=time.time() + 5), access)
            await aio.run(talk.get(made.id, deadline=time.time() + 5), access)

    connections = {
        kind: {seen.connection for seen in emulator.requests if seen.kind == kind} for kind in ("create", "get")
    }
    assert len(connections["create"]) == 3
    assert len(connections["get"]) == 1
    assert not connections["create"] & connections["get"]


def test_a_listed_prediction_of_another_row_with_the_same_input_is_not_taken(
    emulator: Emulator, connect: Connect, tmp_path: Path
) -> None:
    """POST: read timeout, reset, 5xx after sending"""
    connect(emulator.url, gateway="replicate")
    emulator.add_fault("500", on="create", skip=1, times=1)
    rows = [{"sku": sku, "name": "the same thing"} for sku in ("a", "b")]
    instance = BatchTaskInstance(tmp_path, rows=rows, max_in_flight=1)
    instance.execute()
    assert (emulator.posts, emulator.accepted) == (3, 2)
    assert len({line["prediction_id"] for line in instance.manifest()}) == 2
    assert instance.statuses() == ["succeeded", "succeeded"]


async def test_what_is_listed_is_nobodys_while_a_create_of_the_same_input_is_under_way(connect: Connect) -> None:
    """POST: read timeout, reset, 5xx after sending"""
    connect("http://127.0.0.1:9", gateway="replicate")
    conversation = Conversation(FluxHook().access.gateway, FluxHook().log)
    looks = 0
    made = Prediction(
        id="other", status=PredictionStatus.PROCESSING, model="m", input={"prompt": "x"}, created_at=time.time()
    )

    async def read(flow: Any) -> list[Prediction]:
        nonlocal looks
        flow.close()
        looks += 1
        return [made]

    being_created = Counter({"same": 1})
    only = Attempt(model="m", input={"prompt": "x"}, fingerprint="same")
    row = PlannedRow(position=0, key="a", attempts=[only])
    record = SubmissionRecord(fingerprint="same", generation=1, try_number=1, sent_at=time.time())
    effect = LookUp(record, Failure(Reason.NETWORK, "no answer", "POST /x"))
    with RowStore() as store:
        lookups = ListLookups(conversation, read, store, being_created)
        asking = asyncio.create_task(lookups.settle(row, effect, deadline=time.time() + 30))
        while looks < 4:
            assert not asking.done()
            await asyncio.sleep(0.02)
        # The answer to the other row's create has come: the prediction is that one's.
        store.put_entries(
            [
                Entry(
                    key="b",
                    revision=1,
                    run="this",
                    generation=1,
                    try_number=1,
                    fingerprint="same",
                    prediction_id="other",
                )
            ]
        )
        being_created["same"] -= 1
        assert await asking is None


def test_a_create_that_waits_to_be_sent_again_is_not_sent_once_the_task_is_killed(
    emulator: Emulator, connect: Connect, tmp_path: Path
) -> None:
    """task killed, marked, cleared"""
    connect(emulator.url, gateway="deerapi")
    emulator.add_fault("429_header", on="create", times=1, retry_after=1.0)
    instance = BatchTaskInstance(tmp_path, rows=table(1))
    killer = kill_after_posts(instance, emulator, 1)
    with pytest.raises(FluxKilledError):
        instance.execute()
    killer.join()
    assert (emulator.posts, emulator.accepted) == (1, 0)
    instance.retry()
    assert (emulator.posts, emulator.accepted) == (2, 1)


def test_a_ledger_that_cannot_take_an_intent_means_that_nothing_is_sent(
    emulator: Emulator, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """worker or triggerer dies at any point, retry, clear"""
    connect(emulator.url, gateway="deerapi")
    instance = BatchTaskInstance(tmp_path, rows=table(3))

    async def fail(self: Ledger, entry: Entry, *, is_intent: bool = False) -> None:
        raise OSError("the storage is out")

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "add", fail)
        with pytest.raises(FluxLedgerError, match="the storage is out"):
            instance.execute()
    assert emulator.posts == 0
    instance.retry()
    assert emulator.posts == emulator.accepted == 3


def test_a_ledger_that_cannot_take_an_id_does_not_cost_the_picture(
    emulator: Emulator, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """worker or triggerer dies at any point, retry, clear"""
    connect(emulator.url, gateway="deerapi")
    instance = BatchTaskInstance(tmp_path, rows=table(1))
    add = Ledger.add

    async def fail_after_intents(self: Ledger, entry: Entry, *, is_intent: bool = False) -> None:
        if not is_intent:
            raise OSError("the storage is out")
        await add(self, entry, is_intent=True)

    monkeypatch.setattr(Ledger, "add", fail_after_intents)
    instance.execute()
    assert instance.statuses() == ["succeeded"]
    assert (emulator.posts, emulator.accepted) == (1, 1)
