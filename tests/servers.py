"""Servers that behave in ways that no gateway documents."""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from types import TracebackType


class TricklingServer:
    """Answers every request with a body that never ends, a byte at a time."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.1)
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> str:
        self._threads[0].start()
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            thread = threading.Thread(target=self._trickle, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _trickle(self, connection: socket.socket) -> None:
        with connection:
            connection.recv(65536)
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n")
                while not self._ended.is_set():
                    connection.sendall(b" ")
                    time.sleep(0.2)
            except OSError:
                return


class EchoingServer:
    """Refuses every request with an error that repeats the key it was sent."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.1)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            with connection:
                head = connection.recv(65536).decode("latin-1")
                key = head.lower().partition("authorization: bearer ")[2].partition("\r\n")[0]
                body = f'{{"error": {{"message": "Incorrect API key provided: {key}"}}}}'
                connection.sendall(
                    f"HTTP/1.1 401 No\r\nContent-Type: application/json\r\nConnection: close\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
                )


class ConnectProxy:
    """A proxy through which every host is reached on one port of this machine.

    :param port: of the server that stands for all of them.
    :ivar asked: the hosts that were asked for, in their order.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.1)
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> ConnectProxy:
        self._threads[0].start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._socket.accept()
            except TimeoutError:
                continue
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            head = client.recv(65536).decode("latin-1")
            self.asked.append(head.split()[1].rpartition(":")[0])
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            ends = {client: server, server: client}
            while not self._ended.is_set():
                readable, _, _ = select.select(list(ends), [], [], 0.1)
                for end in readable:
                    try:
                        data = end.recv(65536)
                        ends[end].sendall(data)
                    except OSError:
                        return
                    if not data:
                        return


class LateGateway:
    """A port on which no connection can be made until it opens; from then on it leads to another server.

    :param port: of that server, on this machine.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = socket.socket()
        # Bound but not listening: the port is taken, and whoever comes is refused.
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.1)
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> LateGateway:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._ended.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        self._socket.close()

    def open(self) -> None:
        """Let connections be made from now on."""
        self._socket.listen()
        self._threads[0].start()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                near, _ = self._socket.accept()
            except TimeoutError:
                continue
            far = socket.create_connection(("127.0.0.1", self._port))
            for source, target in ((near, far), (far, near)):
                source.settimeout(0.1)
                thread = threading.Thread(target=self._pump, args=(source, target))
                self._threads.append(thread)
                thread.start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with source:
            while not self._ended.is_set():
                try:
                    piece = source.recv(65536)
                    if not piece:
                        target.shutdown(socket.SHUT_WR)
                        return
                    target.sendall(piece)
                except TimeoutError:
                    continue
                except OSError:
                    return


class RawServer:
    """Does with each connection what it is told to, and notes the requests that came whole.

    :param handle: is given the connection, the first request on it, and what tells that the server ends.
    :param tls: speaks TLS before that.
    """

    def __init__(
        self, handle: Callable[[socket.socket, bytes, threading.Event], None], *, tls: ssl.SSLContext | None = None
    ) -> None:
        self._handle = handle
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self.requests: list[bytes] = []
        self.port: int = self._socket.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def posts(self) -> int:
        return sum(request.startswith(b"POST") for request in self.requests)

    def __enter__(self) -> RawServer:
        self._threads[0].start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._ended.set()
        # Wakes the thread that accepts.
        socket.create_connection(("127.0.0.1", self.port)).close()
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def _accept(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            if self._ended.is_set():
                connection.close()
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        try:
            if self._tls is not None:
                connection = self._shake_hands(connection, self._tls)
            with connection:
                request = read_request(connection)
                if request:
                    self.requests.append(request)
                    self._handle(connection, request, self._ended)
                    self._hang_up(connection)
        except OSError:
            connection.close()

    @staticmethod
    def _hang_up(connection: socket.socket) -> None:
        """End the connection such that the other side sees its end and no reset, whatever it is sending."""
        connection.settimeout(0.2)
        connection.shutdown(socket.SHUT_WR)
        while socket.socket.recv(connection, 65536):
            pass

    @staticmethod
    def _shake_hands(connection: socket.socket, tls: ssl.SSLContext) -> socket.socket:
        wrapped = tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        try:
            wrapped.do_handshake()
        except OSError:
            # Closed with something left to read, it would take back what it has told the other side.
            try:
                while socket.socket.recv(wrapped, 65536):
                    pass
            finally:
                wrapped.close()
            raise
        return wrapped


def read_request(connection: socket.socket) -> bytes:
    """Read one request; nothing if it does not come whole."""
    request = b""
    while b"\r\n\r\n" not in request:
        piece = connection.recv(65536)
        if not piece:
            return b""
        request += piece
        if request.startswith(b"\x16"):  # TLS where none is spoken
            return request
    head, _, body = request.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    while length and len(body) < int(length):
        piece = connection.recv(65536)
        if not piece:
            return b""
        body += piece
    return head + b"\r\n\r\n" + body


def answering(*pieces: bytes, pause: float = 0.0) -> Callable[[socket.socket, bytes, threading.Event], None]:
    """Return a handler that gives one answer, if need be piece by piece, and closes the connection."""

    def handle(connection: socket.socket, _: bytes, ended: threading.Event) -> None:
        for number, piece in enumerate(pieces):
            if number and pause and ended.wait(pause):
                return
            connection.sendall(piece)

    return handle


class SilentServer:
    """Accepts connections and never says anything, nor closes them: its TLS handshakes stall."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    def __enter__(self) -> SilentServer:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._socket.close()
