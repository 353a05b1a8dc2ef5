"""Each rule of the chaos suite finds a made-up violation, and lets pass what the contract allows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.plan import SCENES, plan_for
from tests.chaos.rules import (
    ending,
    hangs,
    leaks,
    left_running,
    lost_outputs,
    orphans,
    paid_twice,
    sent_again_in_doubt,
    violations,
    wrongly_canceled,
)
from tests.chaos.run_record import Act, Asked, Made, Process, RunRecord

UNKNOWN = Process(
    task="make",
    started=0,
    ended=2,
    result="error",
    error="FluxSubmissionUnknownError",
    text="The request may have been accepted and billed",
    for_good=True,
)


def made(number: int = 1, **fields: Any) -> Made:
    return Made(**{"id": f"p{number}", "created": float(number), "ended": number + 0.5, **fields})


def process(**fields: Any) -> Process:
    return Process(**{"task": "make", "started": 0.0, "ended": 5.0, "deadline": 10.0, "result": "success", **fields})


def cleared(at: float, **fields: Any) -> Act:
    return Act(**{"kind": "clear after the end", "task": "make", "at": at, **fields})


def test_a_quiet_run_breaks_no_rule() -> None:
    record = RunRecord(
        predictions=(made(),),
        requests=(Asked(kind="create", at=1, accepted=True, prediction_id="p1"), Asked(kind="get", at=2)),
        processes=(process(),),
        learned={"p1": 1.1},
        states={"make": "success"},
    )
    assert violations(record) == {}
    assert ending(record) == "picture"


class TestPaidTwice:
    def test_a_second_prediction_beside_a_good_first_one_is_found(self) -> None:
        record = RunRecord(predictions=(made(1), made(2)), learned={"p1": 1.1, "p2": 2.1})
        assert paid_twice(record) == ["p2 was made although p1 (succeeded, outcome succeeded) was made before"]

    def test_a_second_prediction_beside_one_that_nobody_knew_is_found(self) -> None:
        assert paid_twice(RunRecord(predictions=(made(1, status="processing"), made(2)), learned={"p2": 2.1}))

    def test_a_second_prediction_made_before_the_first_had_failed_is_found(self) -> None:
        first = made(1, status="failed", outcome="PA", ended=2.5)
        assert paid_twice(RunRecord(predictions=(first, made(2)), learned={"p1": 1.1}))

    def test_a_second_prediction_of_what_fails_for_good_is_found(self) -> None:
        first = made(1, status="failed", outcome="E005")
        assert paid_twice(RunRecord(predictions=(first, made(2)), learned={"p1": 1.1}))

    def test_a_clear_does_not_excuse_another_one_of_a_good_picture(self) -> None:
        record = RunRecord(predictions=(made(1), made(2)), learned={"p1": 1.1}, acts=(cleared(1.8),))
        assert paid_twice(record)

    @pytest.mark.parametrize("status", ["failed", "canceled", "aborted"])
    def test_one_that_ended_without_a_picture_may_be_followed(self, status: str) -> None:
        first = made(1, status=status, outcome="PA")
        assert not paid_twice(RunRecord(predictions=(first, made(2)), learned={"p1": 1.1}))

    def test_a_clear_after_an_unknown_outcome_may_be_followed_but_only_once_it_was_told(self) -> None:
        record = RunRecord(predictions=(made(1), made(4)), learned={"p4": 4.1}, acts=(cleared(3),))
        assert paid_twice(record)
        assert not paid_twice(replace(record, processes=(UNKNOWN,)))

    def test_resubmit_takes_the_risk_only_of_what_is_not_known(self) -> None:
        record = RunRecord(predictions=(made(1), made(2)), resubmits=True)
        assert not paid_twice(record)
        assert paid_twice(replace(record, learned={"p1": 1.1}))

    def test_a_changed_input_or_an_expired_output_may_be_followed_after_a_clear(self) -> None:
        record = RunRecord(
            predictions=(made(1), made(2)), learned={"p1": 1.1}, acts=(cleared(1.8, changes_input=True),)
        )
        assert not paid_twice(record)
        expired = RunRecord(predictions=(made(1, outcome="data_removed"), made(2)), learned={"p1": 1.1})
        assert paid_twice(expired)
        assert not paid_twice(replace(expired, acts=(cleared(1.8),)))

    def test_one_that_the_gateway_does_not_know_any_more_may_be_followed_after_a_clear(self) -> None:
        denials = tuple(Asked(kind="get", at=1.7, fault="404", prediction_id="p1") for _ in range(8))
        record = RunRecord(predictions=(made(1), made(2)), learned={"p1": 1.1}, acts=(cleared(1.6),), requests=denials)
        assert not paid_twice(record)
        assert paid_twice(replace(record, acts=()))
        assert paid_twice(replace(record, requests=denials[1:]))


class TestSentAgainInDoubt:
    CREATES = (Asked(kind="create", at=1, fault="502"), Asked(kind="create", at=2, accepted=True))

    def test_a_create_after_one_in_doubt_is_found_even_if_the_first_made_nothing(self) -> None:
        assert sent_again_in_doubt(RunRecord(requests=self.CREATES)) == ["a create was sent after one that met 502"]

    def test_a_list_a_clear_or_the_callers_choice_allows_it(self) -> None:
        assert not sent_again_in_doubt(RunRecord(requests=self.CREATES, lists=True))
        assert not sent_again_in_doubt(RunRecord(requests=self.CREATES, resubmits=True))
        assert not sent_again_in_doubt(RunRecord(requests=self.CREATES, acts=(cleared(1.5),)))

    def test_a_throttled_create_may_be_sent_again(self) -> None:
        throttled = replace(self.CREATES[0], fault="429_header")
        assert not sent_again_in_doubt(RunRecord(requests=(throttled, self.CREATES[1])))


class TestOrphans:
    @pytest.mark.parametrize("status", ["starting", "processing", "succeeded"])
    def test_a_prediction_that_no_task_knows_is_found(self, status: str) -> None:
        assert orphans(RunRecord(predictions=(made(status=status),))) == [f"p1 is {status} and no task knows it"]

    def test_one_that_the_task_knows_or_tells_of_is_none(self) -> None:
        assert not orphans(RunRecord(predictions=(made(),), learned={"p1": 1.1}))
        assert not orphans(RunRecord(predictions=(made(),), processes=(UNKNOWN,)))

    def test_an_error_without_the_warning_tells_nothing(self) -> None:
        assert orphans(RunRecord(predictions=(made(),), processes=(replace(UNKNOWN, text="Something went wrong"),)))

    def test_what_was_told_before_it_was_made_does_not_count(self) -> None:
        assert orphans(RunRecord(predictions=(made(3),), processes=(UNKNOWN,)))

    def test_one_that_failed_costs_nobody_anything(self) -> None:
        assert not orphans(RunRecord(predictions=(made(status="failed"),)))


class TestLostOutputs:
    FAILED = process(result="error", error="FluxGatewayError", text="trouble")
    RECORD = RunRecord(predictions=(made(),), learned={"p1": 1.1}, processes=(FAILED,), states={"make": "failed"})

    def test_a_task_that_failed_beside_its_picture_is_found(self) -> None:
        assert "although p1 succeeded" in lost_outputs(self.RECORD)[0]

    @pytest.mark.parametrize(
        "error", ["FluxRefusedError", "FluxDeadlineError", "FluxOutputError", "FluxKilledError", "KeyError", ""]
    )
    def test_an_error_without_its_cause_explains_nothing(self, error: str) -> None:
        assert lost_outputs(replace(self.RECORD, processes=(replace(self.FAILED, error=error),)))

    def test_a_person_who_marked_it_failed_explains_it(self) -> None:
        act = Act(kind="mark failed while running", task="make", at=2)
        assert not lost_outputs(replace(self.RECORD, acts=(act,)))

    def test_a_refused_query_explains_a_refusal(self) -> None:
        refused = process(result="error", error="FluxRefusedError")
        asked = Asked(kind="get", at=2, fault="401")
        assert not lost_outputs(replace(self.RECORD, processes=(refused,), requests=(asked,)))
        assert lost_outputs(replace(self.RECORD, processes=(refused,), requests=(replace(asked, fault="502"),)))

    def test_a_run_that_took_longer_than_the_task_may_wait_explains_it(self) -> None:
        late = process(result="error", error="FluxDeadlineError", ended=10.1)
        assert not lost_outputs(replace(self.RECORD, processes=(late,), predictions=(made(ended=10.5),)))

    def test_a_later_create_of_unknown_outcome_explains_it(self) -> None:
        record = replace(self.RECORD, processes=(replace(UNKNOWN, ended=5),))
        assert lost_outputs(record)
        assert not lost_outputs(replace(record, requests=(Asked(kind="create", at=4, fault="502"),)))
        assert lost_outputs(replace(record, requests=(Asked(kind="create", at=4, fault="402"),)))

    def test_an_output_without_a_url_explains_it(self) -> None:
        error = process(result="error", error="FluxOutputError")
        assert not lost_outputs(replace(self.RECORD, processes=(error,), predictions=(made(outcome="data_uri"),)))

    def test_giving_up_what_the_list_would_have_shown_is_found(self) -> None:
        record = RunRecord(lists=True, predictions=(made(),), processes=(UNKNOWN,), states={"make": "failed"})
        assert lost_outputs(record)
        assert not lost_outputs(replace(record, requests=(Asked(kind="list", at=2, fault="403"),)))
        assert not lost_outputs(replace(record, lists=False))


class TestWronglyCanceled:
    CANCEL = Asked(kind="cancel", at=3, prediction_id="p1")
    RECORD = RunRecord(predictions=(made(),), requests=(CANCEL,), processes=(process(),))

    def test_a_cancel_of_a_task_that_waits_is_found(self) -> None:
        assert wrongly_canceled(self.RECORD) == ["p1 was canceled while its task was wanted"]

    def test_a_triggerer_that_dies_or_stalls_excuses_no_cancel(self) -> None:
        for kind in ("kill worker", "kill triggerer", "restart triggerer", "stalled triggerer loses its trigger"):
            assert wrongly_canceled(replace(self.RECORD, acts=(Act(kind=kind, task="make", at=2),)))

    def test_a_person_or_a_sigterm_allows_it_from_then_on(self) -> None:
        act = Act(kind="mark failed while deferred", task="make", at=2)
        assert not wrongly_canceled(replace(self.RECORD, acts=(act,)))
        assert wrongly_canceled(replace(self.RECORD, acts=(replace(act, at=4),)))
        assert wrongly_canceled(replace(self.RECORD, acts=(replace(act, task="wait"),)))

    def test_a_worker_that_was_stopped_allows_it_only_until_it_has_ended(self) -> None:
        act = Act(kind="terminate worker", task="make", at=2, until=2.5)
        assert wrongly_canceled(replace(self.RECORD, acts=(act,)))
        assert not wrongly_canceled(replace(self.RECORD, acts=(replace(act, until=3.5),)))

    def test_a_clear_allows_it_only_for_what_was_made_before(self) -> None:
        record = replace(self.RECORD, acts=(cleared(2),))
        assert not wrongly_canceled(record)
        assert wrongly_canceled(replace(record, predictions=(made(1, created=2.5),)))

    def test_the_deadline_allows_it(self) -> None:
        assert not wrongly_canceled(replace(self.RECORD, processes=(process(deadline=2.9),)))

    def test_a_sensor_never_cancels(self) -> None:
        assert wrongly_canceled(replace(self.RECORD, processes=(process(task="wait", deadline=2.9),)))


class TestLeftRunning:
    KILLED = Act(kind="mark failed while running", task="make", at=2)
    RECORD = RunRecord(predictions=(made(status="processing", ended=None),), learned={"p1": 1.1}, acts=(KILLED,))

    def test_a_prediction_that_outlives_its_task_is_found(self) -> None:
        assert left_running(self.RECORD) == ["p1 is processing although a person ended its task"]

    def test_a_cancel_that_came_too_late_is_found(self) -> None:
        assert left_running(replace(self.RECORD, predictions=(made(status="canceled", ended=9.0),)))
        assert not left_running(replace(self.RECORD, predictions=(made(status="canceled", ended=3.0),)))

    def test_one_that_runs_on_after_the_deadline_is_found(self) -> None:
        late = process(result="error", error="FluxDeadlineError")
        assert left_running(replace(self.RECORD, acts=(), processes=(late,), states={"make": "failed"}))

    def test_a_gateway_that_cannot_cancel_explains_it(self) -> None:
        assert not left_running(replace(self.RECORD, cancels=False))
        assert not left_running(replace(self.RECORD, requests=(Asked(kind="cancel", at=2, fault="500"),)))


def test_a_process_that_outlives_its_limit_is_found() -> None:
    assert hangs(RunRecord(processes=(process(limit=4.9),))) == ["worker process of make, try 1, ran 5.0 s"]
    assert not hangs(RunRecord(processes=(process(limit=5.1),)))


def test_a_key_that_was_kept_is_found() -> None:
    assert leaks(RunRecord(leaks=("make.xcoms.json",))) == ["the key is in make.xcoms.json"]
    assert not leaks(RunRecord())


def test_every_rule_is_asked() -> None:
    record = RunRecord(
        predictions=(made(1), made(2), made(3, status="processing", ended=None)),
        requests=(
            Asked(kind="create", at=1, fault="502"),
            Asked(kind="create", at=2),
            Asked(kind="cancel", at=0.5, prediction_id="p1"),
        ),
        processes=(process(result="error", error="FluxDeadlineError"),),
        learned={"p1": 1.1, "p3": 3.1},
        states={"make": "failed"},
        leaks=("log",),
    )
    cut_short = replace(record, processes=(process(limit=1),))
    assert {*violations(record), *violations(cut_short)} == {
        "double POSTs",
        "sent again in doubt",
        "orphans",
        "lost outputs",
        "wrongly canceled",
        "left running",
        "hangs",
        "keys leaked",
    }


def test_the_same_seed_gives_the_same_plan() -> None:
    assert plan_for(42) == plan_for(42)
    assert plan_for(42) != plan_for(43)


def test_seeds_in_a_row_plan_every_fault_at_every_step() -> None:
    planned = {(rule["on"], rule["fault"]) for seed in range(3 * len(SCENES)) for rule in plan_for(seed).faults}
    assert planned >= set(SCENES)
