"""What a gateway's list tells of a create whose answer nobody saw."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_provider_flux.protocol import lookup
from airflow_provider_flux.protocol.classify import Failure, Reason
from airflow_provider_flux.protocol.gateways import choose_gateway
from airflow_provider_flux.protocol.lookup import (
    CLOCK_SKEW,
    GRACE,
    LOOKS_AFTER,
    OutcomeUnknown,
    candidates_of,
    could_be_made,
    identity,
    match,
    next_look,
    settle,
)
from airflow_provider_flux.protocol.messages import Reply
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus
from tests.protocol.scripted import START, Late, Script, answer


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
    assert identity({"seed": 7, "prompt": "x"}) == identity({"prompt": "x", "seed": 7.0})
    assert identity({"n": [1.0, {"m": 2.0}]}) == identity({"n": [1, {"m": 2}]})
    assert identity({"seed": True}) != identity({"seed": 1})
    assert identity({"seed": 7.5}) != identity({"seed": 7})


def test_only_predictions_of_just_this_input_are_candidates() -> None:
    others = [listed("m", model="a/c"), listed("i", input={"prompt": "y"}), listed("old", created_at=1.0)]
    assert candidates_of([P, *others], "a/b", {"prompt": "x"}, sent_at=100.0) == [P]


def test_the_last_look_gives_a_prediction_a_minute_to_show() -> None:
    assert lookup.LOOKS_AFTER[-1] >= 60.0


LOST = Failure(Reason.NETWORK, "no answer within the read timeout", "POST /x")


def page(*ids: str, after: str | None = None, **fields: object) -> Reply:
    """A page of the list, with predictions that the create of these tests can have made."""
    made_at = datetime.fromtimestamp(START + 1, timezone.utc).isoformat()
    known = {"status": "processing", "model": "a/b", "input": {"prompt": "x"}, "created_at": made_at, **fields}
    return answer(200, {"results": [{"id": found, **known} for found in ids], "next": after})


class TestSettling:
    """POST: read timeout, reset, 5xx after sending"""

    @staticmethod
    def script(*replies: Reply | Late, then: Reply | None = None) -> Script:
        return Script(*replies, then=then, gateway=choose_gateway("https://api.replicate.com"))

    @staticmethod
    def settle(script: Script, *, sent_at: float = START, deadline: float = START + 600) -> Prediction | None:
        given: dict[str, Any] = {"sent_at": sent_at, "failure": LOST, "deadline": deadline}
        return script.run(settle(script.talk, "a/b", {"prompt": "x"}, **given))

    def test_what_the_first_look_shows_is_taken(self) -> None:
        script = self.script(page("made"))
        made = self.settle(script)
        assert made is not None
        assert made.id == "made"
        assert script.asked_at == [LOOKS_AFTER[0]]

    def test_what_only_a_later_look_shows_is_taken(self) -> None:
        script = self.script(page(), page(), page("made"))
        made = self.settle(script)
        assert made is not None
        assert script.asked_at == list(LOOKS_AFTER[:3])

    def test_only_after_the_last_look_nothing_was_made(self) -> None:
        script = self.script(then=page())
        assert self.settle(script) is None
        assert script.asked_at == list(LOOKS_AFTER)

    def test_a_create_of_long_ago_is_looked_up_once_and_at_once(self) -> None:
        script = self.script(page())
        assert self.settle(script, sent_at=START - 3600) is None
        assert script.asked_at == [0.0]

    def test_a_look_that_was_asked_for_before_the_last_moment_does_not_tell_though_it_was_answered_after_it(
        self,
    ) -> None:
        script = self.script(page(), page(), page(), Late(LOOKS_AFTER[-1], page()), page("made"))
        assert self.settle(script) is not None
        assert len(script.requests) == len(LOOKS_AFTER)

    def test_predictions_of_other_inputs_and_of_earlier_times_are_passed_over(self) -> None:
        early = datetime.fromtimestamp(START - CLOCK_SKEW - 1, timezone.utc).isoformat()
        script = self.script(page("other", input={"prompt": "y"}), then=page("early", created_at=early))
        assert self.settle(script) is None

    def test_all_pages_since_the_create_are_read(self) -> None:
        following = "https://api.replicate.com/v1/predictions?cursor=2"
        script = self.script(page("other", input={"prompt": "y"}, after=following), page("made"))
        assert self.settle(script) is not None
        assert script.asked_at == [LOOKS_AFTER[0]] * 2

    def test_two_that_could_be_it_are_both_named_and_neither_is_taken(self) -> None:
        with pytest.raises(OutcomeUnknown) as unknown:
            self.settle(self.script(page("one", "two")))
        assert unknown.value.candidates == ["one", "two"]
        assert unknown.value.failure == LOST

    @pytest.mark.parametrize("status", [401, 403, 404])
    def test_a_list_that_is_refused_does_not_tell_and_the_error_says_why(self, status: int) -> None:
        script = self.script(then=answer(status, {"detail": "no"}))
        with pytest.raises(OutcomeUnknown) as unknown:
            self.settle(script)
        assert unknown.value.failure != LOST
        assert str(status) in str(unknown.value.failure)

    def test_a_page_of_the_wrong_shape_is_not_an_empty_one(self) -> None:
        with pytest.raises(OutcomeUnknown):
            self.settle(self.script(then=answer(200, {"items": []})))

    def test_a_second_page_that_cannot_be_read_leaves_the_first_untold(self) -> None:
        following = "https://api.replicate.com/v1/predictions?cursor=2"
        script = self.script(page("made", after=following), answer(403, {"detail": "no"}))
        with pytest.raises(OutcomeUnknown):
            self.settle(script)

    def test_passing_trouble_with_the_list_is_borne(self) -> None:
        assert self.settle(self.script(answer(503, {}), answer(503, {}), page("made"))) is not None

    def test_a_list_that_is_out_until_the_deadline_does_not_tell(self) -> None:
        script = self.script(then=answer(503, {}))
        with pytest.raises(OutcomeUnknown):
            self.settle(script, deadline=START + 40)
        assert script.now <= START + 40

    def test_a_deadline_before_the_last_look_leaves_the_outcome_unknown(self) -> None:
        script = self.script(then=page())
        with pytest.raises(OutcomeUnknown) as unknown:
            self.settle(script, deadline=START + 20)
        assert unknown.value.failure == LOST
        assert script.asked_at == [1.0, 5.0, 15.0]

    def test_a_deadline_that_the_create_has_used_up_leaves_time_for_a_look(self) -> None:
        script = self.script(page(), page("made"))
        assert self.settle(script, deadline=START - 1) is not None
        assert script.now - START <= GRACE


@pytest.mark.parametrize(
    ("asked_after", "made_after", "told"),
    [(59.0, 1.0, False), (61.0, 1.0, True), (7200.0, 1.0, True), (7200.0, 600.0, False)],
)
def test_a_prediction_whose_input_is_deleted_may_be_the_one(asked_after: float, made_after: float, told: bool) -> None:
    sent_at = 1_000_000.0
    facts = {"input": {}, "data_removed": True, "created_at": sent_at + made_after}
    removed = listed("gone", status=PredictionStatus.SUCCEEDED, **facts)
    doubtful = lookup.doubtful_of([removed], "a/b", {}, sent_at=sent_at, files_url="")
    found = match([sent_at], [], asked_at=sent_at + asked_after, doubtful=doubtful)
    assert [prediction.id for prediction in found.candidates] == (["gone"] if told else [])
    assert found.not_made == (0 if told or asked_after < 60 else 1)
