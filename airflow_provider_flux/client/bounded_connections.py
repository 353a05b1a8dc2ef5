"""HTTP connections of a worker that end in time, and that know whether a byte of the request can have left.

``requests`` bounds the silence between two bytes only, so that a status line, a header, a handshake or a body that
trickles holds it for as long as it lasts; and its exceptions do not tell whether the request was sent.
"""

from __future__ import annotations

import http.client
import io
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NameResolutionError, NewConnectionError
from urllib3.util.connection import allowed_gai_family


@dataclass(slots=True)
class Exchange:
    """One request and its answer.

    :param connect_by: when the connection must be made, by the monotonic clock: name, address, proxy and TLS together.
    :param ends_at: when all of it must be over.
    :param silence: seconds between two bytes after which it is given up.
    :param check_peer: refuses the address of the other side by raising, before anything is said to it. Behind a proxy
        it is not called: it is the proxy that resolves names and connects.
    :param is_sent: whether a byte of the request can have left.
    """

    connect_by: float
    ends_at: float
    silence: float
    check_peer: Callable[[str], None] | None = None
    is_sent: bool = False

    def left(self) -> float:
        """Return the seconds that the next step may take.

        :raises TimeoutError: if there are none.
        """
        left = (self.ends_at if self.is_sent else self.connect_by) - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time for it is over")
        return min(left, self.silence)


_current: ContextVar[Exchange] = ContextVar("exchange")


@contextmanager
def carried_out(exchange: Exchange) -> Iterator[None]:
    """Let the connections of this module serve an exchange. They serve none without."""
    token = _current.set(exchange)
    try:
        yield
    finally:
        _current.reset(token)


class BoundedAdapter(HTTPAdapter):
    """Makes the connections of this module, direct ones and those through proxies.

    :param trust: whom to trust; None if nothing is to be encrypted.
    """

    def __init__(self, trust: ssl.SSLContext | None) -> None:
        self._trust = trust
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Make the pools of direct connections."""
        super().init_poolmanager(*args, ssl_context=self._trust, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Return the pools of connections through a proxy."""
        if proxy in self.proxy_manager:
            return self.proxy_manager[proxy]
        is_socks = proxy.lower().startswith("socks")
        if not is_socks:
            options["proxy_ssl_context"] = self._trust
        manager = super().proxy_manager_for(proxy, ssl_context=self._trust, **options)
        manager.pool_classes_by_scheme = _socks_pools() if is_socks else {"http": _HTTPPool, "https": _HTTPSPool}
        return manager

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Add nothing to the context, which is whole."""


class _Answer(http.client.HTTPResponse):
    """Reads an answer in bounded steps."""

    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        self._file = _BoundedFile(sock)
        bounded: Any = _BoundedSocket(self._file)
        super().__init__(bounded, *args, **options)

    def begin(self) -> None:
        """Read status and headers. What is odd about them is not logged: it may repeat the key."""
        super().begin()
        if self._file.is_at_end:
            raise http.client.RemoteDisconnected("the connection ended within the headers")
        self.msg.defects.clear()
        self.msg.set_payload("")

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        while 101 < status < 200:  # such as 103 Early Hints, after which the answer comes
            http.client.parse_headers(self.fp)
            version, status, reason = super()._read_status()  # type: ignore[misc]
        return version, status, reason


@dataclass(frozen=True, slots=True)
class _BoundedSocket:
    """All of a socket that ``http.client`` needs of one to read an answer."""

    file: _BoundedFile

    def makefile(self, _: str) -> io.BufferedReader:
        return io.BufferedReader(self.file)


class _BoundedFile(io.RawIOBase):
    """What comes over a socket.

    :ivar is_at_end: whether it was read to its end.
    """

    def __init__(self, sock: Any) -> None:
        self._socket = sock
        # A file of the socket's own, because it keeps the socket open for as long as it is.
        self._file = sock.makefile("rb", buffering=0)
        self.is_at_end = False

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int | None:
        self._socket.settimeout(_current.get().left())
        count: int | None = self._file.readinto(into)
        self.is_at_end = count == 0
        return count

    def close(self) -> None:
        if not self.closed:
            self._file.close()
            super().close()


class _Bounded(HTTPConnection):
    """Takes no step that lasts longer than its exchange may, and notes when the request begins to leave."""

    response_class = _Answer
    _is_up = False

    def connect(self) -> None:
        self._is_up = False
        super().connect()
        self._is_up = True

    def send(self, data: Any) -> None:
        exchange = _current.get()
        if self.sock is None:
            self.connect()
        # Until it is up, what is sent is for the proxy.
        exchange.is_sent = exchange.is_sent or self._is_up
        self.sock.settimeout(exchange.left())
        super().send(data)

    def _tunnel(self) -> None:
        super()._tunnel()
        self.sock.settimeout(_current.get().left())  # for the handshake that follows


class _Dialing(_Bounded):
    """Finds and checks the address itself."""

    def _new_conn(self) -> socket.socket:
        exchange = _current.get()
        found = self._addresses(exchange.left())
        problem: OSError = OSError("the name has no address")
        for number, (family, address) in enumerate(found):
            connected = socket.socket(family, socket.SOCK_STREAM)
            try:
                for option in self.socket_options or ():
                    connected.setsockopt(*option)
                connected.settimeout(exchange.left() / (len(found) - number))
                connected.connect(address)
                # It is the connected address that counts: a name could change its mind after a look at it, which is
                # known as DNS rebinding.
                if exchange.check_peer is not None and self.proxy is None:
                    exchange.check_peer(connected.getpeername()[0])
                connected.settimeout(exchange.left())
            except OSError as error:
                connected.close()
                problem = error
            except BaseException:
                connected.close()
                raise
            else:
                return connected
        raise NewConnectionError(self, f"no connection ({problem.strerror or problem})") from problem

    def _addresses(self, seconds: float) -> list[tuple[int, Any]]:
        """Look the host up, in a thread: the system's resolver keeps to no deadline."""
        answer: queue.SimpleQueue[list[Any] | OSError | UnicodeError] = queue.SimpleQueue()
        host = self._dns_host.strip("[]")

        def ask() -> None:
            try:
                answer.put(socket.getaddrinfo(host, self.port, allowed_gai_family(), socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:
                answer.put(error)

        if _is_literal(host):
            ask()
        else:
            threading.Thread(target=ask, name="flux-look-up", daemon=True).start()
        try:
            found = answer.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError(f"the name {host} was not found in time") from None
        if isinstance(found, Exception):
            known = found if isinstance(found, socket.gaierror) else socket.gaierror(str(found))
            raise NameResolutionError(host, self, known) from found
        return [(family, address) for family, _, _, _, address in found]


def _is_literal(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


class _HTTP(_Dialing):
    pass


class _HTTPS(_Dialing, HTTPSConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTP


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPS


def _socks_pools() -> dict[str, type[HTTPConnectionPool]]:
    """Return the pools of connections through a SOCKS proxy, which connects by itself. Needs the package PySocks."""
    from urllib3.contrib import socks

    pools: dict[str, type[HTTPConnectionPool]] = {}
    for scheme, pool in socks.SOCKSProxyManager.pool_classes_by_scheme.items():
        base: Any = pool
        connection = type("_Socks", (_Bounded, base.ConnectionCls), {})
        pools[scheme] = type("_SocksPool", (pool,), {"ConnectionCls": connection})
    return pools
