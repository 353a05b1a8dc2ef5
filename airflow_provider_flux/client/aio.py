"""Drives a flow with ``aiohttp``, over one session for each origin that every trigger of the process shares."""

from __future__ import annotations

import asyncio
import functools
import io
import ssl
import time
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp
from requests.utils import requote_uri
from yarl import URL

from airflow_provider_flux.client import sync
from airflow_provider_flux.client.connection import GatewayAccess
from airflow_provider_flux.client.list_polling import Lists, Sender
from airflow_provider_flux.client.poll_connections import PollConnections
from airflow_provider_flux.client.polls import Poll, PollResources, Take, begin_poll
from airflow_provider_flux.client.rate_limiter import rate_limiter_of
from airflow_provider_flux.client.received import LONGEST_LINE, MOST_HEADERS, body_of, headers_of, received
from airflow_provider_flux.client.request_places import Places
from airflow_provider_flux.client.settings_in_use import UnusableSettingError, proxy_for, trust_on_the_way
from airflow_provider_flux.client.transport_failures import transport_failure
from airflow_provider_flux.client.watcher import Watcher
from airflow_provider_flux.protocol.flows import SHORTEST_LIMIT, Flow, Send
from airflow_provider_flux.protocol.messages import (
    BODY_LIMIT,
    Delivery,
    Purpose,
    Reply,
    Request,
    Response,
    TransportFailure,
)
from airflow_provider_flux.telemetry import note_exchange, tell_polls

T = TypeVar("T")

_sent_over: ContextVar[list[asyncio.Transport | None]] = ContextVar("sent_over")
"""Over what the request of this task is sent; empty until a byte of it can have left."""

LARGE_BODY = 1024 * 1024
"""Bytes."""

POOL_SIZE = 32
"""Connections for each origin. A bound matters: each TLS connection holds a read buffer of 256 KiB."""


async def run(flow: Flow[T], access: GatewayAccess, *, carry_out: Callable[[Any], Awaitable[Any]] | None = None) -> T:
    """Run a flow to its end over the shared session and return its result.

    :param carry_out: carries out what is neither sent nor slept, and returns what came of it. It is asked right
        before a create is sent, too, and may raise instead.
    """
    async with shared_session(access) as shared:
        effects = _Effects(shared, access, carry_out)
        if not access.gateway.preset.lists_predictions:
            # What keeps it from being opened is told when something is to be sent.
            with suppress(UnusableSettingError):
                await shared.open(access)
            return await shared.watcher.run(flow, effects)
        async with shared.lists.asking(access, effects.send) as effects.ask_by_list:
            return await shared.watcher.run(flow, effects)


@dataclass(slots=True)
class _Effects:
    """What a flow over one connection needs done.

    :param others: carries out what is neither sent nor slept.
    :param ask_by_list: sends a request, or answers it from the gateway's list where there is one.
    """

    shared: SharedSession
    access: GatewayAccess
    others: Callable[[Any], Awaitable[Any]] | None
    ask_by_list: Sender | None = None

    async def carry_out(self, effect: Any) -> Any:
        if isinstance(effect, Send):
            return await (self.ask_by_list or self.send)(effect)
        return None if self.others is None else await self.others(effect)

    def poll(self, effect: Send, take: Take) -> Poll | None:
        return None if self.ask_by_list is not None else self.shared.begin_poll(self.access, effect, take)

    async def send(self, effect: Send) -> Reply:
        return await _send_in_turn(self.shared, self.access, effect, before_create=self.others)


async def _send_in_turn(
    shared: SharedSession,
    access: GatewayAccess,
    effect: Send,
    *,
    before_create: Callable[[Any], Awaitable[Any]] | None = None,
) -> Reply:
    ends_at = time.monotonic() + effect.limit
    try:
        sessions = await shared.open(access)
    except UnusableSettingError as error:
        return TransportFailure(Delivery.UNUSABLE, str(error))
    places = shared.places
    turn = rate_limiter_of(access).turn(effect.request)
    while True:
        while (seconds := turn.wait()) > 0:
            left = ends_at - time.monotonic()
            if left <= 0:
                return turn.never_came()
            await asyncio.sleep(min(seconds, left))
        if not await places.take(ends_at - time.monotonic()):
            return places.never_came()
        try:
            # A 429 to those ahead in the queue for a place holds back those behind as well.
            if turn.wait() > 0:
                continue
            # As late as can be: the wait for a turn may have been long.
            if before_create is not None and effect.request.purpose is Purpose.CREATE:
                await before_create(effect)
            limit = max(SHORTEST_LIMIT, ends_at - time.monotonic())
            reply = await send(sessions, access, effect.request, limit)
            turn.note(reply)
            note_exchange(access.gateway, effect.request, reply)
            return reply
        finally:
            places.give_back()


async def send(sessions: Sessions, access: GatewayAccess, request: Request, limit: float) -> Reply:
    """Send one request to an origin of the gateway's, following nothing.

    :param limit: seconds for all of it.
    """
    if sessions.proxy is not None and not sessions.proxy.startswith("http:"):
        # aiohttp knows no SOCKS, and TLS inside TLS not everywhere.
        return await asyncio.to_thread(sync.send_alone, access, request, limit)
    body = body_of(request)
    origin = request.origin or access.gateway.origin
    sent: list[asyncio.Transport | None] = []
    _sent_over.set(sent)
    limit = min(limit, access.request_limit)
    ends_at = time.monotonic() + limit
    try:
        async with sessions.of(request).request(
            request.method,
            URL(f"{origin}{requote_uri(request.path)}", encoded=True),
            # aiohttp warns of large bodies, such as one with a picture, unless they come as a file.
            data=io.BytesIO(body) if body is not None and len(body) > LARGE_BODY else body,
            headers={**headers_of(request), **(access.headers if access.gateway.may_have_key(origin) else {})},
            timeout=_timeout(limit, min(access.connect_timeout, limit), access.read_timeout),
            allow_redirects=False,
        ) as response:
            return await _received(access, response)
    except (aiohttp.ClientResponseError, aiohttp.http_exceptions.HttpProcessingError) as error:
        left = ends_at - time.monotonic()
        if request.purpose is not Purpose.CREATE and sent and left > 0:
            # What one library cannot read of an answer the other may. A free question can be asked again.
            return await asyncio.to_thread(sync.send_alone, access, request, left)
        return transport_failure(error, is_sent=bool(sent), origin=origin, proxy=sessions.proxy)
    except Exception as error:  # noqa: BLE001 (whatever it is, only what may have been sent is in doubt)
        for transport in sent:
            if transport is not None and transport.is_closing():
                # It would go on until all is sent, which a gateway that does not read never lets happen.
                transport.abort()
        return transport_failure(error, is_sent=bool(sent), origin=origin, proxy=sessions.proxy)


@functools.lru_cache(maxsize=16)
def _timeout(total: float, connect: float, read: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=total, connect=connect, sock_read=read)


async def _received(access: GatewayAccess, response: aiohttp.ClientResponse) -> Response:
    headers = [(name.decode("latin-1"), value) for name, value in response.raw_headers]
    if len(headers) > MOST_HEADERS:
        raise aiohttp.ClientPayloadError("too many headers")
    body = bytearray()
    try:
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > BODY_LIMIT:
                break
    except (aiohttp.ClientError, OSError, asyncio.TimeoutError):
        # A refusal is one without all of its words.
        if response.status < 300:
            raise
    return received(access, response.status, headers, bytes(body))


@dataclass(frozen=True, slots=True)
class Sessions:
    """The sessions with one origin.

    :param keeping: keeps its connections for the next requests.
    :param creating: makes a new one for each request. A kept connection can be closed by the other side just as a
        create is sent, which would leave its outcome unknown for no reason.
    :param proxy: the way that both take.
    :param polls: what polls are sent over where no proxy stands in between.
    """

    keeping: aiohttp.ClientSession
    creating: aiohttp.ClientSession
    proxy: str | None
    polls: PollConnections | None

    def of(self, request: Request) -> aiohttp.ClientSession:
        """Return the session for a request."""
        return self.creating if request.purpose is Purpose.CREATE else self.keeping

    async def close(self) -> None:
        """Close all."""
        try:
            if self.polls is not None:
                await self.polls.close()
        finally:
            try:
                await self.creating.close()
            finally:
                await self.keeping.close()


class SharedSession:
    """A session, and how many use it."""

    def __init__(self) -> None:
        self.users = 0
        self.places = Places(POOL_SIZE)
        self.lists = Lists()
        self.watcher = Watcher()
        self._opening = asyncio.Lock()
        self._session: Sessions | None = None
        self._poll_resources: PollResources | None = None

    async def open(self, access: GatewayAccess) -> Sessions:
        """Return the session, opened by whoever comes first.

        :raises UnusableSettingError: if the machine or the connection is set up so that it cannot be.
        """
        if self._session is None:
            async with self._opening:
                if self._session is None:
                    self._session = await _open_session(access)
                    if self._session.polls is not None:
                        self._poll_resources = PollResources(self._session.polls, self.places, self.watcher)
        return self._session

    def begin_poll(self, access: GatewayAccess, effect: Send, take: Take) -> Poll | None:
        """Begin a poll that takes less effort; None if that cannot be, or not yet."""
        return None if self._poll_resources is None else begin_poll(self._poll_resources, access, effect, take)

    async def close(self) -> None:
        """Close the session, if it was ever opened."""
        self.watcher.close()
        tell_polls()
        if self._session is not None:
            await self._session.close()


@dataclass
class _LoopSessions:
    """The shared sessions of one event loop."""

    by_origin: dict[tuple[str, str | None], SharedSession] = field(default_factory=dict)


_sessions: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopSessions] = weakref.WeakKeyDictionary()


class shared_session:  # noqa: N801 (used like a function)
    """Lend the session of this event loop and origin, and what its users share; the last user closes it.

    The key is no part of it: it goes with each request, so that connections with other keys share it too. A class,
    since each of thousands of predictions has one for as long as it is waited for, and a generator takes more memory.
    """

    __slots__ = ("_by_origin", "_origin", "_shared")

    def __init__(self, access: GatewayAccess) -> None:
        self._origin = (access.gateway.origin, access.ca_file)

    async def __aenter__(self) -> SharedSession:
        self._by_origin = _sessions.setdefault(asyncio.get_running_loop(), _LoopSessions()).by_origin
        self._shared = self._by_origin.get(self._origin) or self._by_origin.setdefault(self._origin, SharedSession())
        # Counted before the first wait, so that whoever is canceled from here on is counted out again.
        self._shared.users += 1
        return self._shared

    async def __aexit__(self, *raised: object) -> None:
        self._shared.users -= 1
        if self._shared.users == 0:
            del self._by_origin[self._origin]
            await self._shared.close()


class _Connector(aiohttp.TCPConnector):
    """Tells when a request is given its connection: before that, no byte of it can have left."""

    async def connect(self, *args: Any, **options: Any) -> Any:
        connection = await super().connect(*args, **options)
        _sent_over.get().append(connection.transport)
        return connection


async def _open_session(access: GatewayAccess) -> Sessions:
    # The environment's proxies, chosen as on the worker. Not trust_env: it would let a .netrc replace the key.
    proxy = proxy_for(access.gateway.origin)
    # Reading the authorities takes tens of milliseconds, too long for the triggerer's loop.
    trust = await asyncio.to_thread(trust_on_the_way, access.gateway.origin, proxy, access.ca_file)
    keeping, creating = (_new_session(proxy, trust or True, force_close=closes) for closes in (False, True))
    polls = None if proxy else PollConnections(access.gateway.origin, trust)
    return Sessions(keeping, creating, proxy, polls)


def _new_session(
    proxy: str | None, trust: ssl.SSLContext | bool, *, force_close: bool = False
) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=_Connector(limit=POOL_SIZE, ssl=trust, force_close=force_close),
        cookie_jar=aiohttp.DummyCookieJar(),
        proxy=proxy,
        auto_decompress=False,
        skip_auto_headers=("Content-Type",),
        max_line_size=LONGEST_LINE,
        max_field_size=LONGEST_LINE,
    )
