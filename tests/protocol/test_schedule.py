"""When to ask again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_flux.protocol.schedule import (
    BACKOFF_CAP,
    LONGEST_INTERVAL,
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


@given(typical=st.floats(0.1, 600), waited=st.floats(-60, 10**6), chance=CHANCES)
def test_a_poll_is_never_sooner_or_later_than_the_bounds(typical: float, waited: float, chance: float) -> None:
    wait = PollSchedule(typical, chance=lambda: chance).next_wait(waited)
    assert SHORTEST_INTERVAL <= wait <= LONGEST_INTERVAL


@given(waited=st.floats(0, 70), chance=CHANCES)
def test_jitter_moves_a_poll_by_a_tenth_at_most(waited: float, chance: float) -> None:
    exact = PollSchedule(10, chance=lambda: 0.5).next_wait(waited)
    moved = PollSchedule(10, chance=lambda: chance).next_wait(waited)
    assert 0.9 * exact - 1e-9 <= moved <= 1.1 * exact + 1e-9


def test_predictions_made_together_are_not_polled_together() -> None:
    waits = {PollSchedule(10).next_wait(0) for _ in range(50)}
    assert len(waits) > 40


def test_the_first_poll_comes_when_the_run_may_be_done_and_later_ones_grow_apart() -> None:
    schedule = PollSchedule(10, chance=lambda: 0.5)
    assert schedule.next_wait(0) == pytest.approx(6)
    assert schedule.next_wait(2) == pytest.approx(4)
    assert schedule.next_wait(10) == pytest.approx(2)
    assert schedule.next_wait(50) == pytest.approx(10)
    assert schedule.next_wait(500) == LONGEST_INTERVAL


@given(interval=st.floats(0.1, 3600), waited=st.floats(0, 10**6), chance=CHANCES)
def test_a_given_interval_is_kept_exactly(interval: float, waited: float, chance: float) -> None:
    assert PollSchedule(10, interval=interval, chance=lambda: chance).next_wait(waited) == interval
