"""A gateway in a process of its own that knows when each prediction ends, and counts what it is asked.

It answers faster than any client can ask, so that the client is what is measured: a protocol written by hand on
uvloop. The same predictions are there in the shape that each client understands:

    /replicate/v1/predictions/<number>      as Replicate and the gateways have it
    /ready/<number>                         404 until it has ended, for HttpSensor
    /api/v2/accounts/1/runs/<number>/       as dbt Cloud has it

A second port, without TLS, is for the benchmark itself: `/start/<time.monotonic()>` and `/counts`. Until the start all
predictions have ended.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import ssl
import time
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import cast

import uvloop
from workload import plan

CORE = 1
LOOPBACK = "127.0.0.1"

PREDICTION = {
    "model": "black-forest-labs/flux-1.1-pro",
    "version": "hidden",
    "input": {"prompt": "A red paper lantern on a wooden table, studio photo", "aspect_ratio": "1:1"},
    "logs": "",
    "error": None,
    "source": "api",
    "data_removed": False,
    "urls": {
        "cancel": "https://api.replicate.com/v1/predictions/e6je4zpgdxrmw0cww2xsb0515g/cancel",
        "get": "https://api.replicate.com/v1/predictions/e6je4zpgdxrmw0cww2xsb0515g",
        "web": "https://replicate.com/p/e6je4zpgdxrmw0cww2xsb0515g",
    },
}
RUNNING = {**PREDICTION, "status": "processing", "output": None}
ENDED = {**PREDICTION, "status": "succeeded", "output": "https://replicate.delivery/picture.webp"}
DBT_RUNNING, DBT_ENDED = ({"data": {"status": status}} for status in (3, 10))


@dataclass
class Counts:
    """What the gateway has seen."""

    accepted: int = 0
    handshakes: int = 0
    polls: int = 0


class Predictions:
    """The predictions of one run."""

    def __init__(self, count: int, seed: int) -> None:
        self._planned = plan(count, seed)
        self._started = -math.inf
        self._epoch = time.time()
        self.counts = Counts()

    def start(self, moment: float) -> None:
        """Say when the run begins, on the clock that all processes of the machine share."""
        self._started = moment
        self._epoch = time.time() + moment - time.monotonic()

    def answer(self, path: str) -> bytes:
        """Answer one poll."""
        self.counts.polls += 1
        number = path.rstrip("/").rpartition("/")[2]
        planned = self._planned[int(number)]
        ended = time.monotonic() >= self._started + planned.ends
        if path.startswith("/ready/"):
            return _response(200 if ended else 404, {})
        if path.startswith("/api/v2/"):
            return _response(200, DBT_ENDED if ended else DBT_RUNNING)
        times = {"created_at": self._written(planned.submitted), "started_at": self._written(planned.submitted)}
        if ended:
            return _response(200, {"id": number, **ENDED, **times, "completed_at": self._written(planned.ends)})
        return _response(200, {"id": number, **RUNNING, **times})

    def _written(self, seconds: float) -> str:
        """Write out a time of the run as gateways do."""
        moment = datetime.fromtimestamp(self._epoch + seconds, timezone.utc)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def control(self, path: str) -> bytes:
        """Answer the benchmark."""
        _, what, *moment = path.split("/")
        if what == "start":
            self.start(float(moment[0]))
        return _response(200, asdict(self.counts))


class Connection(asyncio.Protocol):
    """One connection: GET requests without a body, one after the other."""

    def __init__(self, predictions: Predictions, *, controls: bool = False) -> None:
        self._predictions = predictions
        self._controls = controls
        self._received = b""
        if not controls:
            predictions.counts.accepted += 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, when the TLS handshake is over."""
        self._transport = cast("asyncio.WriteTransport", transport)
        if not self._controls:
            self._predictions.counts.handshakes += 1

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode()
            answer = self._predictions.control(path) if self._controls else self._predictions.answer(path)
            self._transport.write(answer)


def _response(status: int, body: object) -> bytes:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


async def serve(count: int, seed: int, certificate: str, key: str) -> None:
    """Serve until ended; print the two ports first."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    predictions = Predictions(count, seed)
    loop = asyncio.get_running_loop()
    polled = await loop.create_server(lambda: Connection(predictions), LOOPBACK, 0, ssl=context, backlog=4096)
    control = await loop.create_server(lambda: Connection(predictions, controls=True), LOOPBACK, 0)
    print(json.dumps([server.sockets[0].getsockname()[1] for server in (polled, control)]), flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--key", required=True)
    options = parser.parse_args()
    os.sched_setaffinity(0, {CORE})
    uvloop.run(serve(options.count, options.seed, options.certificate, options.key))


if __name__ == "__main__":
    main()
