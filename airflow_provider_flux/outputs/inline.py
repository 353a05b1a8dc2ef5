"""Outputs that are their own file: ``data:`` URIs (RFC 2397)."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote_to_bytes


def is_inline(output: str) -> bool:
    """Tell whether an output is a ``data:`` URI."""
    return output[:5].lower() == "data:"


def decode(uri: str) -> bytes:
    """Return the bytes that a ``data:`` URI holds.

    :raises ValueError: if they cannot be read.
    """
    declaration, comma, text = uri.partition(",")
    if not comma:
        raise ValueError("the data: URI has no comma")
    content = unquote_to_bytes(text)
    if not declaration.lower().endswith(";base64"):
        return content
    digits = b"".join(content.split())
    try:
        return base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"the data: URI is not base64 ({error})") from error
