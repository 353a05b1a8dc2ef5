"""CPU time of a process and of everything below it, from /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class CpuTime:
    """CPU seconds, user and system.

    :param own: of the process itself.
    :param below: of its descendants, those that have ended and were waited for included.
    """

    own: float
    below: float

    def __sub__(self, earlier: CpuTime) -> CpuTime:
        return CpuTime(self.own - earlier.own, self.below - earlier.below)


@dataclass(frozen=True)
class _Process:
    parent: int
    own: float
    ended_children: float


def cpu_times(pids: dict[str, int]) -> dict[str, CpuTime]:
    """Read the CPU times of several processes at one moment.

    A child that ends hands its time to the parent that waits for it, so between two readings nothing is lost.
    """
    processes = _all_processes()
    children: dict[int, list[int]] = {}
    for pid, process in processes.items():
        children.setdefault(process.parent, []).append(pid)

    def below(pid: int) -> float:
        return processes[pid].ended_children + sum(
            processes[child].own + below(child) for child in children.get(pid, [])
        )

    return {name: CpuTime(processes[pid].own, below(pid)) for name, pid in pids.items()}


def _all_processes() -> dict[int, _Process]:
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # The name of the program, in brackets, may hold anything.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        user, system, ended_user, ended_system = (int(field) / _TICKS for field in fields[11:15])
        found[int(folder.name)] = _Process(int(fields[1]), user + system, ended_user + ended_system)
    return found
