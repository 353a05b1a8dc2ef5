"""Which origins an output may be fetched from: public https ones, and this network's own only by permission.

The URLs come out of a gateway's answer, and redirects out of a file host's. Either could name a service inside the
worker's network, such as the metadata service of a cloud, whose answer would then be handed on.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_TUNNELS = (ipaddress.IPv6Network("2002::/16"), ipaddress.IPv6Network("2001::/32"))
"""6to4 and Teredo: they carry an IPv4 address inside, and no file host is there (RFC 7526, RFC 4380)."""

_PRIVATE_HOSTS = tuple(
    ipaddress.ip_network(network)
    for network in ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)
"""Loopback, and the private networks of RFC 1918 and RFC 4193."""

_ODD_CHARACTERS = re.compile(r"[\x00-\x20\x7f\\]|[^\x00-\x7f]")
"""Characters over which URL parsers disagree, and names that only turn into an address once they are normalised."""


class ForbiddenOriginError(Exception):
    """An output's URL, or the address behind it, is none that may be fetched from. The message says why."""


def check_url(url: str, *, allow_private: bool) -> None:
    """Check all that can be known of a URL before a connection is made.

    :param allow_private: see :func:`check_address`; plain http is then allowed too.
    :raises ForbiddenOriginError: if it must not be fetched.
    """
    parts = _split(url)
    if parts.scheme != "https" and not (allow_private and parts.scheme == "http"):
        raise ForbiddenOriginError(f"its scheme is {parts.scheme or 'missing'!r}, not https")
    if parts.username is not None or parts.password is not None:
        raise ForbiddenOriginError("it holds credentials")
    host = (parts.hostname or "").rstrip(".")
    if not host:
        raise ForbiddenOriginError("it has no host")
    literal = _literal(host)
    if literal is not None:
        check_address(literal, allow_private=allow_private)
    elif _is_number(host.rpartition(".")[2]):
        raise ForbiddenOriginError(f"its host {host} is an address in an unusual form")
    elif not allow_private and (host == "localhost" or host.endswith(".localhost")):
        raise ForbiddenOriginError(f"its host {host} is this machine")


def check_address(address: Address, *, allow_private: bool) -> None:
    """Check an address that an output would be fetched from.

    :param allow_private: allow addresses of this machine and of private networks. All others that are not public stay
        forbidden, such as the link-local ones under which clouds keep their metadata service.
    :raises ForbiddenOriginError: if nothing may be fetched from it.
    """
    inner = _embedded(address)
    if is_public(inner) or (allow_private and any(inner in network for network in _PRIVATE_HOSTS)):
        return
    raise ForbiddenOriginError(f"its host has the address {address}, which is not public")


def is_public(address: Address) -> bool:
    """Tell whether an address belongs to a single host on the public internet."""
    if isinstance(address, ipaddress.IPv6Address) and (
        address not in _GLOBAL_UNICAST or any(address in tunnel for tunnel in _TUNNELS)
    ):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def without_secrets(url: str) -> str:
    """Return a URL for messages and records: without its query, which may sign it, and without credentials."""
    scheme, separator, rest = url.partition("#")[0].partition("?")[0].partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}"


def _embedded(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for. Networks without IPv4 reach every old host by NAT64."""
    if not isinstance(address, ipaddress.IPv6Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else address


def _split(url: str) -> SplitResult:
    if _ODD_CHARACTERS.search(url):
        raise ForbiddenOriginError("it holds characters that a URL must not hold")
    try:
        parts = urlsplit(url)
        _ = parts.port  # refuses a port that is none
    except ValueError as error:
        raise ForbiddenOriginError("it cannot be read as a URL") from error
    return parts


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_number(label: str) -> bool:
    """Tell whether resolvers would read a host that ends so as an IPv4 address: 2130706433, 0x7f.1, 0177.0.0.1."""
    return label.isdigit() or re.fullmatch(r"0x[0-9a-f]*", label, re.IGNORECASE) is not None
