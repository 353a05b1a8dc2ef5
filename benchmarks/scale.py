"""`scale`: 50,000 pending predictions over several triggerers, simulated: polls a minute, and how late ends are seen.

The package's own poll schedule, what it learns of run times, and its pace are asked for every poll, with a clock of the
simulation's. The gateway ends predictions one after the other, so many a second. Nothing is sent anywhere.
"""

from __future__ import annotations

import argparse
import heapq
import random
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import results
from matplotlib import pyplot as plt

from airflow_provider_flux.client.rate_limiter import Pace
from airflow_provider_flux.protocol.run_times import RunTimes
from airflow_provider_flux.protocol.schedule import PollSchedule

MODEL = "black-forest-labs/flux-1.1-pro"
ORIGIN = "https://gateway.example"
PENDING = (1_000, 10_000, 50_000)
ENDED_PER_SECOND = 20.0
"""How many predictions the gateway ends in a second, all together."""
SUBMITTED_WITHIN = 600.0
"""Seconds."""
TRIGGERERS = (1, 4, 16)
PER_MINUTE = (600, 3_000, 30_000, 120_000)
"""Requests a minute of one process, as the connection's `requests_per_minute` sets it; 30,000 is the default."""
SEED = 20261201

# What a triggerer and the calls of a task cost: docs/performance.md, and for Airflow's own part its sources.
CPU_PER_POLL = 0.00011
AIRFLOW_KB, OUR_KB = 11.7, 4.7


@dataclass
class Clock:
    """The simulation's time, in seconds."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Process:
    """One triggerer: what its predictions share."""

    pace: Pace
    run_times: RunTimes = field(default_factory=RunTimes)


def simulate(pending: int, triggerers: int, per_minute: float) -> dict[str, Any]:
    """Return what it takes until all predictions are seen to have ended."""
    chance = random.Random(SEED)
    clock = Clock()
    processes = [Process(Pace(per_minute, "simulated", clock=clock, chance=chance.random)) for _ in range(triggerers)]
    submitted = sorted(chance.uniform(0.0, SUBMITTED_WITHIN) for _ in range(pending))
    shortest = chance.lognormvariate
    ends, free_at = [], 0.0
    for at in submitted:
        free_at = max(free_at + 1.0 / ENDED_PER_SECOND, at + shortest(2.16, 0.3))
        ends.append(free_at)
    schedules: dict[int, PollSchedule] = {}
    numbers = count()
    events: list[tuple[float, int, int, float | None]] = [
        (at, next(numbers), number, None) for number, at in enumerate(submitted)
    ]
    heapq.heapify(events)
    polls, delays, by_minute = 0, [], dict[int, int]()
    while events:
        clock.now, _, number, turn = heapq.heappop(events)
        process = processes[number % triggerers]
        waited = clock.now - submitted[number]
        schedule = schedules.get(number)
        if schedule is None:
            profile = process.run_times.profile(ORIGIN, MODEL)
            schedule = schedules[number] = PollSchedule(profile, interval=None, chance=chance.random)
            heapq.heappush(events, (clock.now + schedule.first_wait(waited), next(numbers), number, None))
            continue
        turn = process.pace.reserve() if turn is None else turn
        if (wait := process.pace.wait(turn)) > 0:
            heapq.heappush(events, (clock.now + wait, next(numbers), number, turn))
            continue
        polls += 1
        minute = int(clock.now // 60)
        by_minute[minute] = by_minute.get(minute, 0) + 1
        if ends[number] <= clock.now:
            delays.append(clock.now - ends[number])
            process.run_times.learn(ORIGIN, MODEL, ends[number] - submitted[number])
            del schedules[number]
        else:
            heapq.heappush(events, (clock.now + schedule.next_wait(waited), next(numbers), number, None))
    delays.sort()
    busiest = max(by_minute.values())
    return {
        "pending": pending,
        "triggerers": triggerers,
        "requests_per_minute": per_minute,
        "minutes": max(ends) / 60,
        "polls": polls / pending,
        "busiest_minute": busiest,
        "delay_p50": delays[len(delays) // 2],
        "delay_p99": delays[int(len(delays) * 0.99)],
        "cpu_share": busiest / 60 / triggerers * CPU_PER_POLL,
        "mb_per_triggerer": pending / triggerers * (AIRFLOW_KB + OUR_KB) / 1000,
    }


def main() -> None:
    """Simulate each combination, print the table, save it and draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1,000 and 10,000 predictions only")
    options = parser.parse_args()
    table = []
    for pending in PENDING[:2] if options.quick else PENDING:
        for triggerers in TRIGGERERS:
            for per_minute in PER_MINUTE:
                table.append(simulate(pending, triggerers, per_minute))
                print(f"{pending:,} predictions, {triggerers} triggerers, {per_minute:,} a minute: done", flush=True)
    head = (
        "pending",
        "triggerers",
        "a minute each",
        "polls each",
        "busiest minute",
        "p50 s",
        "p99 s",
        "CPU",
        "MB each",
    )
    rows = [
        [
            f"{row['pending']:,}",
            f"{row['triggerers']}",
            f"{row['requests_per_minute']:,}",
            f"{row['polls']:.1f}",
            f"{row['busiest_minute']:,}",
            f"{row['delay_p50']:.1f}",
            f"{row['delay_p99']:.1f}",
            f"{row['cpu_share']:.1%}",
            f"{row['mb_per_triggerer']:.0f}",
        ]
        for row in table
    ]
    results.print_table(head, rows)
    results.save("scale", table, seed=SEED, ended_per_second=ENDED_PER_SECOND, submitted_within=SUBMITTED_WITHIN)
    draw(table)


def draw(table: list[dict[str, Any]]) -> None:
    """Draw how late ends are seen over what all may ask together: a colour for each count, a line by triggerers."""
    picture, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    colours = dict(zip(PENDING, ("#9aa0a6", "#b99be6", "#6d3bbf"), strict=True))
    lines = dict(zip(TRIGGERERS, ("-", "--", ":"), strict=True))
    for pending, triggerers in dict.fromkeys((row["pending"], row["triggerers"]) for row in table):
        of_line = [row for row in table if (row["pending"], row["triggerers"]) == (pending, triggerers)]
        axes.plot(
            [triggerers * row["requests_per_minute"] for row in of_line],
            [row["delay_p99"] for row in of_line],
            color=colours[pending],
            linestyle=lines[triggerers],
            marker="o",
            markersize=4,
            label=f"{pending:,} pending, {triggerers} triggerer{'s' if triggerers > 1 else ''}",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("requests a minute that all triggerers together may send")
    axes.set_ylabel("seconds until an end is noticed, p99")
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    picture.savefig(results.PICTURES / "scale.png", dpi=110)


if __name__ == "__main__":
    main()
