"""When to ask again: how long to wait before a repeated call, and before the next poll."""

from __future__ import annotations

import random
from collections.abc import Callable

Chance = Callable[[], float]
"""A source of numbers in [0, 1), such as ``random.random``."""

BACKOFF_BASE = 1.0
BACKOFF_CAP = 30.0
"""Seconds. CometAPI's own sample starts at 1 s, doubles, and stops growing at 30 s."""

FIRST_POLL_SHARE = 0.6
"""The first poll comes at this share of the model's typical run time: hardly a run is done before."""
GROWTH = 0.2
"""Later polls come after this share of the time already waited."""
SHORTEST_INTERVAL = 0.5
"""Seconds. Airflow itself needs about as long to notice, so that asking sooner gains nothing."""
LONGEST_INTERVAL = 15.0
"""Seconds. Keeps a run that takes far longer than its model usually does from being noticed late."""
JITTER = 0.1


def backoff(attempt: int, chance: Chance = random.random) -> float:
    """Return how long to wait before repeating a call, with full jitter.

    :param attempt: how often the call has failed, from 1.
    """
    return chance() * min(BACKOFF_CAP, BACKOFF_BASE * 2.0 ** min(attempt, 10))


class PollSchedule:
    """When to poll one prediction.

    :param typical_run_time: seconds that a run of the model usually takes.
    :param interval: exactly this many seconds between polls, instead of the fitted times.
    :param chance: source of the jitter, which keeps predictions made together from being polled together.
    """

    def __init__(
        self, typical_run_time: float, *, interval: float | None = None, chance: Chance = random.random
    ) -> None:
        self._first = FIRST_POLL_SHARE * typical_run_time
        self._interval = interval
        self._chance = chance

    def next_wait(self, waited: float) -> float:
        """Return the seconds until the next poll.

        :param waited: seconds since the prediction was made.
        """
        if self._interval is not None:
            return self._interval
        wait = self._first - waited if waited < self._first else GROWTH * waited
        jitter = 1.0 + JITTER * (2.0 * self._chance() - 1.0)
        return min(max(wait * jitter, SHORTEST_INTERVAL), LONGEST_INTERVAL)
