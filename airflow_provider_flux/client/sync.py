"""Drives a flow with ``requests``."""

from __future__ import annotations

import time
from collections.abc import Callable
from http.client import HTTPException
from http.cookiejar import DefaultCookiePolicy
from typing import Any, TypeVar

import requests
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError

from airflow_provider_flux.client.bounded_connections import BoundedAdapter, Exchange, carried_out
from airflow_provider_flux.client.connection import GatewayAccess
from airflow_provider_flux.client.rate_limiter import rate_limiter_of
from airflow_provider_flux.client.received import body_of, headers_of, received
from airflow_provider_flux.client.settings_in_use import UnusableSettingError, proxy_for, trust_on_the_way
from airflow_provider_flux.client.transport_failures import transport_failure
from airflow_provider_flux.protocol.flows import SHORTEST_LIMIT, Flow, Send, Sleep, drive
from airflow_provider_flux.protocol.messages import (
    BODY_LIMIT,
    Delivery,
    Purpose,
    Reply,
    Request,
    Response,
    TransportFailure,
)
from airflow_provider_flux.telemetry import note_exchange

T = TypeVar("T")


def run(
    flow: Flow[T],
    access: GatewayAccess,
    *,
    carry_out: Callable[[Any], Any] | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> T:
    """Run a flow to its end and return its result.

    Each flow has a session of its own, so that one can run inside a signal handler while another is interrupted.

    :param carry_out: carries out what is neither sent nor slept, and returns what came of it. It is asked right
        before a create is sent, too, and may raise instead.
    """
    with _new_session(access) as session:

        def perform(effect: Any) -> Any:
            if isinstance(effect, Sleep):
                return sleep(effect.seconds)
            if isinstance(effect, Send):
                return _send_in_turn(session, access, effect, sleep, before_create=carry_out)
            return None if carry_out is None else carry_out(effect)

        return drive(flow, perform)


def _send_in_turn(
    session: requests.Session,
    access: GatewayAccess,
    effect: Send,
    sleep: Callable[[float], object],
    *,
    before_create: Callable[[Any], Any] | None = None,
) -> Reply:
    ends_at = time.monotonic() + effect.limit
    turn = rate_limiter_of(access).turn(effect.request)
    while (seconds := turn.wait()) > 0:
        left = ends_at - time.monotonic()
        if left <= 0:
            return turn.never_came()
        sleep(min(seconds, left))
    # As late as can be: the wait for a turn may have been long.
    if before_create is not None and effect.request.purpose is Purpose.CREATE:
        before_create(effect)
    reply = send(session, access, effect.request, max(SHORTEST_LIMIT, ends_at - time.monotonic()))
    turn.note(reply)
    note_exchange(access.gateway, effect.request, reply)
    return reply


def send(session: requests.Session, access: GatewayAccess, request: Request, limit: float) -> Reply:
    """Send one request to an origin of the gateway's, following nothing.

    :param limit: seconds for all of it.
    """
    origin = request.origin or access.gateway.origin
    limit = min(limit, access.request_limit)
    try:
        proxy = proxy_for(origin)
        if not isinstance(session.get_adapter(origin), BoundedAdapter):
            session.mount(origin, BoundedAdapter(trust_on_the_way(origin, proxy, access.ca_file)))
    except UnusableSettingError as error:
        return TransportFailure(Delivery.UNUSABLE, str(error))
    now = time.monotonic()
    exchange = Exchange(now + min(access.connect_timeout, limit), now + limit, access.read_timeout)
    headers = headers_of(request)
    if request.purpose is Purpose.CREATE:
        # A kept connection can be closed by the other side just as a create is sent, which would leave its outcome
        # unknown for no reason.
        headers["Connection"] = "close"
        session.close()
    try:
        with (
            carried_out(exchange),
            session.request(
                request.method,
                f"{origin}{request.path}",
                data=body_of(request),
                headers=headers,
                timeout=(min(access.connect_timeout, limit), min(access.read_timeout, limit)),
                allow_redirects=False,
                proxies={"all": proxy} if proxy else {},
                stream=True,
            ) as response,
        ):
            return _received(access, response)
    except _FAILURES as error:
        return transport_failure(error, is_sent=exchange.is_sent, origin=origin, proxy=proxy)


_FAILURES = (requests.RequestException, HTTPError, HTTPException, OSError, ValueError)
"""What the layers of ``requests`` let through. Not every exception: a signal's handler may raise one in here."""


def send_alone(access: GatewayAccess, request: Request, limit: float) -> Reply:
    """Send one request over a connection of its own."""
    with _new_session(access) as session:
        return send(session, access, request, limit)


def _new_session(access: GatewayAccess) -> requests.Session:
    session = requests.Session()
    session.auth = _KeyAuth(access)
    # What the environment says of proxies and authorities is found out in one way for both HTTP libraries.
    session.trust_env = False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return session


def _received(access: GatewayAccess, response: requests.Response) -> Response:
    headers = [(name, value.encode("latin-1", "replace")) for name, value in response.raw.headers.iteritems()]
    body = bytearray()
    try:
        # Piece by piece as they come, and not unpacked yet.
        while len(body) <= BODY_LIMIT and (piece := response.raw.read1(65536, decode_content=False)):
            body += piece
    except (HTTPError, OSError):
        # A refusal is one without all of its words.
        if response.status_code < 300:
            raise
    return received(access, response.status_code, headers, bytes(body))


class _KeyAuth(AuthBase):
    """Adds the key to requests to an origin that may have it. As an auth object it cannot be replaced by a .netrc."""

    def __init__(self, access: GatewayAccess) -> None:
        self._access = access

    def __call__(self, prepared: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._access.gateway.may_have_key(prepared.url or ""):
            prepared.headers.update(self._access.headers)
        return prepared
