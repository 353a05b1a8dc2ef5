"""An answer as both HTTP libraries hand it on: decoded in one way, within bounds, and without the key."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable

from airflow_provider_flux import __version__
from airflow_provider_flux.client.connection import GatewayAccess
from airflow_provider_flux.protocol.messages import BODY_LIMIT, Request, Response
from airflow_provider_flux.protocol.redaction import hider

HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",
    "User-Agent": f"airflow-provider-flux/{__version__}",
}

MOST_HEADERS = 100
LONGEST_LINE = 65536
"""What ``http.client`` bears. The other library is told to bear as much."""


def body_of(request: Request) -> bytes | None:
    """Return the body to send."""
    if request.body is None or isinstance(request.body, bytes):
        return request.body
    return json.dumps(request.body, allow_nan=False).encode()


def headers_of(request: Request) -> dict[str, str]:
    """Return the headers to send, besides the key."""
    typed = {} if request.body is None or isinstance(request.body, bytes) else {"Content-Type": "application/json"}
    return {**HEADERS, **typed, **request.headers}


def received(access: GatewayAccess, status: int, headers: Iterable[tuple[str, bytes]], body: bytes) -> Response:
    """Return an answer.

    Of a header that stands twice the first counts.

    :param body: as it came, encoded as the headers say.
    """
    named: dict[str, str] = {}
    hide = hider(access.key)
    for name, value in headers:
        text = " ".join(value.decode("utf-8", "replace").split())
        known = named.setdefault(name.lower(), hide(text))
        if name.lower() == "content-encoding" and known != text:
            named["content-encoding"] = f"{known}, {text}"
    text = _text(_unpacked(body, named.get("content-encoding", "")), named.get("content-type", ""))
    return Response(status, named, hide(text).encode("utf-8", "replace")[:BODY_LIMIT])


def _unpacked(body: bytes, encodings: str) -> bytes:
    for encoding in reversed(encodings.lower().replace(" ", "").split(",")):
        if encoding in ("", "identity"):
            continue
        if encoding not in ("gzip", "x-gzip", "deflate"):
            return f"(the body is packed as {encoding[:20]}, which was not asked for)".encode()
        try:
            body = _inflated(body, encoding)
        except zlib.error:
            return f"(the body is not what its encoding {encoding} says)".encode()
    return body


def _inflated(body: bytes, encoding: str) -> bytes:
    """Unpack as much as is read of any body: what is packed can unpack to anything."""
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body, BODY_LIMIT + 1)
    except zlib.error:
        if encoding != "deflate":
            raise
        # Some servers leave the envelope of zlib out.
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(body, BODY_LIMIT + 1)


def _text(body: bytes, content_type: str) -> str:
    """Return a body as text: in the encoding of its own that JSON may have, else in that which its type names."""
    try:
        return body.decode(json.detect_encoding(body))
    except UnicodeDecodeError:
        charset = content_type.lower().partition("charset=")[2].partition(";")[0].strip(" \"'")
    try:
        return body.decode(charset or "utf-8", "replace")
    except (LookupError, ValueError):
        return body.decode("utf-8", "replace")
