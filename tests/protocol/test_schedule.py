"""When to ask again."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_flux.protocol.run_times import OTHER_SEED, SEEDS, SPREAD_LIMITS, RunTimeProfile, RunTimes
from airflow_provider_flux.protocol.schedule import (
    BACKOFF_CAP,
    JITTER,
    LONGEST_INTERVAL,
    POLL_PRICE,
    SHORTEST_INTERVAL,
    PollSchedule,
    backoff,
)

CHANCES = st.floats(0, 1, exclude_max=True)


@given(attempt=st.integers(1, 10**6), chance=CHANCES)
def test_a_backoff_is_never_negative_nor_longer_than_its_cap(attempt: int, chance: float) -> None:
    assert 0 <= backoff(attempt, lambda: chance) <= BACKOFF_CAP


def test_a_backoff_doubles_until_it_reaches_its_cap() -> None:
    longest = [backoff(attempt, lambda: 1.0) for attempt in range(1, 8)]
    assert longest == [2, 4, 8, 16, 30, 30, 30]


def test_a_backoff_is_spread_over_its_whole_range() -> None:
    assert backoff(3, lambda: 0.0) == 0
    assert backoff(3, lambda: 0.25) == 2


PROFILES = {**SEEDS, "other": OTHER_SEED}
PROFILE = RunTimeProfile(10.0, 0.35)
PROFILES_OF_ANY_KIND = st.builds(RunTimeProfile, st.floats(0.05, 2000), st.floats(*SPREAD_LIMITS))


def without_jitter(profile: RunTimeProfile) -> PollSchedule:
    return PollSchedule(profile, chance=lambda: 0.5)


@settings(deadline=None)
@given(profile=PROFILES_OF_ANY_KIND, waited=st.floats(-3600, 10**6), chance=CHANCES)
def test_a_poll_is_never_sooner_or_later_than_the_bounds(profile: RunTimeProfile, waited: float, chance: float) -> None:
    schedule = PollSchedule(profile, chance=lambda: chance)
    assert SHORTEST_INTERVAL <= schedule.next_wait(waited) <= LONGEST_INTERVAL
    assert SHORTEST_INTERVAL <= schedule.first_wait(waited) <= LONGEST_INTERVAL


@given(waited=st.floats(0, 500), chance=CHANCES)
def test_jitter_moves_a_poll_by_a_twentieth_at_most(waited: float, chance: float) -> None:
    exact = without_jitter(PROFILE).next_wait(waited)
    moved = PollSchedule(PROFILE, chance=lambda: chance).next_wait(waited)
    assert JITTER == 0.05
    assert 0.95 * exact - 1e-9 <= moved <= 1.05 * exact + 1e-9


def test_predictions_made_together_are_not_polled_together() -> None:
    waits = {PollSchedule(PROFILE).first_wait(0) for _ in range(50)}
    assert len(waits) > 40


@pytest.mark.parametrize("name", PROFILES)
def test_the_first_poll_comes_when_a_good_share_of_the_runs_has_ended(name: str) -> None:
    assert 0.05 < PROFILES[name].ended_by(without_jitter(PROFILES[name]).first_wait(0)) < 0.7


@pytest.mark.parametrize("name", ["flux-schnell", "flux-dev", "flux-1.1-pro", "flux-2-dev", "flux-2-flex"])
def test_a_run_is_polled_most_often_while_it_is_due_and_seldom_once_it_must_have_started_cold(name: str) -> None:
    profile = PROFILES[name]
    schedule = without_jitter(profile)
    late = profile.median * math.exp(4 * profile.spread)
    assert schedule.next_wait(1.2 * profile.median) < schedule.first_wait(0)
    assert schedule.next_wait(1.2 * profile.median) < schedule.next_wait(late)


def test_a_run_that_takes_longer_than_any_other_is_polled_for_ever() -> None:
    assert without_jitter(PROFILE).next_wait(86_400) == LONGEST_INTERVAL


@pytest.mark.parametrize("waited", [0.0, 2.0, 5.0])
def test_a_first_poll_comes_at_the_same_time_after_the_submission_whenever_the_wait_begins(waited: float) -> None:
    schedule = without_jitter(PROFILE)
    assert waited + schedule.first_wait(waited) == pytest.approx(schedule.first_wait(0))


@pytest.mark.parametrize("waited", [9.0, 60.0, 86_400.0])
def test_a_prediction_that_may_have_ended_unseen_is_polled_soon(waited: float) -> None:
    assert without_jitter(PROFILE).first_wait(waited) == SHORTEST_INTERVAL


def test_a_prediction_that_was_just_made_by_a_clock_ahead_of_ours_is_polled_as_a_new_one() -> None:
    schedule = without_jitter(PROFILE)
    assert schedule.first_wait(-3600) == schedule.first_wait(0)
    assert schedule.next_wait(-3600) == schedule.next_wait(0)


@settings(deadline=None)
@given(profile=PROFILES_OF_ANY_KIND, waited=st.lists(st.floats(0, 5000), min_size=2, max_size=6))
def test_the_longer_a_run_goes_on_the_later_its_next_poll(profile: RunTimeProfile, waited: list[float]) -> None:
    schedule = without_jitter(profile)
    polls = [seconds + schedule.next_wait(seconds) for seconds in sorted(waited)]
    assert all(sooner <= later + 1e-6 for sooner, later in itertools.pairwise(polls))


@given(interval=st.floats(0.1, 3600), waited=st.floats(0, 10**6), chance=CHANCES)
def test_a_given_interval_is_kept_exactly(interval: float, waited: float, chance: float) -> None:
    schedule = PollSchedule(PROFILE, interval=interval, chance=lambda: chance)
    assert schedule.next_wait(waited) == schedule.first_wait(waited) == interval


def quantiles(profile: RunTimeProfile, count: int) -> list[float]:
    """Return run times at even quantiles."""
    runs = []
    for number in range(count):
        low, high = 0.0, 2 * profile.bounds[1]
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if profile.ended_by(middle) < (number + 0.5) / count else (low, middle)
        runs.append(high)
    return runs


def cost_of(schedule: PollSchedule, runs: list[float]) -> tuple[float, float]:
    """Return the polls per prediction and the mean latency."""
    polls, latency = 0, 0.0
    for run in runs:
        now, polls = schedule.first_wait(0), polls + 1
        while now < run:
            now, polls = now + schedule.next_wait(now), polls + 1
        latency += now - run
    return polls / len(runs), latency / len(runs)


def cheapest(profile: RunTimeProfile, steps: int = 300) -> float:
    """Return the least that polls, at their price, and latency can cost per run: every next poll is tried."""
    begin, end = profile.bounds
    times = [0.0, *(begin * (end / begin) ** (step / steps) for step in range(steps + 1))]
    ended = [profile.ended_by(time) for time in times]
    slices = ((times[i] - times[i - 1]) * (ended[i] + ended[i - 1]) / 2 for i in range(1, len(times)))
    # The latency by each time if every run were waited for from its own end.
    late = [0.0, *itertools.accumulate(slices)]
    due = [0.0] * len(times)
    for now in range(len(times) - 2, -1, -1):
        waiting = range(now + 1, len(times))
        best = min(due[then] + late[then] - ended[now] * (times[then] - times[now]) for then in waiting)
        due[now] = POLL_PRICE * (1 - ended[now]) + best - late[now]
    return due[0]


def times_the_optimum(schedule: PollSchedule, truth: RunTimeProfile) -> float:
    """Return how many times the latency of the best schedule with as many polls a schedule has, at most.

    The least cost at one price is a line that no schedule lies below, however many its polls.
    """
    polls, latency = cost_of(schedule, quantiles(truth, 1000))
    return latency / (cheapest(truth) - POLL_PRICE * polls)


@pytest.mark.parametrize("name", PROFILES)
def test_a_schedule_is_within_a_tenth_of_the_optimum_with_as_many_polls(name: str) -> None:
    schedule = PollSchedule(PROFILES[name], chance=random.Random(1).random)
    assert times_the_optimum(schedule, PROFILES[name]) < 1.1


@pytest.mark.parametrize("factor", [0.5, 2.0])
@pytest.mark.parametrize("name", PROFILES)
def test_after_twenty_runs_a_wrong_profile_is_within_three_tenths_of_the_optimum(name: str, factor: float) -> None:
    truth = RunTimeProfile(factor * PROFILES[name].median, PROFILES[name].spread)
    run_times, chance = RunTimes(), random.Random(1)
    for seconds in chance.sample(quantiles(truth, 400), 20):
        run_times.learn("https://gateway.example", name, seconds)
    schedule = PollSchedule(run_times.profile("https://gateway.example", name), chance=chance.random)
    assert times_the_optimum(schedule, truth) < 1.3


@pytest.mark.parametrize("interval", [5.0, 20.0])
def test_a_fixed_interval_is_far_from_the_optimum(interval: float) -> None:
    """The measure tells a bad schedule from a good one."""
    assert times_the_optimum(PollSchedule(PROFILE, interval=interval), PROFILE) > 1.3
