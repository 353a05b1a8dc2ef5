"""The predictions of one run: when each is submitted and how long it takes, the same for everyone who has the seed."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

BURST = 4.0
"""Seconds within which all predictions are submitted."""
MEDIAN = 6.0
P99 = 30.0
LONGEST = 15.0
"""Seconds. Run times are lognormal; what is longer than the last is drawn again, so that a run ends soon."""

_SIGMA = math.log(P99 / MEDIAN) / 2.3263


@dataclass(frozen=True, slots=True)
class Planned:
    """One prediction, in seconds from the start of the run."""

    submitted: float
    ends: float


def plan(count: int, seed: int) -> list[Planned]:
    """Draw the predictions of a run in the order in which they are submitted."""
    chance = random.Random(seed)
    submitted = (BURST * number / count for number in range(count))
    return [Planned(moment, moment + _run_time(chance)) for moment in submitted]


def _run_time(chance: random.Random) -> float:
    while True:
        drawn = MEDIAN * math.exp(_SIGMA * chance.gauss(0, 1))
        if drawn <= LONGEST:
            return drawn
