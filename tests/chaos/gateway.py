"""The emulator in a process of its own, and how to talk to it."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.chaos.plan import Plan
from tests.chaos.processes import fork

KEY = "chaos-key-0f1e2d3c4b5a69788796a5b4c3d2e1f0"
MAX_HANG = 0.7
HUGE = 17 * 1024 * 1024
"""Bytes, a little more than the provider reads."""


class Gateway:
    """A running emulator.

    :param url: where it listens.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        # No proxy: the address is this very machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def prepare(self, plan: Plan) -> None:
        """Forget the last run and set up the next one."""
        self._call("POST", "/reset", {})
        self._call("POST", "/settings", {**plan.settings, "max_hang": MAX_HANG, "huge_bytes": HUGE})
        if plan.outcome != "succeeded":
            self._call("POST", "/outcomes", {"outcome": plan.outcome})
        if plan.faults:
            self._call("POST", "/faults", list(plan.faults))

    def ledger(self) -> dict[str, Any]:
        """Return every request and prediction since :meth:`prepare`."""
        return self._call("GET", "/ledger?limit=100000")

    def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.url}/_emulator{path}", method=method, data=None if body is None else json.dumps(body).encode()
        )
        with self._opener.open(request, timeout=30) as answer:
            shown: dict[str, Any] = json.load(answer)
        return shown


@contextmanager
def running_gateway(log: Path) -> Iterator[Gateway]:
    """Start an emulator that ends with the block, or with this process."""
    address_read, address_write = os.pipe()
    life_read, life_write = os.pipe()

    def serve() -> None:
        from airflow_provider_flux.emulator import Emulator

        os.close(life_write)
        with Emulator(key=KEY, speed=50, small_pictures=True) as emulator:
            os.write(address_write, emulator.url.encode())
            os.close(address_write)
            os.read(life_read, 1)

    pid = fork(serve, log)
    os.close(address_write)
    os.close(life_read)
    try:
        with os.fdopen(address_read) as address:
            url = address.read()
        if not url:
            raise RuntimeError(f"the emulator did not start: {log.read_text()[-2000:]}")
        yield Gateway(url)
    finally:
        os.close(life_write)
        os.waitpid(pid, 0)
