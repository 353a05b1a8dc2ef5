"""Polls over a few kept connections: one small request, one small JSON answer, thousands of times.

A general client takes several times as long for that, most of it for what a poll does not use. So this one knows the
usual answer only, read by httptools, the parser of the server that Airflow itself runs on. Whatever else comes is left
to the general client, which asks again: a poll costs nothing.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlsplit

import httptools

from airflow_provider_flux.client.connection import GatewayAccess
from airflow_provider_flux.client.received import HEADERS, LONGEST_LINE, MOST_HEADERS, received
from airflow_provider_flux.protocol.messages import BODY_LIMIT, Delivery, Reply, Request, TransportFailure

SWEEP = 0.5
"""Seconds between two looks for requests whose time is over: cheaper than a timer for each."""

REST = 60.0
"""Seconds for which all polls are left to the general client, once one had an answer that only that can read."""

IDLE = 15.0
"""Seconds for which a connection is kept that nobody uses."""

Take: TypeAlias = "Callable[[Reply | None], None]"
"""Is given the reply; None if the general client has to ask."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Until when a poll may take, by the event loop's clock.

    :param connect: seconds for a connection.
    :param silence: seconds between two pieces of the answer.
    :param ends_at: when all of it must be over.
    """

    connect: float
    silence: float
    ends_at: float


class PollConnections:
    """Kept connections to one origin.

    :param origin: scheme, host and port.
    :param trust: whom to trust; None if nothing is encrypted.
    """

    def __init__(self, origin: str, trust: ssl.SSLContext | None) -> None:
        parts = urlsplit(origin)
        self.netloc = parts.netloc
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._trust = trust
        self._loop = asyncio.get_running_loop()
        self._all: set[_Connection] = set()
        self._idle: list[_Connection] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._rests_until = 0.0

    @property
    def rests(self) -> bool:
        """Whether polls are left to the general client for now."""
        return self._loop.time() < self._rests_until

    def rest(self) -> None:
        """Leave polls to the general client for a while."""
        self._rests_until = self._loop.time() + REST

    def ask(self, question: bytes, access: GatewayAccess, limits: Limits, take: Take) -> Asked:
        """Send a poll. What comes of it is handed to ``take``, later, unless it is canceled before."""
        asked = Asked(question, access, limits, take)
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed:
                connection.send(asked)
                return asked
        opening = self._loop.create_task(self._open(asked))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)
        return asked

    async def _open(self, asked: Asked) -> None:
        try:
            _, connection = await asyncio.wait_for(
                self._loop.create_connection(
                    lambda: _Connection(self),
                    self._host,
                    self._port,
                    ssl=self._trust,
                    happy_eyeballs_delay=0.25,
                ),
                asked.limits.connect,
            )
        except Exception:  # noqa: BLE001 (why not is found out, and told, by the general client)
            asked.settle(None)
            return
        if asked.is_settled:
            self.keep(connection)
        else:
            connection.send(asked)

    def add(self, connection: _Connection) -> None:
        """Take note of a connection that has been made."""
        self._all.add(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP, self._sweep)

    def keep(self, connection: _Connection) -> None:
        """Keep a connection for the next poll."""
        connection.heard_at = self._loop.time()
        self._idle.append(connection)

    def forget(self, connection: _Connection) -> None:
        """Take note of a connection that is closed."""
        self._all.discard(connection)

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in list(self._all):
            connection.check(now)
        self._idle = [connection for connection in self._idle if not connection.is_closed]
        self._sweeper = self._loop.call_later(SWEEP, self._sweep) if self._all else None

    async def close(self) -> None:
        """Close all connections."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for opening in self._opening:
            opening.cancel()
        if self._opening:
            await asyncio.wait(self._opening)
        closing = [connection.close() for connection in list(self._all)]
        if closing:
            await asyncio.wait(closing, timeout=1.0)


class Asked:
    """A poll that was sent, or waits for a connection to be made."""

    __slots__ = ("_take", "access", "connection", "limits", "question")

    def __init__(self, question: bytes, access: GatewayAccess, limits: Limits, take: Take) -> None:
        self.question = question
        self.access = access
        self.limits = limits
        self.connection: _Connection | None = None
        self._take: Take | None = take

    @property
    def is_settled(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._take is None

    def settle(self, reply: Reply | None) -> None:
        """Hand over the reply, unless that has been done or nobody wants it."""
        take, self._take = self._take, None
        if take is not None:
            take(reply)

    def cancel(self) -> None:
        """Want no reply any more."""
        self._take = None
        if self.connection is not None:
            self.connection.close()


class _Connection(asyncio.Protocol):
    """One connection, with at most one poll on it. Its methods in lower case without a comment are httptools'."""

    def __init__(self, connections: PollConnections) -> None:
        self.heard_at = 0.0
        self.is_closed = False
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._asked: Asked | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._begin()

    def _begin(self) -> None:
        self._headers: list[tuple[str, bytes]] = []
        self._body: list[bytes] = []
        self._size = self._answers = self._status = 0
        self._is_whole = self._is_odd = False
        self._keeps = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport  # type: ignore[assignment]
        self._connections.add(self)

    def send(self, asked: Asked) -> None:
        """Send a poll."""
        if self.is_closed:
            # Lost as soon as it was made: nobody would hear of it again.
            asked.settle(None)
            return
        self._begin()
        self._asked, asked.connection = asked, self
        self.heard_at = self._loop.time()
        self._transport.write(asked.question)  # type: ignore[union-attr]

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self.heard_at = self._loop.time()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._leave()
            return
        if self._asked is None or self._is_odd:
            self._leave()
        elif self._is_whole:
            self._answer(self._asked.access)

    def on_message_begin(self) -> None:
        self._answers += 1
        self._is_odd |= self._answers > 1

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1"), value))
        self._is_odd |= len(self._headers) > MOST_HEADERS or len(name) + len(value) > LONGEST_LINE

    def on_body(self, body: bytes) -> None:
        self._body.append(body)
        self._size += len(body)
        self._is_odd |= self._size > BODY_LIMIT

    def on_message_complete(self) -> None:
        self._is_whole = True
        # What the parser says of it holds until here.
        self._keeps = self._parser.should_keep_alive()
        self._status = self._parser.get_status_code()

    def _answer(self, access: GatewayAccess) -> None:
        if self._status < 200:
            self._leave()
            return
        reply = received(access, self._status, self._headers, b"".join(self._body))
        if self._keeps:
            asked, self._asked = self._asked, None
            self._connections.keep(self)
            if asked is not None:
                asked.connection = None
                asked.settle(reply)
        else:
            self._end(reply)

    def check(self, now: float) -> None:
        """Give up a poll whose time is over, and a connection that has not been used for long."""
        if self._asked is None:
            if now - self.heard_at > IDLE:
                self.close()
        elif now > self._asked.limits.ends_at or now - self.heard_at > self._asked.limits.silence:
            self._end(TransportFailure(Delivery.IN_DOUBT, "no answer within the read timeout"))

    def connection_lost(self, error: Exception | None) -> None:
        """End."""
        self.is_closed = True
        self._connections.forget(self)
        if not self._lost.done():
            self._lost.set_result(None)
        if self._answers:
            self._leave()
        else:
            # Closed as the poll was on its way: that says nothing of the answer.
            self._end(None)

    def _leave(self) -> None:
        """Leave the poll to the general client, and the next ones as well."""
        if self._asked is not None:
            self._connections.rest()
        self._end(None)

    def _end(self, reply: Reply | None) -> None:
        asked, self._asked = self._asked, None
        self.close()
        if asked is not None:
            asked.connection = None
            asked.settle(reply)

    def close(self) -> asyncio.Future[None]:
        """Close the connection at once; the future tells when that is done."""
        self.is_closed = True
        if self._transport is not None:
            self._transport.abort()
        return self._lost


def question_of(request: Request, access: GatewayAccess, netloc: str) -> bytes:
    """Return a poll as it is sent.

    :raises ValueError: if it cannot be written in plain ASCII without a line of its own.
    """
    if not request.path.isprintable() or " " in request.path:
        raise ValueError("this path needs quoting")
    headers = {"Host": netloc, **HEADERS, **request.headers, **access.headers}
    return f"GET {request.path} HTTP/1.1".encode("ascii") + _lines(tuple(headers.items()))


@functools.lru_cache(maxsize=64)
def _lines(headers: Sequence[tuple[str, str]]) -> bytes:
    lines = [f"{name}: {value}" for name, value in headers]
    if not all(map(str.isprintable, lines)):
        raise ValueError("a header cannot be sent as it is")
    return "\r\n".join(["", *lines, "", ""]).encode("ascii")
