"""What the machine and the connection set about the network: proxies and trusted authorities, for both HTTP libraries.

Each library has ways of its own to find, read and refuse these, so that a worker could do what a triggerer cannot.
Here they are read once, and what cannot be used is found out before anything is sent.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_environ_proxies, select_proxy
from urllib3.util.ssl_ import create_urllib3_context

BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PROXY_SCHEMES = ("http", "https")
SOCKS_SCHEMES = ("socks4", "socks4a", "socks5", "socks5h")


class UnusableSettingError(Exception):
    """A setting cannot be used, so nothing is sent. The message names it, without a password."""


def proxy_for(url: str) -> str | None:
    """Return the proxy that the environment has for a URL, with a scheme; None if it is reached directly.

    :raises UnusableSettingError: if it is none that can be used.
    """
    chosen = select_proxy(url, get_environ_proxies(url))
    if not chosen:
        return None
    try:
        proxy = chosen.strip() if "://" in chosen else f"http://{chosen.strip()}"
        parts = urlsplit(proxy)
        is_usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    shown = f"The proxy {without_password(chosen)} of {_variable_of(chosen)}"
    if not is_usable:
        raise UnusableSettingError(f"{shown} cannot be read as a URL; write it like http://host:3128")
    if parts.scheme in SOCKS_SCHEMES:
        if importlib.util.find_spec("socks") is None:
            raise UnusableSettingError(f"{shown} speaks SOCKS, which needs the package PySocks on this machine")
    elif parts.scheme not in PROXY_SCHEMES:
        raise UnusableSettingError(f"{shown} has the scheme {parts.scheme!r}; http, https and socks5 can be used")
    return proxy


def without_password(proxy: str) -> str:
    """Return a proxy's URL for messages."""
    scheme, separator, rest = proxy.strip().rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2].partition('/')[0]}"


def trust_on_the_way(origin: str, proxy: str | None, ca_file: str | None) -> ssl.SSLContext | None:
    """Return whom to trust on the way to an origin; None if nothing is encrypted there, since reading takes long.

    :raises UnusableSettingError: if the authorities cannot be read.
    """
    authorities = _authorities(ca_file)
    return _context(authorities) if any(url.startswith("https:") for url in (origin, proxy or "")) else None


def trust_in(ca_file: str | None, *, and_the_usual: bool = False) -> ssl.SSLContext:
    """Return whom to trust.

    :param ca_file: PEM file or folder of authorities, as a connection names it; the environment's if not given, or
        else those that come with ``requests``.
    :param and_the_usual: trust the environment's or those of ``requests`` besides.
    :raises UnusableSettingError: if they cannot be read.
    """
    return _context(_authorities(ca_file, and_the_usual=and_the_usual))


def _authorities(ca_file: str | None, *, and_the_usual: bool = False) -> Sequence[tuple[str, str, int]]:
    """Return the files of authorities: what names each, its path, and when it has changed."""
    named = [("ca_file of the connection", ca_file)] if ca_file else []
    if not named or and_the_usual:
        variable = next((name for name in BUNDLE_VARIABLES if os.environ.get(name)), "")
        named.append((variable or "the package certifi", os.environ.get(variable) or DEFAULT_CA_BUNDLE_PATH))
    return tuple((name, path, _changed_at(name, path)) for name, path in named)


@functools.lru_cache(maxsize=16)
def _context(authorities: Sequence[tuple[str, str, int]]) -> ssl.SSLContext:
    """Read authorities, which takes tens of milliseconds, once for each time that their files have changed."""
    context = create_urllib3_context()
    context.set_alpn_protocols(["http/1.1"])
    for name, path, _ in authorities:
        try:
            if Path(path).is_dir():
                context.load_verify_locations(capath=path)
            else:
                context.load_verify_locations(cafile=path)
        except OSError as error:
            reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
            raise UnusableSettingError(f"{path} ({name}) cannot be used: {reason}") from error
    return context


def _changed_at(name: str, path: str) -> int:
    try:
        return Path(path).stat().st_mtime_ns
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnusableSettingError(f"{path} ({name}) cannot be used: {reason}") from error


def _variable_of(proxy: str) -> str:
    names = [name for name, value in os.environ.items() if name.lower().endswith("_proxy") and value == proxy]
    return " and ".join(sorted(names)) or "this machine"
