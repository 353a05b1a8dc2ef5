"""A gateway that answers with whatever bytes a test writes, over a real socket."""

from __future__ import annotations

import base64
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class OddGateway:
    """Makes predictions in the words of a test.

    :param created: the body of every create's response, in which ``%(n)d`` counts from 1.
    :param got: the body of every other response, with the prediction as ``%(id)s`` and a picture as ``%(picture)s``.
    :ivar posts: how many creates have come.
    """

    def __init__(self, created: str, got: str) -> None:
        self.posts = 0
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                gateway.posts += 1
                self._send(201, created.replace("%(n)d", str(gateway.posts)))

            def do_GET(self) -> None:
                if self.path == "/cat.png":
                    self._send(200, PNG, "image/png")
                    return
                text = got.replace("%(id)s", self.path.rpartition("/")[2])
                self._send(200, text.replace("%(picture)s", f"{gateway.url}/cat.png"))

            def _send(self, status: int, content: str | bytes, content_type: str = "application/json") -> None:
                body = content if isinstance(content, bytes) else content.encode()
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> OddGateway:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
