"""Drives a flow with ``requests``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import requests
from requests.auth import AuthBase
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from airflow_provider_flux.access import GatewayAccess
from airflow_provider_flux.protocol.flows import Flow, Send
from airflow_provider_flux.protocol.gateways import origin_of
from airflow_provider_flux.protocol.wire import (
    BODY_LIMIT,
    Answer,
    Delivery,
    Purpose,
    Reply,
    Request,
    TransportFailure,
)

T = TypeVar("T")


def run(flow: Flow[T], access: GatewayAccess, *, sleep: Callable[[float], object] = time.sleep) -> T:
    """Run a flow to its end and return its result.

    Each flow has a session of its own, so that one can run inside a signal handler while another is interrupted.
    """
    with requests.Session() as session:
        session.auth = _BearerAuth(access)
        try:
            effect = next(flow)
            while True:
                if isinstance(effect, Send):
                    effect = flow.send(send(session, access, effect.request))
                else:
                    sleep(effect.seconds)
                    effect = next(flow)
        except StopIteration as end:
            result: T = end.value
            return result


def send(session: requests.Session, access: GatewayAccess, request: Request) -> Reply:
    """Send one request to the gateway's origin, following nothing."""
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
            timeout=(access.connect_timeout, access.read_timeout),
            allow_redirects=False,
            verify=access.trusted_authorities or True,
            stream=True,
        ) as response:
            answer_headers = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status_code, answer_headers, _body(response))
    except requests.RequestException as error:
        return TransportFailure(_delivery(error), _describe(error))


def _body(response: requests.Response) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(65536):
        body += chunk
        if len(body) > BODY_LIMIT:
            break
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
