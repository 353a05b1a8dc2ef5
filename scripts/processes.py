"""Child processes that end completely: one session each, one log file each, ended by process id, never by name."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Return `count` different ports that nobody listens on."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in probes]


def port_is_free(port: int) -> bool:
    """Tell whether a server could listen on `port`."""
    with socket.socket() as probe:
        # As servers do: without it the waiting connections of a server that has just ended count as busy.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def environment_for_loopback(extra: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without its Airflow settings, with `extra`, with no proxy to loopback."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW_", "FLUX_"))}
    for name in ("NO_PROXY", "no_proxy"):
        environment[name] = ",".join(filter(None, [environment.get(name), LOOPBACK, "localhost"]))
    return environment | {"PYTHONUNBUFFERED": "1"} | dict(extra)


class ManagedProcess:
    """One program in a session of its own.

    It is gone when no process of the session is left. The process group would not do: Airflow moves each running task
    into a group of its own, and such a task would outlive its scheduler.
    """

    def __init__(self, name: str, command: Sequence[str], *, environment: Mapping[str, str], log: Path, cwd: Path):
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=cwd,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._ended = False

    @property
    def returncode(self) -> int | None:
        """The exit code of the first process of the session, None while it runs."""
        return self._process.poll()

    def signal(self, number: signal.Signals, *, first_only: bool = False) -> None:
        """Send a signal to every process of the session, or to the first one only."""
        for pid in self._session():
            if first_only and pid != self.pid:
                continue
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def is_gone(self) -> bool:
        """Tell whether no process of the session is left."""
        # Its exit code last: a first process that ends between the two would never be collected.
        return not self._session() and self._process.poll() is not None

    def tail(self, lines: int = 40) -> str:
        """Return the end of the log."""
        with suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""

    def _session(self) -> list[int]:
        if self._ended:
            return []
        members = [pid for pid in _all_pids() if _session_of(pid) == self.pid and not _is_zombie(pid)]
        # Once empty, a session id may be given to somebody else's process: never look again.
        self._ended = not members and self._process.returncode is not None
        return members


def end_processes(processes: Iterable[ManagedProcess], *, patience: float = 10) -> None:
    """Ask all processes to end, wait, kill what is left. A second Ctrl-C kills at once.

    At first only the first process of each session is asked, since Airflow ends its children best by itself. When half
    of the patience is over all of them are: a task that runs then has the rest of it to cancel its work.
    """
    running = [process for process in processes if not process.is_gone()]
    try:
        for first_only in (True, False):
            for process in running:
                process.signal(signal.SIGTERM, first_only=first_only and process.returncode is None)
                process.signal(signal.SIGCONT)  # a stopped process sees SIGTERM only when it goes on
            if _wait_until_gone(running, patience / 2):
                break
    finally:
        # Repeated: a process may be born between the listing and the signal.
        for _ in range(5):
            for process in running:
                process.signal(signal.SIGKILL)
            if _wait_until_gone(running, 2):
                break


@contextmanager
def termination_as_exit() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit, so that `with` and `finally` end the children."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, leave) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _wait_until_gone(processes: Sequence[ManagedProcess], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not all(process.is_gone() for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _all_pids() -> list[int]:
    if Path("/proc/self").exists():
        return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    listing = subprocess.run(["ps", "-A", "-o", "pid="], capture_output=True, text=True, check=True)
    return [int(pid) for pid in listing.stdout.split()]


def _session_of(pid: int) -> int | None:
    with suppress(OSError):
        return os.getsid(pid)
    return None


def _is_zombie(pid: int) -> bool:
    """A child that ended but was never collected by its parent runs no more; Linux still lists it."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return False
