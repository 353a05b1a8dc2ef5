"""What a gateway's list tells of a create whose answer nobody saw."""

from __future__ import annotations

import pytest

from airflow_provider_flux.protocol import lookup
from airflow_provider_flux.protocol.lookup import (
    CLOCK_SKEW,
    LOOKS_AFTER,
    candidates_of,
    could_be_made,
    identity,
    match,
    next_look,
)
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus


def listed(prediction_id: str = "p", **fields: object) -> Prediction:
    known = {"status": PredictionStatus.PROCESSING, "created_at": 100.0, "model": "a/b", "input": {"prompt": "x"}}
    return Prediction(id=prediction_id, **{**known, **fields})  # type: ignore[arg-type]


P, Q = listed("p"), listed("q")
LATE = 100.0 + LOOKS_AFTER[-1]


@pytest.mark.parametrize(
    ("sent_at", "candidates", "asked_at", "told"),
    [
        ([100.0], [], 101.0, ([], 0, [])),
        ([100.0], [], LATE - 0.1, ([], 0, [])),
        ([100.0], [], LATE, ([], 1, [])),
        ([100.0], [P], 101.0, ([P], 0, [])),
        ([100.0], [P, Q], LATE, ([], 0, [P, Q])),
        ([100.0, 101.0], [P], LATE, ([P], 0, [])),
        ([100.0, 101.0], [P], LATE + 1, ([P], 1, [])),
        ([100.0, 101.0], [P, Q], 102.0, ([P, Q], 0, [])),
        ([100.0, 101.0], [], LATE + 1, ([], 2, [])),
        ([100.0, 101.0], [], LATE, ([], 1, [])),
    ],
)
def test_the_table_of_what_is_told_holds(
    sent_at: list[float], candidates: list[Prediction], asked_at: float, told: tuple[object, ...]
) -> None:
    """``told``: the predictions that were made, how many creates have made none, and those that could be any's."""
    found = match(sent_at, candidates, asked_at=asked_at)
    assert (list(found.made), found.not_made, list(found.candidates)) == told


def test_the_list_is_read_soon_at_first_and_at_once_after_the_last_look() -> None:
    looks, now = [], 100.0
    while (wait := next_look(100.0, now)) > 0:
        now += wait
        looks.append(now - 100.0)
    assert looks == list(LOOKS_AFTER)
    assert next_look(100.0, LATE + 3600) == 0.0


@pytest.mark.parametrize(
    ("fields", "possible"),
    [
        ({}, True),
        ({"created_at": 100.0 - CLOCK_SKEW}, True),
        ({"created_at": 100.0 - CLOCK_SKEW - 1}, False),
        ({"created_at": None}, False),
        ({"created_at": 90.0, "status": PredictionStatus.FAILED, "completed_at": 99.0}, False),
        ({"created_at": 90.0, "status": PredictionStatus.FAILED, "completed_at": 101.0}, True),
        ({"created_at": 90.0, "status": PredictionStatus.SUCCEEDED, "completed_at": 99.0}, True),
    ],
)
def test_which_predictions_a_create_can_have_made(fields: dict[str, object], possible: bool) -> None:
    assert could_be_made(listed(**fields), 100.0) is possible


def test_numbers_that_are_equal_in_json_and_the_order_of_names_make_no_other_input() -> None:
    assert identity("a/b", {"seed": 7, "prompt": "x"}) == identity("a/b", {"prompt": "x", "seed": 7.0})
    assert identity("a/b", {"n": [1.0, {"m": 2.0}]}) == identity("a/b", {"n": [1, {"m": 2}]})
    assert identity("a/b", {"seed": True}) != identity("a/b", {"seed": 1})
    assert identity("a/b", {"seed": 7.5}) != identity("a/b", {"seed": 7})
    assert identity("a/b", {}) != identity("a/c", {})


def test_only_predictions_of_just_this_input_are_candidates() -> None:
    others = [listed("m", model="a/c"), listed("i", input={"prompt": "y"}), listed("old", created_at=1.0)]
    assert candidates_of([P, *others], "a/b", {"prompt": "x"}, sent_at=100.0) == [P]


def test_the_last_look_gives_a_prediction_a_minute_to_show() -> None:
    assert lookup.LOOKS_AFTER[-1] >= 60.0
