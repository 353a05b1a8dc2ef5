"""The session that all triggers of an event loop share, over real sockets."""

from __future__ import annotations

import asyncio
import gc
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from airflow_provider_flux.client import aio, rate_limiter
from airflow_provider_flux.client.aio import POOL_SIZE, shared_session
from airflow_provider_flux.client.connection import GatewayAccess
from airflow_provider_flux.client.request_places import Places
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.protocol.classify import Verdict
from airflow_provider_flux.protocol.flows import CallFailed, Conversation
from airflow_provider_flux.triggers.flux import FluxPredictionTrigger
from tests.certificates import make_certificates
from tests.conftest import KEY, Connect
from tests.protocol.scripted import LogBook, create_request

SCHNELL = "black-forest-labs/flux-schnell"
BOAT = {"prompt": "A paper boat"}
LIVES = 1_000
AT_ONCE = 100
OTHER_KEY = "other-key-0123456789abcdef"


@pytest.fixture(autouse=True)
def connection(emulator: Emulator, connect: Connect) -> Iterator[None]:
    connect(emulator.url, gateway="deerapi")
    yield
    rate_limiter._rate_limiters.clear()


@pytest.fixture
def access() -> GatewayAccess:
    return FluxHook().access


async def made(count: int) -> list[str]:
    def make() -> list[str]:
        return [FluxHook().create_prediction(SCHNELL, BOAT).id for _ in range(count)]

    return await asyncio.to_thread(make)


async def fire(prediction_id: str, conn_id: str = "flux_default", seconds: float = 60) -> str:
    """Live the life of one trigger and return how its prediction ended."""
    now = time.time()
    trigger = FluxPredictionTrigger(
        flux_conn_id=conn_id,
        prediction_id=prediction_id,
        model=SCHNELL,
        submitted_at=now,
        deadline=now + seconds,
        poll_interval=0.05,
    )
    (event,) = [event.payload async for event in trigger.run()]
    status: str = event["status"]
    return status


def sessions() -> dict[Any, aio.SharedSession]:
    """Return the sessions that are open in this loop."""
    found = aio._sessions.get(asyncio.get_running_loop())
    return found.by_origin if found is not None else {}


def sockets_to(url: str) -> int:
    port = int(url.rpartition(":")[2])
    return sum(
        bool(connection.raddr) and connection.raddr.port == port
        for connection in psutil.Process().net_connections("tcp")
        if connection.status == psutil.CONN_ESTABLISHED
    )


def users() -> int:
    """Return how many use a session of this loop."""
    return sum(shared.users for shared in sessions().values())


async def until(happened: Callable[[], bool]) -> None:
    while not happened():  # noqa: ASYNC110 (what is waited for happens in the emulator's thread as well)
        await asyncio.sleep(0.001)


async def canceled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()


@asynccontextmanager
async def no_warning() -> AsyncIterator[None]:
    """Turn every complaint about something that was not closed into an error."""
    complaints: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(str(context)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
        gc.collect()
        await asyncio.sleep(0)
    assert complaints == []


async def live_through(emulator: Emulator) -> None:
    ids = await made(AT_ONCE)
    await asyncio.sleep(0.2)
    before = emulator.connections
    staying = asyncio.create_task(watch_for_ever(emulator))
    ended: list[str] = []
    for _ in range(LIVES // AT_ONCE):
        ended += await asyncio.gather(*(fire(prediction_id) for prediction_id in ids))
    assert ended == ["succeeded"] * LIVES
    # The one that stays keeps the session of them all.
    (shared,) = sessions().values()
    assert shared.users == 1
    assert emulator.connections - before <= POOL_SIZE + 1, "and one for the worker's create"
    await canceled(staying)
    assert not sessions()


async def watch_for_ever(emulator: Emulator) -> None:
    emulator.add_outcome("stuck", times=1)
    (stuck,) = await made(1)
    await fire(stuck, seconds=600)


async def test_a_thousand_trigger_lives_share_one_pool_and_leave_nothing_behind(emulator: Emulator) -> None:
    async with no_warning():
        await live_through(emulator)
    await asyncio.sleep(0.1)
    assert sockets_to(emulator.url) == 0


async def test_lives_one_after_the_other_leave_nothing_behind_over_tls(connect: Connect, tmp_path: Path) -> None:
    authority, certificate = make_certificates(tmp_path)
    with Emulator(key=KEY, speed=50, tls=certificate) as secure:
        connect(secure.url, ca_file=str(authority))
        ids = await made(10)
        async with no_warning():
            for prediction_id in ids:
                assert await fire(prediction_id) == "succeeded"
                assert not sessions()
        await asyncio.sleep(0.2)
        assert sockets_to(secure.url) == 0


class TestKeys:
    """The key belongs to the request, not to the session."""

    async def test_a_new_key_is_used_by_the_next_trigger_over_the_same_session(
        self, emulator: Emulator, connect: Connect
    ) -> None:
        first, second = await made(2)
        before = emulator.connections
        async with shared_session(FluxHook().access):
            assert await fire(first) == "succeeded"
            emulator.settings(key=OTHER_KEY)
            connect(emulator.url, key=OTHER_KEY, gateway="deerapi")
            assert await fire(second) == "succeeded"
            assert len(sessions()) == 1
        assert emulator.connections == before + 1
        # The old key is tried once more: a connection is looked up again when its key is refused.
        assert [record.status for record in emulator.requests].count(401) == 1

    async def test_two_keys_at_once_on_one_origin_do_not_mix(self, emulator: Emulator, connect: Connect) -> None:
        ids = await made(20)
        emulator.settings(key=OTHER_KEY, latency=0.01)
        connect(emulator.url, gateway="deerapi", key=OTHER_KEY, conn_id="good")
        connect(emulator.url, gateway="deerapi", key=KEY, conn_id="bad")
        fired = [fire(prediction_id, conn_id) for prediction_id in ids for conn_id in ("good", "bad")]
        ended = asyncio.gather(*fired)
        await until(lambda: bool(sessions()))
        assert len(sessions()) == 1
        assert await ended == ["succeeded", "cannot_tell"] * 20
        assert {record.had_authorization for record in emulator.requests} == {True}


class TestCancellation:
    """task killed, marked, cleared"""

    @staticmethod
    async def others_go_on(emulator: Emulator) -> None:
        emulator.clear_rules()
        ids = await made(3)
        assert await asyncio.gather(*(fire(prediction_id) for prediction_id in ids)) == ["succeeded"] * 3

    async def test_in_the_middle_of_a_request(self, emulator: Emulator, access: GatewayAccess) -> None:
        emulator.add_fault("hang", on="get", times=None)
        async with shared_session(access):
            ids = await made(5)
            waiting = [asyncio.create_task(fire(prediction_id)) for prediction_id in ids]
            await until(lambda: emulator.gets == 5)
            for task in waiting:
                await canceled(task)
            (shared,) = sessions().values()
            assert shared.users == 1
            assert shared.places._free == POOL_SIZE
            await self.others_go_on(emulator)
        assert not sessions()

    async def test_while_the_session_is_opened_and_while_others_wait_for_that(
        self, emulator: Emulator, access: GatewayAccess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = asyncio.Event()
        open_session = aio._open_session

        async def open_late(access: GatewayAccess) -> aiohttp.ClientSession:
            await opened.wait()
            return await open_session(access)

        monkeypatch.setattr(aio, "_open_session", open_late)
        ids = await made(4)
        opener, waiter, *staying = [asyncio.create_task(fire(prediction_id)) for prediction_id in ids]
        await until(lambda: users() == 4)
        await canceled(waiter)
        await canceled(opener)
        (shared,) = sessions().values()
        assert shared.users == 2
        opened.set()
        assert await asyncio.gather(*staying) == ["succeeded"] * 2
        assert not sessions()

    async def test_of_everybody_while_the_session_is_opened(
        self, access: GatewayAccess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def open_never(_: GatewayAccess) -> aiohttp.ClientSession:
            return await asyncio.get_running_loop().create_future()

        monkeypatch.setattr(aio, "_open_session", open_never)
        waiting = [asyncio.create_task(fire("some-prediction")) for _ in range(3)]
        await until(lambda: users() == 3)
        for task in waiting:
            await canceled(task)
        assert not sessions()

    async def test_while_waiting_for_a_turn(self, emulator: Emulator, connect: Connect) -> None:
        ids = await made(3)
        connect(emulator.url, gateway="deerapi", requests_per_minute=60)
        access = FluxHook().access
        for _ in range(4):
            rate_limiter.rate_limiter_of(access).turn(access.gateway.get(ids[0]))
        staying, *leaving = [asyncio.create_task(fire(prediction_id)) for prediction_id in ids]
        await until(lambda: users() == 3)
        await asyncio.sleep(0.3)  # by now they have waited for their first poll
        for task in leaving:
            await canceled(task)
        (shared,) = sessions().values()
        assert shared.users == 1
        assert shared.places._free == POOL_SIZE, "a turn is waited for without keeping a place from others"
        assert await staying == "succeeded"
        assert not sessions()

    async def test_while_waiting_for_a_place(self, emulator: Emulator, access: GatewayAccess) -> None:
        ids = await made(1)
        emulator.add_fault("hang", on="get", times=None)
        async with shared_session(access):
            waiting = [asyncio.create_task(fire(ids[0])) for _ in range(POOL_SIZE + 10)]
            (shared,) = sessions().values()
            await until(lambda: len(shared.places._queue) == 10)
            for task in reversed(waiting):
                await canceled(task)
            assert shared.users == 1
            assert shared.places._free == POOL_SIZE
            await self.others_go_on(emulator)
        assert not sessions()

    async def test_of_the_last_user_while_the_session_closes(
        self, emulator: Emulator, access: GatewayAccess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        closing = asyncio.Event()
        close = aiohttp.ClientSession.close

        async def close_slowly(session: aiohttp.ClientSession) -> None:
            await close(session)
            closing.set()
            await asyncio.sleep(60)

        monkeypatch.setattr(aiohttp.ClientSession, "close", close_slowly)
        (prediction_id,) = await made(1)
        last = asyncio.create_task(fire(prediction_id))
        await closing.wait()
        monkeypatch.setattr(aiohttp.ClientSession, "close", close)
        await self.others_go_on(emulator)
        await canceled(last)
        assert not sessions()


class TestPlaces:
    """The queue for a connection."""

    async def test_they_are_given_in_order_and_never_more_than_there_are(self) -> None:
        places, used, order = Places(2), 0, []

        async def use(number: int) -> None:
            nonlocal used
            assert await places.take(60)
            used += 1
            assert used <= 2
            order.append(number)
            await asyncio.sleep(0)
            used -= 1
            places.give_back()

        await asyncio.gather(*map(use, range(20)))
        assert order == list(range(20))
        assert places._free == 2

    async def test_one_that_is_free_is_had_without_a_turn_of_the_loop(self) -> None:
        taking = Places(1).take(60)
        with pytest.raises(StopIteration) as returned:
            taking.send(None)
        assert returned.value.value is True

    async def test_one_that_is_waited_for_in_vain_is_not_taken(self) -> None:
        places = Places(1)
        assert await places.take(0)
        assert not await places.take(0.01)
        places.give_back()
        assert await places.take(0)

    async def test_one_that_comes_to_somebody_just_canceled_goes_to_the_next(self) -> None:
        places = Places(1)
        assert await places.take(0)
        first, second = (asyncio.create_task(places.take(60)) for _ in range(2))
        await asyncio.sleep(0)
        places.give_back()
        await canceled(first)
        assert await second

    async def test_a_create_that_finds_no_connection_free_in_time_is_never_sent(
        self, emulator: Emulator, access: GatewayAccess
    ) -> None:
        emulator.add_fault("hang", on="get", times=None)
        talk = Conversation(access.gateway, LogBook())
        async with shared_session(access):
            hanging = [
                asyncio.create_task(aio.run(talk.get("x", deadline=time.time() + 60), access)) for _ in range(POOL_SIZE)
            ]
            await until(lambda: emulator.gets == POOL_SIZE)
            create = talk.submit(create_request(access.gateway), deadline=time.time() + 1)
            with pytest.raises(CallFailed, match="not sent") as caught:
                await aio.run(create, access)
            assert caught.value.verdict is Verdict.RETRY
            assert emulator.posts == 0
            for task in hanging:
                await canceled(task)


def test_a_loop_that_has_ended_is_forgotten(access: GatewayAccess) -> None:
    async def use() -> None:
        async def once() -> None:
            async with shared_session(access):
                await asyncio.sleep(0)

        await asyncio.gather(*(once() for _ in range(5)))

    gc.collect()
    before = len(aio._sessions)
    for _ in range(3):
        asyncio.run(use())
    gc.collect()
    assert len(aio._sessions) <= before
