"""Many predictions asked after by page, where the gateway lists them, over real sockets."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Iterator

import pytest

from airflow_provider_flux.client import aio, list_polling
from airflow_provider_flux.client.aio import POOL_SIZE, shared_session
from airflow_provider_flux.client.list_polling import MANY, PAGE_SIZE, TOLERANCE, WatchedList
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.protocol.flows import Conversation
from airflow_provider_flux.protocol.prediction import Prediction
from airflow_provider_flux.triggers.flux import FluxPredictionTrigger
from tests.client.test_shared_session import canceled, no_warning, sessions, until
from tests.conftest import Connect
from tests.protocol.scripted import LogBook

SCHNELL = "black-forest-labs/flux-schnell"
BOAT = {"prompt": "A paper boat"}
COUNT = 120
FURTHEST = 3 * PAGE_SIZE
"""How far back the list is searched for up to a hundred predictions."""


@pytest.fixture(autouse=True)
def connection(emulator: Emulator, connect: Connect) -> Iterator[None]:
    """A gateway that lists; in no test is anything made, or canceled, by asking after predictions."""
    connect(emulator.url, gateway="replicate", requests_per_minute=60_000)
    yield
    assert emulator.posts == emulator.accepted == len(emulator.predictions)
    assert emulator.cancels == 0


async def made(count: int) -> list[str]:
    def make() -> list[str]:
        return [FluxHook().create_prediction(SCHNELL, BOAT).id for _ in range(count)]

    return await asyncio.to_thread(make)


async def stuck(emulator: Emulator, count: int) -> list[str]:
    emulator.add_outcome("stuck", times=count)
    return await made(count)


async def fire(prediction_id: str, interval: float = 0.1, seconds: float = 60) -> tuple[str, str]:
    """Live the life of one trigger, and return what its event tells."""
    now = time.time()
    trigger = FluxPredictionTrigger(
        flux_conn_id="flux_default",
        prediction_id=prediction_id,
        model=SCHNELL,
        submitted_at=now,
        deadline=now + seconds,
        poll_interval=interval,
    )
    (event,) = [event.payload async for event in trigger.run()]
    return event["prediction_id"], event["status"]


def waiting_for(ids: list[str]) -> list[asyncio.Task[tuple[str, str]]]:
    return [asyncio.create_task(fire(prediction_id)) for prediction_id in ids]


async def get(prediction_id: str) -> Prediction:
    """Ask once, as the flows of any trigger or batch do."""
    access = FluxHook().access
    return await aio.run(Conversation(access.gateway, LogBook()).get(prediction_id, deadline=time.time() + 30), access)


def lists(emulator: Emulator) -> int:
    return emulator.counters.lists


def watched_list() -> WatchedList:
    (shared,) = sessions().values()
    (watched,) = shared.lists._by_connection.values()
    return watched


def finish(emulator: Emulator, ids: list[str]) -> None:
    for prediction_id, outcome in zip(ids, itertools.cycle(("succeeded", "E005", "canceled"))):
        emulator.finish(prediction_id, outcome)


def ends(emulator: Emulator, ids: list[str]) -> list[tuple[str, str]]:
    """Return how predictions really ended."""
    return [(prediction_id, emulator.prediction(prediction_id).status) for prediction_id in ids]


async def test_many_take_less_than_one_request_each_however_often_they_are_polled(emulator: Emulator) -> None:
    """many predictions pending on Replicate"""
    ids = await stuck(emulator, COUNT)
    waiting = waiting_for(ids)
    await until(lambda: lists(emulator) >= 20)
    finish(emulator, ids)
    ended = await asyncio.gather(*waiting)
    assert ended == ends(emulator, ids)
    assert {status for _, status in ended} == {"succeeded", "failed", "canceled"}
    assert emulator.gets + lists(emulator) < COUNT


async def test_the_list_tells_the_same_as_a_question_after_each(emulator: Emulator) -> None:
    emulator.settings(fraction_digits=(6,))
    ids = await stuck(emulator, COUNT)
    staying = waiting_for(await stuck(emulator, 50))
    await until(lambda: lists(emulator) > 0)
    finish(emulator, ids)
    await asyncio.sleep(TOLERANCE)
    told = await asyncio.gather(*map(get, ids))
    assert {emulator.prediction(prediction_id).gets for prediction_id in ids} == {0}
    for task in staying:
        await canceled(task)
    one_by_one = await asyncio.to_thread(lambda: [FluxHook().get_prediction(prediction_id) for prediction_id in ids])
    assert told == one_by_one


async def test_a_few_are_asked_after_one_by_one(emulator: Emulator) -> None:
    ids = await stuck(emulator, MANY - 1)
    waiting = waiting_for(ids)
    await until(lambda: emulator.gets > 5 * len(ids))
    finish(emulator, ids)
    assert await asyncio.gather(*waiting) == ends(emulator, ids)
    assert lists(emulator) == 0


async def test_what_has_ended_or_is_no_longer_watched_does_not_count_as_many(emulator: Emulator) -> None:
    async with shared_session(FluxHook().access):
        ids = await made(2 * MANY)
        for prediction_id in ids:
            assert await fire(prediction_id, interval=0.01) == (prediction_id, "succeeded")
        for task in waiting_for(ids):
            await asyncio.sleep(0)
            await canceled(task)
    assert lists(emulator) == 0


async def test_a_gateway_without_a_list_is_never_asked_for_one(emulator: Emulator, connect: Connect) -> None:
    connect(emulator.url, gateway="deerapi")
    ids = await made(COUNT)
    assert await asyncio.gather(*waiting_for(ids)) == ends(emulator, ids)
    assert lists(emulator) == 0
    assert {record.kind for record in emulator.requests} == {"create", "get"}


class TestAListThatIsOfNoUse:
    """It is left alone for a while, and everybody asks for itself."""

    @pytest.mark.parametrize(
        "fault",
        ["429", "401", "500", "html", "redirect", "wrong_shape", "null_body", "cut_body", "truncated_json"],
    )
    async def test_because_of_trouble(self, emulator: Emulator, fault: str, caplog: pytest.LogCaptureFixture) -> None:
        ids = await stuck(emulator, 50)
        emulator.add_fault(fault, on="list", times=None, retry_after=0.1)
        waiting = waiting_for(ids)
        with caplog.at_level(logging.WARNING, logger=list_polling.__name__):
            await until(lambda: emulator.gets > 3 * len(ids))
            finish(emulator, ids)
            assert await asyncio.gather(*waiting) == ends(emulator, ids)
        assert lists(emulator) == 1
        (record,) = [record for record in caplog.records if record.name == list_polling.__name__]
        assert "one by one" in record.getMessage()

    async def test_because_its_pages_take_too_long_to_decode(
        self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(list_polling, "PAGE_BYTES", 1000)
        ids = await stuck(emulator, 50)
        waiting = waiting_for(ids)
        await until(lambda: emulator.gets > 3 * len(ids))
        finish(emulator, ids)
        assert await asyncio.gather(*waiting) == ends(emulator, ids)
        assert lists(emulator) == 1

    async def test_because_it_shows_nothing_but_the_predictions_of_others(self, emulator: Emulator) -> None:
        ids = await stuck(emulator, 50)
        await made(FURTHEST)
        waiting = waiting_for(ids)
        await until(lambda: emulator.gets > 3 * len(ids))
        finish(emulator, ids)
        assert await asyncio.gather(*waiting) == ends(emulator, ids)
        assert lists(emulator) == FURTHEST / PAGE_SIZE

    async def test_because_it_leaves_out_what_the_predictions_made(self, emulator: Emulator) -> None:
        emulator.settings(drop_fields=("output",))
        ids = await stuck(emulator, 50)
        waiting = waiting_for(ids)
        await until(lambda: emulator.gets > 3 * len(ids))
        emulator.settings(drop_fields=())
        finish(emulator, ids)
        assert await asyncio.gather(*waiting) == ends(emulator, ids)
        assert lists(emulator) == 1

    async def test_until_a_while_has_passed(self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(list_polling, "REST", 0.3)
        ids = await stuck(emulator, 50)
        emulator.add_fault("500", on="list", times=3)
        waiting = waiting_for(ids)
        await until(lambda: lists(emulator) > 10)
        finish(emulator, ids)
        assert await asyncio.gather(*waiting) == ends(emulator, ids)


async def test_one_that_others_have_pushed_far_back_is_asked_after_by_itself(emulator: Emulator) -> None:
    old = await stuck(emulator, 3)
    await made(FURTHEST)
    ids = await stuck(emulator, 60)
    waiting = waiting_for(old + ids)
    # Beside those that each has asked before it was known that there are many.
    await until(lambda: all(emulator.prediction(prediction_id).gets > 3 for prediction_id in old))
    assert max(emulator.prediction(prediction_id).gets for prediction_id in ids) <= 3
    finish(emulator, old + ids)
    assert await asyncio.gather(*waiting) == ends(emulator, old + ids)


class TestStates:
    """How old they may be, and how often they are told."""

    async def test_a_state_is_hardly_older_than_the_question(self, emulator: Emulator) -> None:
        ids = await stuck(emulator, COUNT)
        staying = waiting_for(ids[:60])
        await until(lambda: lists(emulator) > 0)

        async def end_and_ask(number: int, prediction_id: str) -> str:
            await asyncio.sleep(number * 0.03)
            # Asked once, it is watched for, and told of by every page.
            asking = asyncio.create_task(get(prediction_id))
            await asyncio.sleep(number % 10 * 0.05)
            emulator.finish(prediction_id)
            await asyncio.sleep(TOLERANCE)
            await asking
            return (await get(prediction_id)).status.value

        assert set(await asyncio.gather(*itertools.starmap(end_and_ask, enumerate(ids[60:])))) == {"succeeded"}
        for task in staying:
            await canceled(task)

    async def test_a_page_that_took_long_does_not_answer_those_who_came_meanwhile(self, emulator: Emulator) -> None:
        ids = await stuck(emulator, COUNT)
        staying = waiting_for(ids[:-1])
        await until(lambda: lists(emulator) > 0)
        emulator.settings(latency=3 * TOLERANCE)
        before = lists(emulator)
        await until(lambda: lists(emulator) > before)
        await asyncio.sleep(2 * TOLERANCE)
        asked_at = time.time()
        await get(ids[-1])
        emulator.settings(latency=0)
        asked = [record.at for record in emulator.requests if record.kind in ("list", "get")]
        assert max(asked) > asked_at
        for task in staying:
            await canceled(task)

    async def test_no_state_is_told_twice(self, emulator: Emulator) -> None:
        *ids, last = await stuck(emulator, 60)
        staying = waiting_for(ids)
        await until(lambda: lists(emulator) > 0)
        path = FluxHook().access.gateway.get(last).path
        await until(lambda: path in watched_list()._unused)
        before = lists(emulator)
        # The first is answered from the page that is there, the second maybe from one that is on its way.
        for _ in range(3):
            await get(last)
        assert lists(emulator) > before
        for task in staying:
            await canceled(task)


class TestCancellation:
    """task killed, marked, cleared"""

    async def test_of_some_leaves_the_others_what_is_being_read(self, emulator: Emulator) -> None:
        ids = await stuck(emulator, COUNT)
        emulator.add_fault("slow", on="list", delay=0.5, times=None)
        async with no_warning(), shared_session(FluxHook().access):
            leaving, staying = waiting_for(ids[:60]), waiting_for(ids[60:])
            await until(lambda: lists(emulator) == 1)
            for task in leaving:
                await canceled(task)
            finish(emulator, ids)
            assert await asyncio.gather(*staying) == ends(emulator, ids[60:])
            (shared,) = sessions().values()
            assert shared.users == 1
            assert shared.places._free == POOL_SIZE
            assert not shared.lists._by_connection
            assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not sessions()

    @pytest.mark.parametrize("listed", [0, 1])
    async def test_of_all_ends_what_is_being_gathered_or_read(
        self, emulator: Emulator, listed: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(list_polling, "PAGE_PATIENCE", 600.0)
        ids = await stuck(emulator, COUNT)
        emulator.add_fault("hang", on="list", times=None)
        async with no_warning():
            waiting = waiting_for(ids)
            await until(lambda: any(shared.lists._by_connection for shared in sessions().values()))
            (shared,) = sessions().values()
            watched = watched_list()
            await until(lambda: watched._reading is not None and lists(emulator) == listed)
            for task in waiting:
                await canceled(task)
            assert not sessions()
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert shared.places._free == POOL_SIZE


async def test_a_list_that_hangs_is_given_up_before_the_deadline_of_those_who_wait(emulator: Emulator) -> None:
    ids = await stuck(emulator, COUNT)
    emulator.add_fault("hang", on="list", times=None)
    ended = await asyncio.gather(*(fire(prediction_id, seconds=4) for prediction_id in ids))
    assert ended == [(prediction_id, "timed_out") for prediction_id in ids]
    assert min(emulator.prediction(prediction_id).gets for prediction_id in ids) > 0


async def test_connections_with_other_keys_are_not_told_of_each_others_predictions(
    emulator: Emulator, connect: Connect
) -> None:
    connect(emulator.url, gateway="replicate", requests_per_minute=60_000, conn_id="other", key="wrong-key-0123456789")
    ids = await stuck(emulator, COUNT)
    waiting = waiting_for(ids)
    await until(lambda: lists(emulator) > 0)
    access = FluxHook("other").access
    flow = Conversation(access.gateway, LogBook()).get(ids[0], deadline=time.time() + 5)
    with pytest.raises(Exception, match="401"):
        await aio.run(flow, access)
    finish(emulator, ids)
    assert await asyncio.gather(*waiting) == ends(emulator, ids)
