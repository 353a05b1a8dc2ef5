"""Polls over kept connections: the usual answer is read, and everything else is left to the general client."""

from __future__ import annotations

import asyncio
import json
import random
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_flux.client import aio, poll_connections
from airflow_provider_flux.client.connection import GatewayAccess
from airflow_provider_flux.client.poll_connections import Limits, PollConnections, question_of
from airflow_provider_flux.protocol.messages import Purpose, Reply, Request, Response, TransportFailure
from tests.wire.two_drivers import ID, access_to, get

BODY = json.dumps({"id": ID, "status": "processing", "output": None}).encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Gateway:
    """Answers each request with pieces, as the test says.

    :ivar pieces: what to send, piece by piece; ends the connection after them if ``ends``.
    """

    def __init__(self) -> None:
        self.pieces: Sequence[bytes] = (ANSWER,)
        self.ends = False
        self.connections = self.requests = 0
        self.open: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open.add(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.requests += 1
                for piece in self.pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                if self.ends:
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()

    def hang_up(self) -> None:
        for writer in self.open:
            writer.close()


@asynccontextmanager
async def gateway() -> AsyncIterator[tuple[Gateway, GatewayAccess, PollConnections]]:
    served = Gateway()
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    served.port = server.sockets[0].getsockname()[1]
    access = access_to(f"http://127.0.0.1:{served.port}")
    connections = PollConnections(access.gateway.origin, None)
    try:
        yield served, access, connections
    finally:
        await connections.close()
        served.hang_up()
        server.close()
        await asyncio.sleep(0.01)


async def ask(connections: PollConnections, access: GatewayAccess, *, silence: float = 2.0) -> Reply | None:
    """Ask once, as the polls do."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[Reply | None] = loop.create_future()
    limits = Limits(connect=2.0, silence=silence, ends_at=loop.time() + 5.0)
    connections.ask(question_of(get(access), access, connections.netloc), access, limits, answered.set_result)
    return await asyncio.wait_for(answered, 10)


async def test_one_connection_is_used_again_and_again() -> None:
    async with gateway() as (served, access, connections):
        for _ in range(5):
            reply = await ask(connections, access)
            assert isinstance(reply, Response)
            assert (reply.status, reply.body, reply.content_type) == (200, BODY, "application/json")
        assert (served.connections, served.requests) == (1, 5)


async def test_a_connection_that_was_closed_meanwhile_is_not_used() -> None:
    async with gateway() as (served, access, connections):
        await ask(connections, access)
        served.hang_up()
        await asyncio.sleep(0.05)
        assert isinstance(await ask(connections, access), Response)
        assert served.connections == 2


async def test_a_connection_that_is_lost_as_soon_as_it_is_made_leaves_nobody_waiting() -> None:
    async with gateway() as (_, access, connections):
        add = connections.add

        def lose(connection: Any) -> None:
            add(connection)
            connection.close()

        connections.add = lose  # type: ignore[method-assign]
        assert await ask(connections, access) is None


async def test_a_gateway_that_hangs_up_at_once_leaves_nobody_waiting() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    access = access_to(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    connections = PollConnections(access.gateway.origin, None)
    assert await asyncio.gather(*(ask(connections, access) for _ in range(50))) == [None] * 50
    await connections.close()
    server.close()


async def test_a_connection_is_closed_after_it_has_been_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poll_connections, "SWEEP", 0.02)
    monkeypatch.setattr(poll_connections, "IDLE", 0.05)
    async with gateway() as (served, access, connections):
        await ask(connections, access)
        assert len(served.open) == 1
        while served.open:  # noqa: ASYNC110 (the other side is what is waited for)
            await asyncio.sleep(0.01)
        assert isinstance(await ask(connections, access), Response)


async def test_silence_is_a_failure_and_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poll_connections, "SWEEP", 0.02)
    async with gateway() as (served, access, connections):
        served.pieces = (ANSWER[:30],)
        reply = await ask(connections, access, silence=0.1)
        assert isinstance(reply, TransportFailure)
        assert reply.message == "no answer within the read timeout"
        assert not connections.rests


async def test_nobody_to_connect_to_is_left_to_the_general_client_which_says_why() -> None:
    async with gateway() as (_, access, __):
        nowhere = PollConnections("http://127.0.0.1:1", None)
        assert await ask(nowhere, access) is None
        assert not nowhere.rests
        await nowhere.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n" + ANSWER,
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: a\r\n\r\n",
        b"no HTTP at all\r\n\r\n",
        ANSWER + ANSWER,
        ANSWER.replace(b"\r\n\r\n", b"\r\n" + b"".join(b"X-%d: a\r\n" % number for number in range(101)) + b"\r\n"),
        ANSWER.replace(b"\r\n\r\n", b"\r\nX-Long: " + b"a" * 70000 + b"\r\n\r\n"),
    ],
    ids=["an early answer first", "upgrade", "no HTTP", "two answers", "101 headers", "a long header"],
)
async def test_an_odd_answer_is_left_to_the_general_client_and_so_are_the_next(answer: bytes) -> None:
    async with gateway() as (served, access, connections):
        served.pieces = (answer,)
        assert await ask(connections, access) is None
        assert connections.rests


async def test_a_poll_that_is_canceled_closes_its_connection_and_hears_nothing() -> None:
    async with gateway() as (served, access, connections):
        served.pieces = ()
        loop = asyncio.get_running_loop()
        heard: list[Any] = []
        limits = Limits(connect=2.0, silence=2.0, ends_at=loop.time() + 5.0)
        asked = connections.ask(question_of(get(access), access, connections.netloc), access, limits, heard.append)
        while not served.requests:  # noqa: ASYNC110 (the other side is what is waited for)
            await asyncio.sleep(0.005)
        asked.cancel()
        while served.open:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        assert heard == []


async def test_nothing_is_left_open(recwarn: pytest.WarningsRecorder) -> None:
    warnings.simplefilter("always")
    async with gateway() as (_, access, connections):
        await asyncio.gather(*(ask(connections, access) for _ in range(10)))
    assert connections._all == set()
    assert [str(warning.message) for warning in recwarn if issubclass(warning.category, ResourceWarning)] == []


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX: y", "/ä"])
def test_a_path_that_needs_quoting_is_left_to_the_general_client(path: str) -> None:
    access = access_to("http://127.0.0.1:1")
    with pytest.raises(ValueError, match=r"quoting|ascii"):
        question_of(Request(Purpose.GET, "GET", path), access, "127.0.0.1:1")


HEADERS = st.lists(
    st.sampled_from(
        [
            b"Content-Type: application/json",
            b"Content-Type: text/html; charset=latin-1",
            b"Connection: close",
            b"Connection: keep-alive",
            b"Retry-After: 3",
            b"Content-Encoding: identity",
            b"X-Empty:",
            b"X-Name: \xc3\xa9",
            b"x-name: twice",
        ]
    ),
    max_size=4,
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """An answer, whole or not, and perhaps with some bytes changed."""
    status = draw(st.sampled_from([b"200 OK", b"200 ", b"404 Not Found", b"429 Too", b"500 Oh", b"204 None"]))
    version = draw(st.sampled_from([b"HTTP/1.1", b"HTTP/1.0"]))
    headers = draw(HEADERS)
    body = draw(st.sampled_from([BODY, b"", b"{", b"\xff\xfe"]))
    framing = draw(st.sampled_from(["length", "chunked", "none", "both"]))
    if framing in {"length", "both"}:
        headers = [*headers, b"Content-Length: %d" % len(body)]
    if framing in {"chunked", "both"}:
        headers = [*headers, b"Transfer-Encoding: chunked"]
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    answer = bytearray(b"\r\n".join([version + b" " + status, *headers, b"", body]))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, max(0, len(answer) - 1)))
        answer[place : place + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(answer)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(answer=answers(), seed=st.integers(0, 1000))
def test_what_is_read_of_any_answer_is_what_the_general_client_reads(answer: bytes, seed: int) -> None:
    async def compare() -> None:
        async with gateway() as (served, access, connections):
            served.ends = True
            cuts = sorted(random.Random(seed).sample(range(len(answer) + 1), min(2, len(answer))))
            served.pieces = [answer[start:end] for start, end in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
            ours = await ask(connections, access)
            if ours is None:
                return
            sessions = await aio._open_session(access)
            try:
                theirs = await aio.send(sessions, access, get(access), 5.0)
            finally:
                await sessions.close()
            assert ours == theirs

    asyncio.run(compare())
