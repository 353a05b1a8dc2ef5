"""The decisions of a batch that need no I/O, row by row of their tables."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_flux.batch.consequences import CONNECTION_AT_FAULT, Consequence, consequence_of
from airflow_provider_flux.batch.model import Attempt, Entry, PlannedRow, RowStatus
from airflow_provider_flux.batch.row_policy import OTHER_GENERATION, BatchPolicy, Identity, ended_prediction, standing
from airflow_provider_flux.batch.row_store import RowStore
from airflow_provider_flux.batch.stop_control import StopControl
from airflow_provider_flux.exceptions import (
    FluxBatchError,
    FluxBatchRefusedError,
    FluxBudgetError,
    FluxError,
    FluxInputError,
    FluxKilledError,
    FluxOutputNotStoredError,
)
from airflow_provider_flux.protocol.classify import Failure, Reason, Verdict
from airflow_provider_flux.protocol.flows import CallFailed
from airflow_provider_flux.protocol.prediction import PredictionStatus

IDENTITY = Identity(run="this", generation=3, try_number=2)


ONLY = Attempt(model="m", input={}, fingerprint="same")


def policy(*, can_list: bool = False, resubmits: bool = False, incremental: bool = True) -> BatchPolicy:
    return BatchPolicy(IDENTITY, can_list=[can_list], resubmits=resubmits, incremental=incremental)


def entry(run: str = "this", **fields: Any) -> Entry:
    given = {"revision": 1, "generation": 3, "try_number": 1, "fingerprint": "same", "sent_at": 5.0, **fields}
    return Entry(key="a", run=run, **given)


MADE = {"status": "succeeded", "paths": ["/a.webp"], "prediction_status": "succeeded", "is_lasting": True}
REFUSED = {"status": "failed", "prediction_status": "failed", "is_lasting": True, "error": "E005"}
MAY_PASS = {**REFUSED, "is_lasting": False}
FORMER = {"paths": ["/b.webp"], "status": "succeeded"}

STANDINGS: dict[str, tuple[Entry | None, dict[str, Any] | None, dict[str, Any], RowStatus]] = {
    "nothing is known": (None, None, {}, RowStatus.NOT_STARTED),
    "made by this run": (entry(prediction_id="p", outcome=MADE), None, {}, RowStatus.SUCCEEDED),
    "made by another run": (entry("other", prediction_id="p", outcome=MADE), None, {}, RowStatus.KEPT),
    "made by another run, not incremental": (
        entry("other", prediction_id="p", outcome=MADE),
        None,
        {"incremental": False},
        RowStatus.NOT_STARTED,
    ),
    "made, pictures gone": (entry(prediction_id="p", outcome=MADE), None, {"there": ()}, RowStatus.NOT_STARTED),
    "made of another input": (
        entry(prediction_id="p", outcome=MADE, fingerprint="other"),
        None,
        {},
        RowStatus.NOT_STARTED,
    ),
    "listed by an older manifest": (None, FORMER, {}, RowStatus.KEPT),
    "listed by an older manifest, pictures gone": (None, FORMER, {"there": ()}, RowStatus.NOT_STARTED),
    "failed for good in this run": (entry(prediction_id="p", outcome=REFUSED), None, {}, RowStatus.FAILED),
    "failed for good, cleared since": (
        entry(prediction_id="p", outcome=REFUSED, generation=2),
        None,
        {},
        RowStatus.NOT_STARTED,
    ),
    "failed for good in another run": (
        entry("other", prediction_id="p", outcome=REFUSED),
        None,
        {},
        RowStatus.NOT_STARTED,
    ),
    "failed, may pass": (entry(prediction_id="p", outcome=MAY_PASS), None, {}, RowStatus.NOT_STARTED),
    "intent, no list": (entry(), None, {}, RowStatus.UNSETTLED),
    "intent, list": (entry(), None, {"can_list": True}, RowStatus.UNSETTLED),
    "intent, list, resubmit": (entry(), None, {"can_list": True, "resubmits": True}, RowStatus.UNSETTLED),
    "intent, no list, resubmit": (entry(), None, {"resubmits": True}, RowStatus.NOT_STARTED),
    "intent, told and cleared": (entry(told=True, generation=2), None, {}, RowStatus.NOT_STARTED),
    "intent of another run, told": (entry("other", told=True), None, {}, RowStatus.UNSETTLED),
    "intent of another input": (entry(fingerprint="other"), None, {}, RowStatus.NOT_STARTED),
    "intent that made nothing": (entry(sent_at=0.0), None, {}, RowStatus.NOT_STARTED),
    "prediction under way": (entry(prediction_id="p"), None, {}, RowStatus.NOT_STARTED),
}


def stand(known: Entry | None, former: dict[str, Any] | None, given: dict[str, Any]) -> RowStatus:
    facts = dict(given)
    there: Sequence[str] = facts.pop("there", ("/a.webp", "/b.webp"))
    status, _ = standing(
        known,
        former,
        fingerprint="same",
        policy=policy(**facts),
        all_exist=lambda paths: bool(paths) and set(paths) <= set(there),
    )
    return status


@pytest.mark.parametrize("name", STANDINGS)
def test_how_a_row_stands_before_anything_is_done(name: str) -> None:
    known, former, given, status = STANDINGS[name]
    assert stand(known, former, given) is status


def test_a_row_whose_pictures_are_there_is_never_made_again() -> None:
    for run, generation, can_list, resubmits, told in itertools.product(
        ("this", "other"), (2, 3), (True, False), (True, False), (True, False)
    ):
        known = entry(run, generation=generation, told=told, prediction_id="p", outcome=MADE)
        assert stand(known, None, {"can_list": can_list, "resubmits": resubmits}).has_pictures


def test_a_row_that_an_older_manifest_lists_with_its_pictures_is_never_made_again() -> None:
    """Whatever its ledger says of later creates, of this input or another."""
    for run, generation, sent_at, prediction_id, outcome in itertools.product(
        ("this", "other"), (2, 3), (0.0, 5.0), (None, "p"), (None, MADE, REFUSED, MAY_PASS)
    ):
        known = entry(run, generation=generation, sent_at=sent_at, prediction_id=prediction_id, outcome=outcome)
        for can_list, resubmits in itertools.product((True, False), (True, False)):
            status = stand(known, FORMER, {"can_list": can_list, "resubmits": resubmits})
            assert status.has_pictures or status is RowStatus.FAILED


def test_a_create_of_unknown_outcome_is_sent_anew_only_at_a_persons_word() -> None:
    for run, generation, told, can_list, resubmits in itertools.product(
        ("this", "other"), (2, 3), (True, False), (True, False), (True, False)
    ):
        status = stand(
            entry(run, generation=generation, told=told), None, {"can_list": can_list, "resubmits": resubmits}
        )
        # A new run was told of nothing: only the person who cleared this very task was.
        is_cleared_since = run == "this" and generation == 2 and told
        is_sent_anew = not can_list and (resubmits or is_cleared_since)
        assert status is (RowStatus.NOT_STARTED if is_sent_anew else RowStatus.UNSETTLED)


RECORDS: dict[str, tuple[Entry | None, bool, dict[str, Any] | None]] = {
    "no entry": (None, True, None),
    "no create can have made anything": (entry(sent_at=0.0), True, None),
    "a create": (entry(), True, {"generation": 3, "prediction_id": None, "told": False}),
    "a create that was told of": (entry(told=True), True, {"generation": 3, "prediction_id": None, "told": True}),
    "a prediction": (entry(prediction_id="p"), True, {"generation": 3, "prediction_id": "p", "told": False}),
    "a prediction whose create is not dated": (
        entry(prediction_id="p", sent_at=0.0),
        True,
        {"generation": 3, "prediction_id": "p", "told": False},
    ),
    "another run's create": (
        entry("other", told=True),
        True,
        {"generation": OTHER_GENERATION, "prediction_id": None, "told": False},
    ),
    "another run's prediction": (
        entry("other", prediction_id="p"),
        True,
        {"generation": OTHER_GENERATION, "prediction_id": "p", "told": False},
    ),
    "another run's prediction, not incremental": (entry("other", prediction_id="p"), False, None),
    "this run's prediction, not incremental": (
        entry(prediction_id="p"),
        False,
        {"generation": 3, "prediction_id": "p", "told": False},
    ),
}


@pytest.mark.parametrize("name", RECORDS)
def test_what_an_entry_says_of_a_submission(name: str) -> None:
    known, incremental, fields = RECORDS[name]
    reads = policy(incremental=incremental)
    record = reads.record(known)
    assert (record and {field: getattr(record, field) for field in fields or {}}) == fields
    if record is not None and known is not None:
        assert (record.fingerprint, record.sent_at, record.try_number) == ("same", known.sent_at, 1)
    counts = known is not None and (incremental or known.run == IDENTITY.run)
    assert reads.known(known) is (known if counts else None)


@pytest.mark.parametrize(
    ("known", "unsettled"),
    [
        (None, False),
        (entry(), True),
        (entry("other"), True),
        (entry(prediction_id="p"), False),
        (entry(fingerprint="other"), False),
        (entry(sent_at=0.0), False),
    ],
)
def test_which_rows_are_unsettled(known: Entry | None, unsettled: bool) -> None:
    row = PlannedRow(position=0, key="a", attempts=[ONLY], entry=known)
    assert policy().is_unsettled(row) is unsettled


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (None, None),
        (MADE, None),
        (REFUSED, PredictionStatus.FAILED),
        ({**REFUSED, "prediction_status": None}, None),
        ({**REFUSED, "prediction_status": "succeeded"}, PredictionStatus.SUCCEEDED),
    ],
)
def test_how_a_prediction_has_ended_as_the_ledger_knows_it(
    outcome: dict[str, Any] | None, status: PredictionStatus | None
) -> None:
    seen = ended_prediction(entry(prediction_id="p", outcome=outcome))
    assert (seen and seen.status) == status


CONSEQUENCES = {
    **{(reason, Verdict.REFUSED, False): Consequence.STOP_NOT_STARTED for reason in sorted(CONNECTION_AT_FAULT)},
    **{(reason, Verdict.REFUSED, True): Consequence.STOP_IN_FLIGHT for reason in sorted(CONNECTION_AT_FAULT)},
    (Reason.NETWORK, Verdict.RETRY, False): Consequence.STOP_NOT_STARTED,
    (Reason.RATE_LIMITED, Verdict.RETRY, False): Consequence.STOP_NOT_STARTED,
    (Reason.NETWORK, Verdict.RETRY, True): Consequence.ROW_FAILS,
    (Reason.INPUT, Verdict.REFUSED, False): Consequence.ROW_FAILS,
    (Reason.CONTENT, Verdict.REFUSED, False): Consequence.ROW_FAILS,
    (Reason.MODEL, Verdict.REFUSED, False): Consequence.ROW_FAILS,
    (Reason.NOT_FOUND, Verdict.REFUSED, True): Consequence.ROW_FAILS,
}


@pytest.mark.parametrize("case", CONSEQUENCES, ids=str)
def test_what_follows_from_a_failed_call(case: tuple[Reason, Verdict, bool]) -> None:
    reason, verdict, is_submitted = case
    failed = CallFailed(Failure(reason, "text", "POST /x"), verdict)
    assert consequence_of(failed, is_submitted=is_submitted) is CONSEQUENCES[case]


@pytest.mark.parametrize(
    ("first", "second", "stays"),
    [
        (entry(revision=1), entry(revision=2, prediction_id="p"), "second"),
        (entry(revision=2, prediction_id="p"), entry(revision=1), "first"),
        (entry(revision=2), entry(revision=2, prediction_id="p"), "second"),
        (entry(revision=2, prediction_id="p"), entry(revision=2), "first"),
        (entry(revision=3, prediction_id="p"), entry(revision=2, prediction_id="q"), "first"),
    ],
)
def test_of_two_entries_of_a_row_the_newer_counts_and_of_two_as_new_the_one_that_knows_a_prediction(
    first: Entry, second: Entry, stays: str
) -> None:
    with RowStore() as store:
        store.put_entries([first])
        store.put_entries([second])
        assert store.entry("a") == (first if stays == "first" else second)


def test_creates_without_a_known_outcome_are_counted_by_what_was_submitted() -> None:
    with RowStore() as store:
        for position, (status, sent_at, prediction_id) in enumerate(
            [
                (RowStatus.UNSETTLED, 5.0, None),
                (RowStatus.IN_FLIGHT, 5.0, None),
                (RowStatus.IN_FLIGHT, 5.0, "p"),
                (RowStatus.IN_FLIGHT, 0.0, None),
                (RowStatus.UNKNOWN, 5.0, None),
            ]
        ):
            key = f"k{position}"
            row = PlannedRow(position=position, key=key, attempts=[ONLY])
            store.add_row(row, status)
            known = entry(sent_at=sent_at, prediction_id=prediction_id)
            store.put_entries([Entry.from_line(known.as_line().replace('"key":"a"', f'"key":"{key}"'))])
        assert store.unsettled("same") == 2
        assert store.unsettled("other") == 0


class TestStopControl:
    def test_the_first_reason_counts_and_a_kill_beats_it(self) -> None:
        control = StopControl("continue", None)
        control.stop(FluxBudgetError("budget"))
        control.stop(FluxError("later"))
        assert isinstance(control.reason, FluxBudgetError)
        control.kill()
        assert isinstance(control.reason, FluxKilledError)
        assert control.is_killed

    def test_a_spent_budget_lets_what_it_has_room_for_be_sent(self) -> None:
        control = StopControl("continue", None)
        control.stop(FluxBudgetError("budget"))
        assert control.is_stopped
        assert not control.forbids_creates
        assert not control.is_killed

    def test_any_other_reason_forbids_creates(self) -> None:
        control = StopControl("continue", None)
        assert not control.forbids_creates
        control.stop(FluxError("text"))
        assert control.forbids_creates

    def test_a_kill_forbids_what_a_spent_budget_has_allowed(self) -> None:
        control = StopControl("continue", None)
        control.stop(FluxBudgetError("budget"))
        control.kill()
        assert control.forbids_creates

    def test_nothing_takes_the_place_of_a_kill(self) -> None:
        control = StopControl("continue", None)
        control.kill()
        control.stop(FluxBudgetError("budget"))
        assert control.is_killed

    def test_pictures_that_are_paid_for_and_not_stored_are_counted_apart(self) -> None:
        control = StopControl("continue", None)
        control.note_failure("a", 0, FluxInputError("text"))
        assert control.not_stored_error is None
        control.note_failure("b", 1, FluxOutputNotStoredError("the storage is out"))
        error = control.not_stored_error
        assert error is not None
        assert not isinstance(error, FluxBatchRefusedError)
        assert "Row 'b'" in str(error)

    @pytest.mark.parametrize(
        ("on_row_error", "max_failures", "bearable"), [("continue", None, 99), ("continue", 2, 2), ("fail", None, 0)]
    )
    def test_so_many_rows_may_fail(self, on_row_error: Any, max_failures: int | None, bearable: int) -> None:
        control = StopControl(on_row_error, max_failures)
        for position in range(bearable):
            control.note_failure("a", position, FluxError("text"))
        assert not control.is_stopped
        if bearable < 99:
            control.note_failure("a", bearable, FluxError("text"))
            assert control.is_stopped

    def test_a_batch_whose_rows_all_failed_for_good_is_not_retried(self) -> None:
        control = StopControl("continue", None)
        control.note_failure("a", 0, FluxInputError("text"))
        assert type(control.failure_error("all 1 failed")) is FluxBatchRefusedError
        control.note_failure("b", 1, FluxError("text"))
        assert type(control.failure_error("all 2 failed")) is FluxBatchError


def test_a_worker_that_is_killed_leaves_nothing_in_the_temporary_folder(tmp_path: Path) -> None:
    code = (
        "import os, signal; from airflow_provider_flux.batch.row_store import RowStore; store = RowStore();"
        "[store.add_key(str(number) * 100, number) for number in range(50_000)]; os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []
