"""The URLs that an answer names, written as a browser would write them before it asks for them."""

from __future__ import annotations

import re

_PLAIN = re.compile(r"https?://(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*")
_AROUND = "".join(map(chr, range(0x21))) + "\x7f\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff\u200b"
_PARTS = re.compile(r"(https?)://([^/?#\\]*)([^?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_UNQUOTED = re.compile(r"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_HOST = re.compile(r"[A-Za-z0-9._\-]+")


def tidy(url: str) -> str:
    """Return a URL of http or https as browsers send it: stripped, without line breaks, quoted where it must be.

    What is quoted already stays as it is, since it may be signed. Nothing else is changed, so that whoever checks the
    result checks what is asked for. Any other text is returned as it is.
    """
    if _PLAIN.fullmatch(url):
        return url
    found = _PARTS.fullmatch(re.sub(r"[\t\r\n]", "", url.strip(_AROUND)))
    # Before a backslash browsers see the end of the host, others do not: it stays, and the URL is refused.
    if found is None or found[3].startswith("\\"):
        return url
    scheme, authority, path, rest = found.groups()
    tail = _UNQUOTED.sub(_quote, _SURROGATE.sub("\ufffd", path.replace("\\", "/") + rest))
    return f"{scheme.lower()}://{_ascii_host(authority)}{tail}"


def _quote(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode())


def _ascii_host(authority: str) -> str:
    """Return an authority with its host in the form that is looked up, so that the check sees what will be."""
    if authority.isascii():
        return authority
    before, at, host = authority.rpartition("@")
    name, colon, port = host.partition(":")
    try:
        encoded = name.encode("idna").decode("ascii")
    except UnicodeError:
        return authority
    return f"{before}{at}{encoded}{colon}{port}" if _HOST.fullmatch(encoded) else authority
