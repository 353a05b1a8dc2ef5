"""One run: many pending predictions in one event loop of this process. Prints what it took as one line of JSON."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import re
import time
import traceback
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import aiohttp  # noqa: F401 (what every client here needs is loaded for each, so that processes can be compared)
import airflow.triggers.base  # noqa: F401
from adapters import ADAPTERS, Setting, Wait
from workload import Planned, plan

CORE = 0
TICK = 0.05
"""Seconds: how often the loop is looked at."""
BURST_IS_OVER = 6.0
"""Seconds from the start: everything is submitted, and what that piled up is done."""


class Blocks:
    """Looks every so often whether the loop still turns."""

    def __init__(self, started: float) -> None:
        self._started = started
        self.longest = 0.0
        self.longest_after_burst = 0.0

    async def watch(self) -> None:
        """Take note of how late a short sleep ends, until cancelled."""
        while True:
            due = time.monotonic() + TICK
            await asyncio.sleep(TICK)
            late = time.monotonic() - due
            self.longest = max(self.longest, late)
            if due - self._started > BURST_IS_OVER:
                self.longest_after_burst = max(self.longest_after_burst, late)


class Collections:
    """Takes the time of the garbage collector: a full collection walks through all of Airflow and stops the loop."""

    def __init__(self) -> None:
        self.seconds = self.longest = 0.0
        self._began = 0.0
        gc.callbacks.append(self._note)

    def _note(self, phase: str, _info: object) -> None:
        if phase == "start":
            self._began = time.perf_counter()
            return
        took = time.perf_counter() - self._began
        self.seconds += took
        self.longest = max(self.longest, took)


class Run:
    """The predictions of one run and what became of them."""

    def __init__(self, planned: list[Planned], started: float) -> None:
        self._planned = planned
        self._started = started
        self.delays: list[float] = []
        self.failures = 0
        self.first_error = ""

    async def wait_for_all(self, wait: Wait, limit: float) -> int:
        """Start a task for each prediction when it is submitted, and wait for them all.

        :param limit: seconds after which those that still wait are given up.
        :return: how many were given up.
        """
        tasks = []
        for number, planned in enumerate(self._planned):
            due = self._started + planned.submitted
            if due > time.monotonic():
                await asyncio.sleep(due - time.monotonic())
            tasks.append(asyncio.create_task(self._live(wait, number, self._started + planned.ends)))
        _, given_up = await asyncio.wait(tasks, timeout=self._started + limit - time.monotonic())
        for task in given_up:
            task.cancel()
        return len(given_up)

    async def _live(self, wait: Wait, number: int, ends: float) -> None:
        try:
            succeeded = await wait(number, ends)
        except Exception:  # noqa: BLE001 (whatever a client raises is a prediction that it failed)
            self.first_error = self.first_error or traceback.format_exc()
            succeeded = False
        if succeeded:
            self.delays.append(time.monotonic() - ends)
        else:
            self.failures += 1


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run and return the figures."""
    planned = plan(options.count, options.seed)
    async with ADAPTERS[options.adapter](Setting(options.origin, options.interval)) as wait:
        # One prediction that has ended already: what is loaded at the first use is no part of the run.
        await wait(0, time.monotonic())
        started = time.monotonic() + 0.5
        before = _ask(f"{options.control}/start/{started}")
        run, blocks, collections = Run(planned, started), Blocks(started), Collections()
        memory_before = _forget_peak()
        cpu_before = time.process_time()
        watching = asyncio.create_task(blocks.watch())
        given_up = await run.wait_for_all(wait, options.limit)
        cpu = time.process_time() - cpu_before
        watching.cancel()
        counts = _ask(f"{options.control}/counts")
        return {
            **{name: counts[name] - before[name] for name in counts},
            "cpu": cpu,
            "seconds": time.monotonic() - started,
            "memory_before": memory_before,
            "memory_peak": _memory("VmHWM"),
            "delays": sorted(run.delays),
            "longest_block": blocks.longest,
            "longest_block_after_burst": blocks.longest_after_burst,
            "collecting": collections.seconds,
            "longest_collection": collections.longest,
            "failures": run.failures + given_up,
            "given_up": given_up,
            "first_error": run.first_error,
        }


def _ask(url: str) -> dict[str, int]:
    with urlopen(url) as answer:
        counts: dict[str, int] = json.load(answer)
    return counts


def _forget_peak() -> float:
    """Let the peak of the memory begin here, after the imports, and return what is in use now, in MB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise RuntimeError(f"this system does not tell {name}")
    return int(found[1]) / 1024


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--adapter", choices=ADAPTERS, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--interval", type=float, required=True)
    parser.add_argument("--origin", required=True)
    parser.add_argument("--control", required=True)
    parser.add_argument("--limit", type=float, required=True)
    options = parser.parse_args()
    os.sched_setaffinity(0, {CORE})
    print(json.dumps(asyncio.run(measure(options))))


if __name__ == "__main__":
    main()
