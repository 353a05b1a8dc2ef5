"""How a task has its prediction: what it asks for, in which way, and what it remembers of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_flux.exceptions import FluxKilledError
from airflow_provider_flux.inputs.picture_reading import names_files
from airflow_provider_flux.links import is_known_to_plugin
from airflow_provider_flux.operators.base import PredictionTask
from airflow_provider_flux.operators.task_ways import TaskWay, TaskWays
from airflow_provider_flux.protocol.cancellation import CANCEL_AFTER_MARGIN
from airflow_provider_flux.protocol.picture_inputs import pictures_of
from airflow_provider_flux.protocol.prediction import Prediction
from airflow_provider_flux.protocol.resume import SubmissionRecord
from airflow_provider_flux.protocol.submission import Submission
from airflow_provider_flux.tasks.arguments import model_argument, whole_input
from airflow_provider_flux.tasks.pending import wait_on_create
from airflow_provider_flux.tasks.results import describe, with_published_inputs
from airflow_provider_flux.tasks.state_store import SubmissionRecords, generation_of, try_number_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_flux.hooks.flux import OnUnknownSubmission
    from airflow_provider_flux.inputs.transfer import InputTransfer

EXECUTION_TIMEOUT_MARGIN = 5.0


class SubmittingTask(PredictionTask):
    """A task that makes a prediction. Comes before Airflow's own base class.

    Its arguments are those of :class:`~airflow_provider_flux.operators.flux.FluxPredictionOperator`.
    """

    model: str
    version: str | None
    prompt: Any
    input: Any
    input_files: Mapping[str, Any] | None
    input_transfer: InputTransfer
    webhook: str | None
    webhook_events_filter: Sequence[str] | None
    wait_for_completion: bool
    cancel_on_timeout: bool
    timeout: float | timedelta
    execution_timeout: timedelta | None
    fallbacks: Sequence[Mapping[str, Any]]
    fallback_on: Collection[str]
    patience: float
    durable: bool
    on_unknown_submission: OnUnknownSubmission
    _prompt_is_given: bool
    _killed = False
    _prediction_id: str | None = None
    _input_read: dict[str, Any] | None = None
    _ways: TaskWays | None = None

    def on_kill(self) -> None:
        """Cancel the prediction, unless it has ended."""
        raise NotImplementedError

    def _seconds_allowed(self) -> float:
        timeout = self.timeout.total_seconds() if isinstance(self.timeout, timedelta) else float(self.timeout)
        if self.execution_timeout is None:
            return timeout
        # A little sooner than Airflow, which would end the task without a word about the prediction.
        limit = self.execution_timeout.total_seconds()
        return min(timeout, limit - min(EXECUTION_TIMEOUT_MARGIN, limit / 10))

    def _find_ways(self) -> TaskWays:
        model = model_argument(self.model, self.version)
        first = TaskWay(self.flux_conn_id, model, self._whole_input())
        return TaskWays(first, self.fallbacks or (), self.fallback_on)

    def _resume_way(self, context: Context, waited_for: tuple[str, str] | None = None) -> None:
        """Go on in the way that an earlier part of this try has taken, if there are several."""
        if not self.fallbacks:
            return
        self._ways = self._find_ways()
        self._ways.resume(SubmissionRecords.of_task(context, durable=self.durable).read(), waited_for)
        self.flux_conn_id, self.model = self._ways.way.flux_conn_id, self._ways.way.model

    def _take_way(self, ways: TaskWays) -> None:
        self.flux_conn_id, self.model = ways.way.flux_conn_id, ways.way.model
        self.hook, self._input_read = ways.hook, ways.input_read

    def _attach_or_submit(
        self, context: Context, deadline: float, records: SubmissionRecords, record: SubmissionRecord | None
    ) -> Prediction:
        has_no_list = not self.hook.access.gateway.preset.lists_predictions
        if not records.are_kept and (has_no_list or any(pictures_of(self._input_read or {}))):
            self.log.warning(
                "This task keeps no record of its prediction (that takes Airflow 3.3 and durable=True), and %s: if the "
                "worker dies from here on, a retry pays for a second one",
                f"{self.hook.gateway_name} has no list" if has_no_list else "no list tells whose a picture in it is",
            )

        def save(record: SubmissionRecord | None, prediction: Prediction | None) -> None:
            shows = self.wait_for_completion and is_known_to_plugin(type(self))
            records.save(record, self._described(prediction) if shows and prediction is not None else None)

        submission = self._submission(context, deadline, records)
        return self.hook.run_submission(submission, record, save, self._check_going_on, self.input_transfer)

    def _submission(self, context: Context, deadline: float, records: SubmissionRecords) -> Submission:
        run: Any = context.get("dag_run")
        started = getattr(run, "start_date", None)
        is_retry_without_record = self.durable and not records.are_kept and try_number_of(context) > 1
        return self.hook.submission(
            self.model,
            self._input_read if self._input_read is not None else self._given_input(),
            webhook=self.webhook,
            webhook_events_filter=self.webhook_events_filter,
            on_unknown_submission=self.on_unknown_submission,
            cancel_at=deadline + CANCEL_AFTER_MARGIN if self.wait_for_completion and self.cancel_on_timeout else None,
            wait=wait_on_create(self.model) if self.wait_for_completion else None,
            deadline=deadline,
            generation=generation_of(context),
            try_number=try_number_of(context),
            patience=self.patience if self._ways is not None and self._ways.has_another else None,
            attempt=0 if self._ways is None else self._ways.at,
            passed=self._passed,
            unrecorded_since=started.timestamp() if started is not None and is_retry_without_record else None,
        )

    def _check_going_on(self) -> None:
        if self._killed:
            raise FluxKilledError("The task was ended before its prediction was asked for; nothing was sent.")

    def _take_note_of(self, prediction: Prediction) -> None:
        self._prediction_id = prediction.id
        self._show_page(prediction)
        if self._killed:
            # The signal came while the create was under way, when there was nothing to cancel yet.
            self.on_kill()
            raise FluxKilledError(f"The task was ended while prediction {prediction.id} was being made.")

    def _whole_input(self) -> dict[str, Any]:
        return whole_input(self.prompt, self.input, prompt_is_given=self._prompt_is_given)

    def _given_input(self) -> dict[str, Any]:
        """Return the input of the way that is taken."""
        return self._whole_input() if self._ways is None else dict(self._ways.way.input)

    def _input_of(self, context: Context, prediction: Prediction) -> dict[str, Any]:
        """Return what the prediction was made of."""
        if self._input_read is not None:
            return self._input_read
        given = self._given_input()
        if not names_files(self.model, given, self.input_files):
            return given
        # On another worker now: what was read there is known from what it has told, and is not read again.
        return with_published_inputs(context, {**given, **(self.input_files or {})}, self._shown(context))

    def _described(self, prediction: Prediction) -> dict[str, Any]:
        access, passed = self.hook.access, self._passed
        return describe(prediction, access, model=self.model, input=self._input_read or {}, passed=passed)

    def _shown(self, context: Context) -> Mapping[str, Any] | None:
        """Return the first ``flux_result`` as the record has it; None if it was pushed."""
        return SubmissionRecords.of_task(context, durable=self.durable).read_shown()

    @property
    def _passed(self) -> Sequence[Mapping[str, Any]]:
        return () if self._ways is None else self._ways.passed
