"""Drives a flow with ``requests``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import requests
from requests.auth import AuthBase
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ProxyError

from airflow_provider_flux.client.connection import GatewayAccess
from airflow_provider_flux.client.rate_limiter import rate_limiter_of
from airflow_provider_flux.protocol.flows import SHORTEST_LIMIT, Flow, Send, Sleep, drive
from airflow_provider_flux.protocol.gateways import origin_of
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
    with requests.Session() as session:
        session.auth = _BearerAuth(access)

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
    """Send one request to the gateway's origin, following nothing.

    :param limit: seconds for all of it.
    """
    limit = min(limit, access.request_limit)
    ends_at = time.monotonic() + limit
    headers = {"Accept": "application/json", **request.headers}
    if request.purpose is Purpose.CREATE:
        # A kept connection can be closed by the other side just as a create is sent, which would leave its
        # outcome unknown for no reason.
        headers["Connection"] = "close"
    try:
        with session.request(
            request.method,
            f"{access.gateway.origin}{request.path}",
            json=request.body,
            headers=headers,
            timeout=(min(access.connect_timeout, limit), min(access.read_timeout, limit)),
            allow_redirects=False,
            verify=access.trusted_authorities or True,
            stream=True,
        ) as response:
            answer_headers = {name.lower(): value for name, value in response.headers.items()}
            return Response(response.status_code, answer_headers, access.without_key(_body(response, ends_at)))
    except requests.RequestException as error:
        return TransportFailure(_delivery(error), _describe(error))
    except _BodyError as error:
        return TransportFailure(Delivery.IN_DOUBT, str(error))


class _BodyError(Exception):
    """The rest of an answer did not come."""


def _body(response: requests.Response, ends_at: float) -> bytes:
    body = bytearray()
    try:
        # Piece by piece as they come, since a body that trickles meets no read timeout.
        while chunk := response.raw.read1(65536, decode_content=True):
            body += chunk
            if len(body) > BODY_LIMIT:
                break
            if time.monotonic() > ends_at:
                raise _BodyError("the answer came too slowly")
    except (HTTPError, OSError) as error:
        raise _BodyError(f"the connection ended before the answer was whole ({type(error).__name__})") from error
    return bytes(body[:BODY_LIMIT])


class _BearerAuth(AuthBase):
    """Adds the key to requests to the gateway's origin. As an auth object it cannot be replaced by a .netrc."""

    def __init__(self, access: GatewayAccess) -> None:
        self._access = access

    def __call__(self, prepared: requests.PreparedRequest) -> requests.PreparedRequest:
        if origin_of(prepared.url or "") == self._access.gateway.origin:
            prepared.headers.update(self._access.headers)
        return prepared


def _delivery(error: requests.RequestException) -> Delivery:
    if isinstance(error, requests.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return Delivery.UNTRUSTED
    cause = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(cause, ProxyError):
        cause = cause.original_error
    if isinstance(cause, (NewConnectionError, ConnectTimeoutError)):
        return Delivery.NOT_SENT
    return Delivery.IN_DOUBT


def _describe(error: requests.RequestException) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return "the TLS handshake failed: certificate not trusted" if "CERTIFICATE" in str(error) else "TLS failed"
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return "no connection within the connect timeout"
    if isinstance(error, requests.exceptions.ReadTimeout):
        return "no answer within the read timeout"
    if _delivery(error) is Delivery.NOT_SENT:
        return "no connection could be made"
    return f"the connection ended before the answer was whole ({type(error).__name__})"
