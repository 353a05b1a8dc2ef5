"""Wherever in an answer the bytes trickle, it ends with the deadline: calls, downloads, and the tasks around them."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_flux.batch import row_run
from airflow_provider_flux.exceptions import FluxBatchError, FluxError, FluxOutputNotStoredError
from airflow_provider_flux.outputs import fetching
from airflow_provider_flux.outputs.fetching import Fetcher, FetchRules
from tests.batch.task_instance import BatchTaskInstance, table
from tests.conftest import Connect
from tests.durable.task_instance import OperatorTaskInstance
from tests.servers import RawServer, SilentServer, answering
from tests.wire.test_odd_answers import PREDICTION, says
from tests.wire.two_drivers import DRIVERS, SCHNELL, access_to, create, get, play

LIMIT = 0.7
SLACK = 2.0
"""Seconds that starting a loop, ending a thread and a busy machine may take."""

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def bytewise(text: bytes) -> list[bytes]:
    return [text[place : place + 1] for place in range(len(text))]


TRICKLES: dict[str, list[bytes]] = {
    "status line": bytewise(b"HTTP/1.1 200 " + b"O" * 500),
    "headers": [HEAD, *bytewise(b"X-Long: " + b"a" * 500)],
    "many headers": [HEAD, *[b"X: y\r\n"] * 90],
    "early hints": [b"HTTP/1.1 103 Early Hints\r\n\r\n"] * 200,
    "body": [HEAD + b"Content-Length: 999\r\n\r\n", *bytewise(b" " * 500)],
    "body without a length": [HEAD + b"\r\n", *bytewise(b" " * 500)],
    "size of a chunk": [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *bytewise(b"0" * 500)],
    "chunk": [HEAD + b"Transfer-Encoding: chunked\r\n\r\nfff\r\n", *bytewise(b" " * 500)],
    "chunks": [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[b"1\r\n \r\n"] * 500],
    "trailers": [HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n \r\n0\r\n", *bytewise(b"X: " + b"a" * 500)],
    "nothing": [b"", *[b""] * 500],
}


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("where", TRICKLES)
def test_a_call_ends_with_its_deadline(where: str, driver: str) -> None:
    """an answer whose bytes trickle"""
    with RawServer(answering(*TRICKLES[where], pause=0.1)) as server:
        access = access_to(server.url)
        made = play(driver, access, create(access), LIMIT)
        assert (made.said, server.posts) == ("unknown network", 1)
        assert made.seconds < LIMIT + SLACK
        asked = play(driver, access, get(access), LIMIT)
        assert asked.said == "retry network"
        assert asked.seconds < LIMIT + SLACK


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_gateway_that_does_not_read_ends_with_the_deadline_too(driver: str) -> None:
    with SilentServer() as server:
        access = access_to(f"http://127.0.0.1:{server.port}")
        request = access.gateway.create(SCHNELL, {"prompt": "a" * 20_000_000})
        made = play(driver, access, request, LIMIT)
    assert made.said == "unknown network"
    assert made.seconds < LIMIT + SLACK


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_proxys_word_that_trickles_was_not_sent(driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(answering(*bytewise(b"HTTP/1.1 200 " + b"O" * 500), pause=0.1)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        access = access_to("https://gateway.example")
        made = play(driver, access, create(access), LIMIT)
    assert made.said == "retry network"
    assert made.seconds < LIMIT + SLACK


@pytest.mark.parametrize("where", [name for name in TRICKLES if name != "early hints"])
def test_a_download_ends_with_the_deadline(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """an answer whose bytes trickle"""
    monkeypatch.setattr(fetching, "SHORTEST_TRY", 0.5)
    with (
        RawServer(answering(*TRICKLES[where], pause=0.1)) as server,
        Fetcher(FetchRules(allow_private=True)) as fetcher,
        (tmp_path / "file").open("w+b") as file,
    ):
        began = time.monotonic()
        until = time.time() + LIMIT
        with pytest.raises(FluxOutputNotStoredError, match="too slowly"):
            fetcher.fetch(f"{server.url}/a.png", file, about="x", expires_at=until, give_up_at=until)
        assert time.monotonic() - began < LIMIT + SLACK


class PaidServer:
    """A gateway whose predictions end at once, and whose pictures trickle."""

    def __init__(self) -> None:
        self.raw = RawServer(self._handle)

    def _handle(self, connection: socket.socket, request: bytes, ended: threading.Event) -> None:
        if b"/files/" in request.split(b"\r\n")[0]:
            answering(*TRICKLES["headers"], pause=0.1)(connection, request, ended)
            return
        body = {**PREDICTION, "output": [f"{self.raw.url}/files/a.png"]}
        connection.sendall(says(body))


TIMEOUT = 3.0


@pytest.mark.parametrize("door", ["operator", "batch"])
def test_a_task_ends_with_its_deadline_and_finds_what_it_paid_for_again(
    door: str, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "SHORTEST_TRY", 1.0)
    monkeypatch.setattr(row_run, "ATTACH_PATIENCE", 1.0)
    server = PaidServer()
    life = life_at(door, tmp_path)
    with server.raw:
        connect(server.raw.url)
        began = time.monotonic()
        with pytest.raises((FluxOutputNotStoredError, FluxBatchError)):
            life.execute()
        assert time.monotonic() - began < TIMEOUT + 1.0 + SLACK
        assert server.raw.posts == 1
        with pytest.raises(FluxError):
            life.retry()
        assert server.raw.posts == 1, "the picture is paid for"


def life_at(door: str, folder: Path) -> Any:
    common: dict[str, Any] = {"timeout": TIMEOUT, "output_path": str(folder), "poll_interval": 0.05}
    if door == "batch":
        options = {name: value for name, value in common.items() if name != "output_path"}
        return BatchTaskInstance(folder, rows=table(1), **options)
    prompt = {"task_id": "make", "model": SCHNELL, "prompt": "a boat", "wait_for_completion": True}
    return NamedLife({**prompt, **common})


class NamedLife(OperatorTaskInstance):
    """A task instance with all the names that a stored picture is called by."""

    def _context(self) -> dict[str, Any]:
        context = super()._context()
        vars(context["ti"]).update(dag_id="dag", run_id="run-1")
        return context
