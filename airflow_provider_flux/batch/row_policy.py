"""What a batch does about a row that it has seen before: decisions without I/O, each a function with its own table."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_flux.batch.model import Entry, PlannedRow, RowStatus
from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus
from airflow_provider_flux.protocol.resume import ResumePolicy, Step, SubmissionRecord, decide
from airflow_provider_flux.tasks.state_store import generation_of, try_number_of

OTHER_GENERATION = -1
"""Stands for the generation of any other run: a new run may try again what has failed."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who writes into a ledger.

    :param run: the task instance, the same in every try.
    :param generation: changes when a person clears the task.
    :param try_number: counts Airflow's tries.
    """

    run: str
    generation: int
    try_number: int

    @classmethod
    def of_task(cls, context: Mapping[str, Any]) -> Identity:
        """Return the identity of the running task."""
        instance = context["ti"]
        parts = (instance.dag_id, instance.run_id, instance.task_id, str(instance.map_index))
        run = hashlib.sha256("/".join(parts).encode()).hexdigest()[:16]
        return cls(run, generation_of(context), try_number_of(context))


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """Reads ledger entries for :func:`airflow_provider_flux.protocol.resume.decide`.

    :param can_list: for each way to make a row, whether its gateway lists predictions.
    :param incremental: whether entries of other runs count.
    """

    identity: Identity
    can_list: Sequence[bool]
    resubmits: bool
    incremental: bool

    def resume(self, at: int = 0) -> ResumePolicy:
        """Return what a single submission goes by.

        :param at: the way that it takes.
        """
        return ResumePolicy(
            generation=self.identity.generation,
            try_number=self.identity.try_number,
            can_list=self.can_list[at],
            resubmits=self.resubmits,
        )

    def known(self, entry: Entry | None) -> Entry | None:
        """Return an entry if it counts."""
        return entry if entry is not None and (self.incremental or entry.run == self.identity.run) else None

    def record(self, entry: Entry | None) -> SubmissionRecord | None:
        """Return what an entry says of a submission; None if it says that there was none."""
        entry = self.known(entry)
        if entry is None or (entry.prediction_id is None and not entry.sent_at):
            return None
        is_own = entry.run == self.identity.run
        return SubmissionRecord(
            fingerprint=entry.fingerprint,
            generation=entry.generation if is_own else OTHER_GENERATION,
            try_number=entry.try_number,
            sent_at=entry.sent_at,
            prediction_id=entry.prediction_id,
            # A new run is no person who takes the risk of paying twice.
            told=entry.told and is_own,
            sent_as=entry.sent_as,
            billed=entry.billed,
            attempt=entry.attempt,
            passed=entry.passed,
        )

    def is_unsettled(self, row: PlannedRow) -> bool:
        """Tell whether a create may have made the row's prediction."""
        record = self.record(row.entry)
        return record is not None and record.prediction_id is None and record.fingerprint == row.fingerprint


def ended_prediction(entry: Entry | None) -> Prediction | None:
    """Return the prediction of a row as far as the ledger knows how it has ended."""
    if entry is None or entry.prediction_id is None or entry.outcome is None:
        return None
    status = entry.outcome.get("prediction_status")
    if status is None:
        return None
    if status == PredictionStatus.SUCCEEDED.value and entry.outcome["status"] == RowStatus.SUCCEEDED.value:
        # Its stored pictures are gone; whether the service still has them only the gateway can tell.
        return None
    # A success that failed all the same has no picture that could be stored.
    return Prediction(
        id=entry.prediction_id, status=PredictionStatus(status), error=str(entry.outcome.get("error") or "")
    )


def standing(
    entry: Entry | None,
    former: Mapping[str, JSON] | None,
    *,
    fingerprint: str,
    policy: BatchPolicy,
    at: int = 0,
    all_exist: Callable[[Sequence[str]], bool],
) -> tuple[RowStatus, dict[str, JSON] | None]:
    """Decide how a row stands before anything is done about it.

    ========================================================= ============
    What is known of the row                                  It is
    ========================================================= ============
    made by this run of just this input, pictures there       succeeded
    made by another run of just this input, pictures there    kept
    listed by an older manifest, pictures there               kept
    failed for good in this run, task not cleared since       failed
    a create of just this input without a known outcome       unsettled
    anything else                                             not started
    ========================================================= ============

    :param entry: what the ledger knows of the row.
    :param former: how it stands in an older manifest, submitted just like that.
    :param fingerprint: of what would be submitted.
    :param at: the way that this would take.
    :param all_exist: tells whether all of some files exist.
    :return: how it stands, and its outcome if it has one.
    """
    known = policy.known(entry)
    if known is not None and known.outcome is not None and known.fingerprint == fingerprint:
        outcome, is_own = known.outcome, known.run == policy.identity.run
        if outcome["status"] == RowStatus.SUCCEEDED.value and all_exist(outcome["paths"]):
            return RowStatus.SUCCEEDED if is_own else RowStatus.KEPT, outcome
        # The same input would be refused again, until a person clears the task.
        is_uncleared = is_own and known.generation == policy.identity.generation
        if outcome["status"] != RowStatus.SUCCEEDED.value and outcome["is_lasting"] and is_uncleared:
            return RowStatus.FAILED, outcome
    if former is not None and all_exist(former["paths"]):
        return RowStatus.KEPT, dict(former)
    step = decide(policy.record(entry), fingerprint=fingerprint, policy=policy.resume(at), seen=ended_prediction(known))
    return (RowStatus.UNSETTLED if step in (Step.LOOK_UP, Step.REFUSE) else RowStatus.NOT_STARTED), None
