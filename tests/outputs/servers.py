"""A server with one answer to everything."""

from __future__ import annotations

import socket
import threading


class OneAnswerServer:
    """Notes each request, whole and its first line, and gives the same answer to all.

    :param answer: from the status line to the end of the body, after which the connection is closed.
    """

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.asked: list[str] = []
        self.headings: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.1)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> OneAnswerServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
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
                connection.settimeout(5)
                request = connection.recv(65536).decode("latin-1")
                self.asked.append(request.partition("\r\n")[0])
                self.headings.append(request)
                connection.sendall(self._answer)
