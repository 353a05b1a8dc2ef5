"""Drives a flow with ``aiohttp``, over one session for each origin that every trigger of the process shares."""

from __future__ import annotations

import asyncio
import ssl
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import aiohttp
from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_environ_proxies, select_proxy

from airflow_provider_flux.access import GatewayAccess
from airflow_provider_flux.protocol.flows import Flow, Send
from airflow_provider_flux.protocol.wire import (
    BODY_LIMIT,
    Answer,
    Delivery,
    Reply,
    Request,
    TransportFailure,
)

T = TypeVar("T")

POOL_SIZE = 32
"""Connections for each origin. A bound matters: each TLS connection holds a read buffer of 256 KiB."""


async def run(flow: Flow[T], access: GatewayAccess) -> T:
    """Run a flow to its end over the shared session and return its result."""
    async with shared_session(access) as session:
        try:
            effect = next(flow)
            while True:
                if isinstance(effect, Send):
                    effect = flow.send(await send(session, access, effect.request, effect.limit))
                else:
                    await asyncio.sleep(effect.seconds)
                    effect = next(flow)
        except StopIteration as end:
            result: T = end.value
            return result


async def send(session: aiohttp.ClientSession, access: GatewayAccess, request: Request, limit: float) -> Reply:
    """Send one request to the gateway's origin, following nothing.

    :param limit: seconds for all of it, the wait for a free connection included.
    """
    try:
        async with session.request(
            request.method,
            f"{access.gateway.origin}{request.path}",
            json=request.body,
            headers={"Accept": "application/json", **request.headers, **access.headers},
            timeout=aiohttp.ClientTimeout(
                total=min(limit, access.request_limit),
                sock_connect=access.connect_timeout,
                sock_read=access.read_timeout,
            ),
            allow_redirects=False,
        ) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, headers, access.without_key(await _body(response)))
    except aiohttp.ClientConnectorCertificateError:
        return TransportFailure(Delivery.UNTRUSTED, "the TLS handshake failed: certificate not trusted")
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        return TransportFailure(Delivery.NOT_SENT, "no connection could be made")
    except asyncio.TimeoutError:
        return TransportFailure(Delivery.IN_DOUBT, "no answer within the read timeout")
    except aiohttp.ClientError as error:
        what = f"the connection ended before the answer was whole ({type(error).__name__})"
        return TransportFailure(Delivery.IN_DOUBT, what)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > BODY_LIMIT:
            break
    return bytes(body[:BODY_LIMIT])


@dataclass
class _SharedSession:
    """A session and how many use it."""

    session: aiohttp.ClientSession
    users: int = 0


@dataclass
class _LoopSessions:
    """The shared sessions of one event loop."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    by_origin: dict[tuple[str, str | None], _SharedSession] = field(default_factory=dict)


_sessions: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopSessions] = weakref.WeakKeyDictionary()


@asynccontextmanager
async def shared_session(access: GatewayAccess) -> AsyncIterator[aiohttp.ClientSession]:
    """Lend the session of this event loop and origin; the last user closes it.

    The key is no part of it: it goes with each request, so that connections with other keys share it too.
    """
    of_loop = _sessions.setdefault(asyncio.get_running_loop(), _LoopSessions())
    origin = (access.gateway.origin, access.trusted_authorities)
    async with of_loop.lock:
        shared = of_loop.by_origin.get(origin)
        if shared is None:
            shared = of_loop.by_origin[origin] = _SharedSession(await _open_session(access))
        shared.users += 1
    try:
        yield shared.session
    finally:
        shared.users -= 1
        if shared.users == 0:
            del of_loop.by_origin[origin]
            await shared.session.close()


def _trust(authorities: str | None) -> ssl.SSLContext:
    """Trust whom the worker trusts: requests brings authorities of its own and takes a folder as well."""
    chosen = authorities or DEFAULT_CA_BUNDLE_PATH
    if Path(chosen).is_dir():
        return ssl.create_default_context(capath=chosen)
    return ssl.create_default_context(cafile=chosen)


async def _open_session(access: GatewayAccess) -> aiohttp.ClientSession:
    # Reading the authorities takes tens of milliseconds, too long for the triggerer's loop.
    context = await asyncio.to_thread(_trust, access.trusted_authorities)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=POOL_SIZE, ssl=context),
        cookie_jar=aiohttp.DummyCookieJar(),
        # The environment's proxies, chosen as on the worker. Not trust_env: it would let a .netrc replace the key.
        proxy=select_proxy(access.gateway.origin, get_environ_proxies(access.gateway.origin)),
    )
