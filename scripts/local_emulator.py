"""The emulator of the gateways as a process of its own, for as long as a `with` block lasts."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import requests

from processes import LOOPBACK, ManagedProcess, end_processes, environment_for_loopback, free_ports

START_TIMEOUT = 60  # seconds


class EmulatorError(RuntimeError):
    """The emulator did not start; the message shows why."""


class LocalEmulator:
    """Starts `python -m airflow_provider_flux.emulator` on entry, ends it on exit.

    :param log: file for what the emulator prints.
    :param port: port to listen on, a free one by default.
    :param arguments: further command line arguments.
    """

    def __init__(self, *, log: Path, port: int | None = None, arguments: tuple[str, ...] = ("--speed", "1")):
        self.log = log.absolute()
        self.port = port or free_ports(1)[0]
        self.url = f"http://{LOOPBACK}:{self.port}"
        self._arguments = arguments
        self._process: ManagedProcess | None = None
        self._http = requests.Session()
        self._http.trust_env = False

    def __enter__(self) -> LocalEmulator:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "airflow_provider_flux.emulator", "--port", str(self.port)]
        self._process = ManagedProcess(
            "emulator",
            [*command, *self._arguments],
            environment=environment_for_loopback({}),
            log=self.log,
            cwd=self.log.parent,
        )
        try:
            self._wait_until_it_answers(self._process)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the emulator."""
        self._http.close()
        if self._process:
            end_processes([self._process])

    def connection(self, api_key: str = "emulator-key") -> dict[str, str]:
        """Return the environment variable that makes the emulator the connection `flux_default`."""
        return flux_connection(self.url, api_key)

    def state(self) -> dict[str, Any]:
        """Return what the emulator has seen and made."""
        state: dict[str, Any] = self._http.get(f"{self.url}/_emulator/state", timeout=10).json()
        return state

    def _wait_until_it_answers(self, process: ManagedProcess) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            if process.returncode is not None or time.monotonic() > deadline:
                raise EmulatorError(f"The emulator did not start.\n--- end of {self.log} ---\n{process.tail()}")
            try:
                self.state()
            except (requests.RequestException, ValueError):
                time.sleep(0.2)
            else:
                return


def flux_connection(host: str, api_key: str) -> dict[str, str]:
    """Return the environment variable that defines the connection `flux_default`."""
    return {"AIRFLOW_CONN_FLUX_DEFAULT": json.dumps({"conn_type": "flux", "host": host, "password": api_key})}
