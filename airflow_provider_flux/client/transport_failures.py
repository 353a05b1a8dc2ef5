"""What an exception of an HTTP library means: whether the request can have arrived, and what went wrong."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator

from airflow_provider_flux.client.settings_in_use import without_password
from airflow_provider_flux.protocol.messages import Delivery, TransportFailure

_TUNNEL_REFUSED = re.compile(r"Tunnel connection failed: (\d{3})")
_PASSING = frozenset({408, 425, 429})
_ABOUT_CERTIFICATES = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")
"""What a gateway's TLS alert is about that refuses our certificate, or that we have none. With TLS 1.3 it comes after
the handshake has ended on our side, but before the gateway reads any of the request."""


def transport_failure(
    error: BaseException, *, is_sent: bool, origin: str, proxy: str | None = None
) -> TransportFailure:
    """Describe what kept an answer from coming.

    :param is_sent: whether a byte of the request can have left.
    :param origin: where it was to go.
    :param proxy: the way that it took.
    """
    through = f" through the proxy {without_password(proxy)}" if proxy else ""
    where = f"{origin}{through}"
    chain = list(_chain(error))
    for reason in filter(None, map(_tls_reason, chain)):
        if "ALERT" in reason and any(word in reason for word in _ABOUT_CERTIFICATES):
            return TransportFailure(Delivery.UNTRUSTED, f"{where} refused the TLS connection ({_plain(reason)})")
    if is_sent:
        return TransportFailure(Delivery.IN_DOUBT, _describe_loss(error, chain))
    untrusted = next((link for link in chain if isinstance(link, ssl.SSLCertVerificationError)), None)
    if untrusted is not None:
        why = f"certificate not trusted ({getattr(untrusted, 'verify_message', '')})"
        return TransportFailure(Delivery.UNTRUSTED, f"the TLS handshake with {where} failed: {why}")
    status = next((found for link in chain if (found := _refusal_by_proxy(link))), None)
    if status is not None:
        passes = status >= 500 or status in _PASSING
        wants = "; it wants a user name and a password in its URL" if status == 407 else ""
        message = f"the proxy {without_password(proxy or '')} refused to connect to {origin}: {status}{wants}"
        return TransportFailure(Delivery.NOT_SENT if passes else Delivery.UNUSABLE, message)
    return TransportFailure(Delivery.NOT_SENT, f"no connection could be made to {where}: {_describe_cause(chain)}")


def is_silence(chain: list[BaseException]) -> bool:
    """Tell whether time ran out."""
    return any(isinstance(link, TimeoutError) or "Timeout" in type(link).__name__ for link in chain)


def _describe_loss(error: BaseException, chain: list[BaseException]) -> str:
    if is_silence(chain):
        return "no answer within the read timeout"
    return f"the connection ended before the answer was whole ({type(error).__name__})"


def _describe_cause(chain: list[BaseException]) -> str:
    for link in chain:
        if isinstance(link, socket.gaierror) or "NameResolution" in type(link).__name__:
            return "its name is not known (DNS)"
    if is_silence(chain):
        return "it took too long"
    for link in chain:
        if (reason := _tls_reason(link)) and "EOF" not in reason:
            return f"the TLS handshake failed ({_plain(reason)})"
        if isinstance(link, OSError) and link.strerror and not isinstance(link, ssl.SSLError):
            return re.sub(r"^Connect call failed.*", "Connection refused", link.strerror)
    return "what answered ended the connection"


def _tls_reason(error: BaseException) -> str:
    reason = getattr(error, "reason", None) if isinstance(error, ssl.SSLError) else None
    return reason if isinstance(reason, str) else ""


def _plain(reason: str) -> str:
    return reason.replace("_", " ").lower()


def _refusal_by_proxy(error: BaseException) -> int | None:
    if type(error).__name__ == "ClientHttpProxyError":
        status: int = getattr(error, "status", 0)
        return status
    found = _TUNNEL_REFUSED.search(str(error)) if isinstance(error, OSError) else None
    return int(found[1]) if found else None


def _chain(error: BaseException, depth: int = 8) -> Iterator[BaseException]:
    """Yield an exception and those that it was made from: the libraries wrap them in several ways."""
    yield error
    if not depth:
        return
    inner = [error.__cause__, error.__context__, *error.args]
    inner += [getattr(error, name, None) for name in ("reason", "original_error", "os_error")]
    seen: set[int] = set()
    for link in inner:
        if isinstance(link, BaseException) and id(link) not in seen:
            seen.add(id(link))
            yield from _chain(link, depth - 1)
