"""Making a prediction for a task, or finding the one that an earlier try has made."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_flux.cancellation import cancel
from airflow_provider_flux.durable import Step, SubmissionRecord, SubmissionRecords, decide, fingerprint_of
from airflow_provider_flux.exceptions import (
    FluxError,
    FluxGatewayError,
    FluxRefusedError,
    FluxSubmissionUnknownError,
)
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus
from airflow_provider_flux.protocol.verdicts import Failure, Reason
from airflow_provider_flux.protocol.wire import JSON, Log

if TYPE_CHECKING:
    from airflow_provider_flux.hooks.flux import FluxHook, OnUnknownSubmission

LISTED_AFTER = 60.0
"""Seconds after which a prediction that was made can be relied on to be in the gateway's list."""


@dataclass(frozen=True)
class Attempt:
    """One try of a task to have its prediction.

    :param generation: changes when a person clears the task.
    :param try_number: counts Airflow's tries.
    :param deadline: until when passing trouble is borne, in seconds since the epoch.
    :param run_started_at: when the DAG run began, in seconds since the epoch; None if it is not known.
    """

    hook: FluxHook
    log: Log
    records: SubmissionRecords
    model: str
    input: Mapping[str, JSON]
    generation: int
    try_number: int
    on_unknown_submission: OnUnknownSubmission
    deadline: float
    run_started_at: float | None = None

    def attach_or_submit(self, create: Callable[[], Prediction]) -> Prediction:
        """Return the prediction of an earlier try where there is one to go on with, else make one.

        :param create: sends the create, once.
        :raises FluxSubmissionUnknownError: if an earlier create may have made a prediction that cannot be found.
        :raises FluxGatewayError: if the gateway does not say what became of the recorded prediction. It is kept.
        """
        record = self.records.read()
        step = self._decide(record)
        if record is None or step is Step.SUBMIT:
            return self._found_without_record() or self._submit(record, create)
        if step is Step.REFUSE:
            raise self._unknown(record)
        if step is Step.LOOK_UP:
            return self._look_up(record) or self._submit(record, create)
        return self._go_on_with(record, create)

    def is_of_an_earlier_try(self) -> bool:
        """Tell whether the recorded prediction was made by another try than this one."""
        record = self.records.read()
        return record is not None and (record.generation, record.try_number) != (self.generation, self.try_number)

    def _decide(self, record: SubmissionRecord | None, seen: Prediction | None = None, *, gone: bool = False) -> Step:
        return decide(
            record,
            fingerprint=self._fingerprint,
            generation=self.generation,
            can_list=self.hook.access.gateway.preset.lists_predictions,
            resubmits=self.on_unknown_submission == "resubmit",
            seen=seen,
            gone=gone,
        )

    @property
    def _fingerprint(self) -> str:
        return fingerprint_of(self.hook.access.gateway, self.model, self.input)

    def _go_on_with(self, record: SubmissionRecord, create: Callable[[], Prediction]) -> Prediction:
        prediction_id = record.prediction_id or ""
        error: FluxGatewayError | None = None
        seen: Prediction | None = None
        try:
            seen = self.hook.get_prediction(prediction_id, deadline=self.deadline)
        except FluxGatewayError as failed:
            if failed.failure.reason is not Reason.NOT_FOUND:
                raise
            error = failed
        step = self._decide(record, seen, gone=seen is None)
        if step is Step.ATTACH:
            if seen is None:
                assert error is not None  # noqa: S101 (for the type checker)
                raise error
            self.log.info("Prediction %s of an earlier try is %s; going on with it", seen.id, seen.status.value)
            return seen
        if step is Step.CANCEL_AND_SUBMIT:
            report = cancel(self.hook.access, prediction_id, self.log, patience=30.0).report
            self.log.info("The input has changed. %s", report)
        else:
            what = seen.status.value if seen is not None else "not known to the gateway any more"
            self.log.info("Prediction %s of an earlier try is %s; making a new one", prediction_id, what)
        return self._submit(record, create)

    def _submit(self, earlier: SubmissionRecord | None, create: Callable[[], Prediction]) -> Prediction:
        if earlier is not None and earlier.prediction_id is None:
            self.log.warning("An earlier create may have made a prediction that is not known; making one all the same")
        if not self.records.are_kept and not self.hook.access.gateway.preset.lists_predictions:
            self.log.warning(
                "This task keeps no record of its prediction (that takes Airflow 3.3 and durable=True), and %s has no "
                "list to find it in: if the worker dies from here on, a retry pays for a second one",
                self.hook.gateway_name,
            )
        intent = SubmissionRecord(
            fingerprint=self._fingerprint,
            generation=self.generation,
            try_number=self.try_number,
            sent_at=time.time(),
        )
        self.records.write(intent)
        try:
            prediction = create()
        except FluxSubmissionUnknownError:
            self.records.note_told(intent)
            raise
        except FluxError as error:
            # Every other error of ours says that no prediction was made; only of an answer that does not come from a
            # gateway at all one cannot be quite sure.
            if not (isinstance(error, FluxGatewayError) and error.failure.reason is Reason.WRONG_URL):
                self.records.forget()
            raise
        self._keep_id(intent, prediction.id)
        return prediction

    def _keep_id(self, intent: SubmissionRecord, prediction_id: str) -> None:
        try:
            self.records.add_id(intent, prediction_id)
        except Exception:  # noqa: BLE001 (the prediction is paid for: whatever is wrong, go on waiting for it)
            self.log.warning(
                "Prediction %s was made, but Airflow could not store its id. This try goes on with it; if it dies, the "
                "next one will not know whether a prediction was made",
                prediction_id,
            )

    def _look_up(self, record: SubmissionRecord) -> Prediction | None:
        """Find the prediction of an intent in the gateway's list. None means that there is none, for certain."""
        while True:
            asked_at = time.time()
            try:
                alike = self._listed(since=record.sent_at)
            except FluxRefusedError as error:
                # A list that will not be read does not say that there is none.
                raise self._unknown(record, error.failure) from error
            if len(alike) == 1:
                self.log.info("Prediction %s is the one that an earlier try asked for", alike[0].id)
                self._keep_id(record, alike[0].id)
                return alike[0]
            if alike:
                candidates = [prediction.id for prediction in alike]
                raise self._unknown(record, candidates=candidates)
            if asked_at >= record.sent_at + LISTED_AFTER:
                return None
            time.sleep(record.sent_at + LISTED_AFTER - asked_at)

    def _listed(self, since: float) -> list[Prediction]:
        return self.hook.find_predictions(self.model, self.input, sent_at=since, deadline=self.deadline)

    def _unknown(
        self, record: SubmissionRecord, failure: Failure | None = None, *, candidates: Sequence[str] = ()
    ) -> FluxSubmissionUnknownError:
        self.records.note_told(record)
        return self.hook.submission_unknown(self.model, record.sent_at, failure, candidates=candidates)

    def _found_without_record(self) -> Prediction | None:
        """Find what an earlier try made, where no record is kept but the gateway lists predictions."""
        if self.records.are_kept or self.try_number <= 1 or self.run_started_at is None:
            return None
        if not self.hook.access.gateway.preset.lists_predictions:
            return None
        for prediction in self._listed(since=self.run_started_at):
            alive = not prediction.status.is_terminal
            if alive or (prediction.status is PredictionStatus.SUCCEEDED and prediction.outputs):
                self.log.info("Prediction %s has the same input; going on with it", prediction.id)
                return prediction
        return None
