"""When to ask again: how long to wait before a repeated call, and before the next poll."""

from __future__ import annotations

import bisect
import functools
import math
import random
from collections.abc import Callable

from airflow_provider_flux.protocol.run_times import RunTimeProfile

Chance = Callable[[], float]
"""A source of numbers in [0, 1), such as ``random.random``."""

BACKOFF_BASE = 1.0
BACKOFF_CAP = 30.0
"""Seconds. CometAPI's own sample starts at 1 s, doubles, and stops growing at 30 s."""

POLL_PRICE = 0.5
"""Seconds of latency that one poll is worth: with it, an end is noticed in half the time of a poll every 5 s, for fewer
polls (benchmarks/polling.py)."""
SHORTEST_INTERVAL = 0.5
"""Seconds. Airflow itself needs about as long to notice, so that asking sooner gains nothing."""
LONGEST_INTERVAL = 30.0
"""Seconds. Keeps a run that takes far longer than its model ever did from being noticed late."""
JITTER = 0.05
"""Each wait is longer or shorter by up to this share."""

GRID_STEP = 0.02
"""Candidate times for a poll are so far apart, as a share of the time since the submission."""
PLANS_LIMIT = 128
"""How many plans are kept: one takes 1 to 3 ms to make and 20 kB."""


def backoff(attempt: int, chance: Chance = random.random) -> float:
    """Return how long to wait before repeating a call, with full jitter.

    :param attempt: how often the call has failed, from 1.
    """
    return chance() * min(BACKOFF_CAP, BACKOFF_BASE * 2.0 ** min(attempt, 10))


class PollSchedule:
    """When to poll one prediction.

    :param profile: how long runs of the model take.
    :param interval: exactly this many seconds between polls, instead of the fitted times.
    :param chance: source of the jitter, which keeps predictions made together from being polled together.
    """

    def __init__(
        self, profile: RunTimeProfile, *, interval: float | None = None, chance: Chance = random.random
    ) -> None:
        self._profile = profile
        self._interval = interval
        self._chance = chance

    def first_wait(self, waited: float) -> float:
        """Return the seconds until the first poll of a prediction that nobody has looked at yet.

        :param waited: seconds since the prediction was made. A trigger that begins again after a restart has waited
            for long: it polls soon, since the prediction may have ended while nobody looked.
        """
        return self._interval or self._bounded(self._plan.poll_after(0.0) - max(waited, 0.0))

    def next_wait(self, waited: float) -> float:
        """Return the seconds until the next poll of a prediction that was just seen running.

        :param waited: seconds since the prediction was made.
        """
        since = max(waited, 0.0)
        return self._interval or self._bounded(self._plan.poll_after(since) - since)

    @functools.cached_property
    def _plan(self) -> _Plan:
        return _plan(self._profile.rounded())

    def _bounded(self, wait: float) -> float:
        jitter = 1.0 + JITTER * (2.0 * self._chance() - 1.0)
        return min(max(wait * jitter, SHORTEST_INTERVAL), LONGEST_INTERVAL)


class _Plan:
    """The best time for the next poll, for each time at which a run may be seen to go on.

    Let F be the share of runs that have ended by a time. A poll at x after one at t costs POLL_PRICE if the run still
    went on at t, and lets the integral of F(u) - F(t) from t to x pass as latency. The cheapest sequence follows by
    dynamic programming from the end. It is the optimal inspection policy of Barlow, Hunter and Proschan (1963); where
    polls are many it tends to the interval sqrt(2 * POLL_PRICE / hazard).
    """

    def __init__(self, profile: RunTimeProfile) -> None:
        self._times = _candidates(profile)
        self._polls = _best_polls(self._times, [profile.ended_by(time) for time in self._times])

    def poll_after(self, time: float) -> float:
        """Return when to poll a run that was seen to go on at a time."""
        right = bisect.bisect_right(self._times, time)
        if right == len(self._times):
            return time + LONGEST_INTERVAL
        left = right - 1
        share = (time - self._times[left]) / (self._times[right] - self._times[left])
        return self._polls[left] + share * (self._polls[right] - self._polls[left])


_plan = functools.lru_cache(maxsize=PLANS_LIMIT)(_Plan)


def _candidates(profile: RunTimeProfile) -> list[float]:
    """Return the times that the polls are chosen from: dense while runs end, with nothing before the first does."""
    begin, end = profile.bounds
    steps = math.ceil(math.log(end / begin) / GRID_STEP)
    return [0.0, *(begin * (end / begin) ** (step / steps) for step in range(steps + 1))]


def _best_polls(times: list[float], ended: list[float]) -> list[float]:
    """Return the best time of the next poll for each of some times at which a run goes on.

    :param ended: the share of runs that have ended by each time.
    """
    last = len(times) - 1
    # What is paid from a poll on, plus the integral of F up to it: so that each candidate is rated by one product.
    costs = [0.0] * last + [(1.0 - ended[last]) * POLL_PRICE + _area(times, ended)]
    polls = [time + LONGEST_INTERVAL for time in times]
    best = last
    for now in range(last - 1, -1, -1):
        time, share = times[now], ended[now]
        soonest = bisect.bisect_left(times, time + SHORTEST_INTERVAL, now + 1, last)
        latest = bisect.bisect_right(times, time + LONGEST_INTERVAL, soonest + 1, last + 1) - 1
        # The longer a run goes on, the later its next poll: no candidate after the one chosen last is better.
        candidates = range(soonest, max(soonest, min(latest, best)) + 1)
        best = min(candidates, key=lambda poll: costs[poll] - share * times[poll])
        costs[now] = POLL_PRICE * (1.0 - share) + costs[best] - share * (times[best] - time)
        polls[now] = times[best]
    return polls


def _area(times: list[float], ended: list[float]) -> float:
    return sum((ended[i] + ended[i - 1]) / 2.0 * (times[i] - times[i - 1]) for i in range(1, len(times)))
