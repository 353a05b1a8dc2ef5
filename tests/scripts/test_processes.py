"""No process may outlive the tool that started it."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from processes import LOOPBACK, ManagedProcess, end_processes, free_ports, port_is_free

Start = Callable[[str], ManagedProcess]

SLEEP = "import time; print('up', flush=True); time.sleep(600)"
# As Airflow does with its tasks: a child in a process group of its own.
CHILD_IN_ITS_OWN_GROUP = """
import os, time
if os.fork() == 0:
    os.setpgid(0, 0)
print('up', flush=True)
time.sleep(600)
"""
DEAF_TO_SIGTERM = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[ManagedProcess] = []

    def start_and_wait(code: str) -> ManagedProcess:
        log = tmp_path / f"{len(started)}.log"
        command = [sys.executable, "-c", code]
        process = ManagedProcess("child", command, environment=os.environ, log=log, cwd=tmp_path)
        started.append(process)
        deadline = time.monotonic() + 60
        while "up" not in process.tail() and time.monotonic() < deadline:
            time.sleep(0.02)
        return process

    yield start_and_wait
    end_processes(started, patience=0)


def test_a_process_that_obeys_is_ended_at_once(start: Start) -> None:
    process = start(SLEEP)

    end_processes([process], patience=60)

    assert process.is_gone()
    assert process.returncode == -signal.SIGTERM


def test_a_child_in_a_process_group_of_its_own_is_ended_too(start: Start) -> None:
    process = start(CHILD_IN_ITS_OWN_GROUP)

    process.signal(signal.SIGKILL)
    end_processes([process])

    assert process.is_gone()


def test_what_is_left_counts_as_long_as_one_of_the_session_lives(start: Start) -> None:
    process = start(CHILD_IN_ITS_OWN_GROUP)

    os.kill(process.pid, signal.SIGKILL)
    while process.returncode is None:
        time.sleep(0.02)

    assert not process.is_gone()
    end_processes([process])
    assert process.is_gone()


def test_a_process_deaf_to_sigterm_is_killed(start: Start) -> None:
    process = start(DEAF_TO_SIGTERM)

    end_processes([process], patience=0.2)

    assert process.is_gone()
    assert process.returncode == -signal.SIGKILL


def test_a_stopped_process_is_ended(start: Start) -> None:
    process = start(SLEEP)
    process.signal(signal.SIGSTOP)

    end_processes([process], patience=60)

    assert process.returncode == -signal.SIGTERM


def test_ports_are_free_until_somebody_listens() -> None:
    first, second = free_ports(2)
    assert first != second
    assert port_is_free(first)

    with socket.socket() as server:
        server.bind((LOOPBACK, first))
        server.listen()
        assert not port_is_free(first)
