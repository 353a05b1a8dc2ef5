"""The operator: makes one prediction, and waits for it if asked to."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from airflow.configuration import conf
from airflow.sdk import BaseOperator

from airflow_provider_flux.client.cancel import cancel_prediction, give_up_prediction
from airflow_provider_flux.exceptions import (
    FluxDeadlineError,
    FluxError,
    FluxOutputError,
    FluxOutputNotStoredError,
    FluxStillRunningError,
    TaskDeferralTimeout,
)
from airflow_provider_flux.hooks.flux import FluxHook, OnUnknownSubmission
from airflow_provider_flux.inputs.transfer import InputTransfer, check_input_transfer
from airflow_provider_flux.links import FluxPicturesLink, FluxPredictionLink, leave_to_plugin
from airflow_provider_flux.operators.submitting import SubmittingTask
from airflow_provider_flux.protocol.cancellation import NotInTime
from airflow_provider_flux.protocol.fallbacks import USUAL_CAUSES, FallbackCause
from airflow_provider_flux.protocol.picture_inputs import pictures_of
from airflow_provider_flux.protocol.prediction import CANCELED, Prediction, PredictionStatus
from airflow_provider_flux.protocol.resume import SubmissionRecord, can_be_handed_on, was_canceled_under
from airflow_provider_flux.tasks.arguments import webhook_argument
from airflow_provider_flux.tasks.end_from_trigger import EndFromTrigger, ends_from_trigger
from airflow_provider_flux.tasks.fallback_arguments import PATIENCE, check_fallbacks
from airflow_provider_flux.tasks.pending import (
    PendingPrediction,
    check_poll_interval,
    check_timeout,
    default_wait_before_defer,
    ended_status,
)
from airflow_provider_flux.tasks.results import (
    publish_id,
    publish_result,
    published_id,
    settle,
)
from airflow_provider_flux.tasks.state_store import SubmissionRecords, is_first_start
from airflow_provider_flux.triggers.defer import defer_until_ended

if TYPE_CHECKING:
    from os import PathLike

    from airflow.sdk import Context, ObjectStoragePath

DEFAULT_TIMEOUT = timedelta(minutes=30)
"""Replicate stops any prediction after 30 minutes (its lifecycle page)."""


class FluxPredictionOperator(SubmittingTask, BaseOperator):
    """Make one picture, or several, with a FLUX model.

    XComs: ``return_value`` is the prediction id, or the list of output URLs if the operator waits, or the list of paths
    if it stores the pictures; ``prediction_id`` is pushed before any wait, ``flux_result`` when the prediction has
    ended (until then the task's record has it; where no record is kept, it is pushed before any wait, too);
    ``output_url`` is the first URL.

    :param model: such as ``black-forest-labs/flux-schnell``, or ``owner/name:version``; at Replicate also
        ``deployments/owner/name``. One of BFL's short names, such as ``flux-2-pro``, asks BFL, or a gateway in that
        style.
    :param version: the version of the model, if that is not part of its name.
    :param prompt: the prompt; a short way to write ``input={"prompt": ...}``.
    :param input: everything meant for the model. Checked against the model's schema before anything is sent. A field
        that is a picture takes an https URL, a ``data:`` URI, or anything ``ObjectStoragePath`` takes, such as
        ``s3://conn@bucket/tea.png`` or the path that another FLUX task has stored; it is read and checked first, too.
    :param flux_conn_id: connection of type ``flux``.
    :param webhook: https URL that the gateway is asked to call when the prediction has ended; ``auto`` for that of this
        Airflow, which makes an asset event of it (``docs/webhooks.md``).
    :param webhook_events_filter: which of ``start``, ``output``, ``logs``, ``completed`` to call it for.
    :param wait_for_completion: wait for the end of the prediction in this task.
    :param deferrable: wait in the triggerer; only matters if the operator waits.
    :param wait_before_defer: seconds to wait on the worker before deferring; fitted to the model if not given.
    :param end_from_trigger: let a success end the task in the triggerer, which spares a second start on a worker.
        ``auto`` does so unless something would be dropped, as ``docs/behaviour.md`` lists it: outlets, an
        ``on_success_callback``, a ``post_execute``, a listener that is told of successes, and the like. Failures
        always resume on a worker.
    :param timeout: how long to wait in all, from the start of this task. ``execution_timeout`` counts too if it is
        shorter, since Airflow 3 does not enforce it while a task is deferred.
    :param poll_interval: exactly this many seconds between polls; fitted to the model if not given.
    :param output_path: store the pictures below this folder (``s3://conn@bucket/prefix``, a local path, anything
        ``ObjectStoragePath`` takes) and return their paths. Needs ``wait_for_completion``.
    :param output_sidecar: write a JSON file with prompt, model, seed and times next to them.
    :param cancel_on_kill: cancel the prediction when the task is ended by a person or its worker is stopped.
    :param cancel_on_timeout: cancel the prediction at the deadline.
    :param validate_input: check the input against the model's schema.
    :param fallbacks: other ways to make the picture, each an object with some of ``model``, ``flux_conn_id`` and
        ``input``; the rest is as said here, and so is the prompt. They are taken one after the other, each with the
        whole ``timeout``, if the one before has made no picture and certainly costs nothing more. All are checked
        before anything is sent, and a field that a fallback does not know is an error.
    :param fallback_on: for what the next way is taken: ``unavailable`` (refused, or not reached), ``credit``,
        ``failed``, ``refused_content``, ``deadline`` (canceled at it). Never if nobody knows whether a prediction was
        made.
    :param patience: seconds for which a way that does not accept is tried before the next one is taken.
    :param input_files: paths of pictures by the names of their fields, for models that are not in the catalogue.
    :param input_transfer: how pictures from a path travel: ``inline`` as ``data:`` URIs, ``upload`` to Replicate,
        ``signed`` as URLs that their storage signs, or what fits best (``auto``).
    :param durable: keep a record of the prediction, so that a retry, a clear or a crash finds it instead of paying for
        another (Airflow 3.3 and later).
    :param on_unknown_submission: what to do when nobody can know whether a prediction was made: ``fail``, or
        ``resubmit`` to send the request once more and risk paying twice. Where the gateway lists predictions
        (Replicate), both mean the same: its list tells, and nothing is sent again unless it shows that none was made.
    """

    template_fields: Sequence[str] = (
        "model",
        "version",
        "prompt",
        "input",
        "flux_conn_id",
        "webhook",
        "webhook_events_filter",
        "output_path",
        "input_files",
        "fallbacks",
    )
    template_fields_renderers = {"input": "json"}
    operator_extra_links = (FluxPredictionLink(), FluxPicturesLink())
    ui_color = "#efe6fb"

    def __init__(
        self,
        *,
        model: str | None = None,
        version: str | None = None,
        prompt: str | None = None,
        input: Mapping[str, Any] | None = None,
        flux_conn_id: str = FluxHook.default_conn_name,
        webhook: str | None = None,
        webhook_events_filter: Sequence[str] | None = None,
        wait_for_completion: bool = False,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        wait_before_defer: float | None = None,
        end_from_trigger: EndFromTrigger = "auto",
        timeout: float | timedelta = DEFAULT_TIMEOUT,
        poll_interval: float | None = None,
        output_path: str | PathLike[str] | ObjectStoragePath | None = None,
        output_sidecar: bool = False,
        cancel_on_kill: bool = True,
        cancel_on_timeout: bool = True,
        validate_input: bool = True,
        fallbacks: Sequence[Mapping[str, Any]] = (),
        fallback_on: Collection[FallbackCause] = USUAL_CAUSES,
        patience: float = PATIENCE,
        input_files: Mapping[str, Any] | None = None,
        input_transfer: InputTransfer = "auto",
        durable: bool = True,
        on_unknown_submission: OnUnknownSubmission = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        leave_to_plugin(self)
        if on_unknown_submission not in get_args(OnUnknownSubmission):
            choices = " or ".join(map(repr, get_args(OnUnknownSubmission)))
            raise ValueError(f"on_unknown_submission must be {choices}, not {on_unknown_submission!r}")
        if model is None and version is None:
            raise ValueError("model is missing; give one such as 'black-forest-labs/flux-schnell'")
        check_fallbacks(fallbacks, fallback_on, patience)
        self.model = "" if model is None else model
        self.version = version
        self.fallbacks = fallbacks
        self.fallback_on = fallback_on
        self.patience = patience
        self.prompt = prompt
        self._prompt_is_given = prompt is not None
        self.input = input
        self.flux_conn_id = flux_conn_id
        self.webhook = webhook
        self.webhook_events_filter = webhook_events_filter
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.wait_before_defer = wait_before_defer
        self.timeout = timeout
        self._choose_ending(end_from_trigger)
        check_poll_interval(poll_interval)
        check_timeout(timeout)
        self.poll_interval = poll_interval
        if output_path is not None and not wait_for_completion:
            raise ValueError("output_path needs wait_for_completion=True: only a task that waits has pictures to store")
        self.output_path = output_path
        self._stores_pictures = output_path is not None
        self.output_sidecar = output_sidecar
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self.validate_input = validate_input
        self.input_files = input_files
        check_input_transfer(input_transfer)
        self.input_transfer = input_transfer
        self.durable = durable
        self.on_unknown_submission = on_unknown_submission
        self._deadline: float | None = None

    def execute(self, context: Context) -> Any:
        """Make the prediction, or go on with that of an earlier try, and wait for it if asked to."""
        self.webhook = webhook_argument(self.webhook)
        ways = self._ways = self._ways or self._find_ways()
        ways.check(validate_input=self.validate_input, input_files=self.input_files, webhook=self.webhook)
        if self._storage is not None:
            self._storage.check()
        records = SubmissionRecords.of_task(context, durable=self.durable)
        # What is not read costs no call, and what a first start reads can only be nothing.
        record = ways.take_up(None if is_first_start(context) else records.read(), self.log)
        self._take_way(ways)
        return self._in_one_way_or_another(context, lambda: self._make(context, records, record))

    def _make(self, context: Context, records: SubmissionRecords, record: SubmissionRecord | None) -> Any:
        """Make the prediction in the way that is taken, or go on with that of an earlier try, and wait for it."""
        deadline = self._deadline = time.time() + self._seconds_allowed()
        prediction = self._attach_or_submit(context, deadline, records, record)
        self._take_note_of(prediction)
        publish_id(context, prediction.id)
        if self.wait_for_completion and can_be_handed_on(prediction):
            return self._settle(context, prediction)
        if records.shown is None:
            publish_result(context, self._described(prediction))
        if not self.wait_for_completion:
            return prediction.id
        pending = PendingPrediction(
            prediction_id=prediction.id,
            flux_conn_id=self.flux_conn_id,
            model=self.model,
            submitted_at=time.time(),
            deadline=deadline,
        )
        return self._wait(context, pending, at_once=False, may_defer=self.deferrable)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Go on where the trigger left off, to the end and on this worker."""
        pending = PendingPrediction.from_event(event)
        self._resume_way(context, (pending.flux_conn_id, pending.model))
        self.flux_conn_id, self.model, self.version = pending.flux_conn_id, pending.model, None
        # Before a signal can cancel: its handler must not be the one to look the connection up.
        self.hook.access  # noqa: B018
        self._prediction_id, self._deadline = pending.prediction_id, pending.deadline
        self.prediction_page = None
        return self._in_one_way_or_another(context, lambda: self._complete(context, pending, ended_status(event)))

    def _complete(self, context: Context, pending: PendingPrediction, status: PredictionStatus | None) -> Any:
        if status is None:
            return self._wait(context, pending, at_once=True, may_defer=False)
        prediction = self.hook.get_ended_prediction(pending.prediction_id, status)
        self._show_page(prediction)
        return self._settle(context, prediction)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume, and cancel the prediction if Airflow itself has ended the deferral.

        Airflow does that when no triggerer has run the trigger by then; it does not tell which prediction it is.
        """
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout as error:
            prediction_id = published_id(context)
            if prediction_id is None:
                raise
            self.log.warning("Prediction %s: no triggerer has waited for it to its deadline", prediction_id)
            self._resume_way(context)
            try:
                return self._in_one_way_or_another(
                    context, lambda: self._settle(context, self._give_up(context, prediction_id))
                )
            except FluxDeadlineError as late:
                raise late from error

    def _in_one_way_or_another(self, context: Context, go_on: Callable[[], Any]) -> Any:
        """Go on, and where that brings no picture and costs nothing more, take the fallbacks one after the other."""
        while True:
            try:
                return go_on()
            except FluxError as error:
                if self._killed or not self.fallbacks:
                    raise
                ways = self._ways = self._ways or self._find_ways()
                if not ways.pass_over(error, self.log):
                    raise
            if self._input_read is None:
                # On another worker than the one on which they were checked and read.
                ways.check(validate_input=self.validate_input, input_files=self.input_files)
            self._take_way(ways)
            self._prediction_id = None
            records = SubmissionRecords.of_task(context, durable=self.durable)
            go_on = partial(self._make, context, records, None)

    def on_kill(self) -> None:
        """Cancel the prediction, unless it has ended."""
        self._killed = True
        if self.cancel_on_kill and self._prediction_id is not None:
            self.log.info("%s", cancel_prediction(self.hook.access, self._prediction_id, self.log).report)

    def _wait(self, context: Context, pending: PendingPrediction, *, at_once: bool, may_defer: bool) -> Any:
        """Wait on the worker: for a while before deferring, else to the deadline."""
        prediction = self.hook.wait_for_prediction(
            pending.prediction_id,
            model=self.model,
            submitted_at=pending.submitted_at,
            deadline=self._end_of_short_wait(pending) if may_defer else pending.deadline,
            poll_interval=self.poll_interval,
            at_once=at_once,
        )
        self._show_page(prediction)
        if prediction is None or not prediction.status.is_terminal:
            if may_defer and time.time() < pending.deadline:
                self._defer(pending)
            prediction = self._give_up(context, pending.prediction_id)
        return self._settle(context, prediction)

    def _defer(self, pending: PendingPrediction) -> NoReturn:
        reads_pictures = self._input_read is not None and any(pictures_of(self._input_read))
        defer_until_ended(
            self,
            pending,
            poll_interval=self.poll_interval,
            cancel_on_kill=self.cancel_on_kill,
            # The triggerer does not know the input's pictures and what was tried before, of which `flux_result` tells.
            end_task=ends_from_trigger(self, self._ending, FluxPredictionOperator)
            and not (reads_pictures or self._passed),
        )

    def _settle(self, context: Context, prediction: Prediction) -> Any:
        """Hand on the pictures, or the error. A prediction that was canceled under another try is made again."""
        records = SubmissionRecords.of_task(context, durable=self.durable)
        policy = self._submission(context, time.time(), records).policy
        # The record costs a call to Airflow, and else tells nothing of a prediction that nobody has canceled.
        is_told = prediction.status in CANCELED or self.hook.access.gateway.preset.bills_on_create
        record = records.read() if is_told else None
        if record is not None and record.prediction_id == prediction.id:
            prediction = replace(prediction, metrics={**record.billed, **prediction.metrics})
        if not self._killed and was_canceled_under(prediction, record, policy):
            self.log.info("Prediction %s of an earlier try was canceled; making a new one", prediction.id)
            return self.execute(context)
        try:
            return settle(
                context,
                prediction,
                self.hook.access,
                model=self.model,
                input=self._input_of(context, prediction),
                storage=self._storage,
                deadline=self._deadline,
                passed=self._passed,
            )
        except FluxOutputNotStoredError as error:
            if records.are_kept:
                raise
            raise FluxOutputError(f"{error} Not retried: without a record, a retry would pay for another.") from error

    def _end_of_short_wait(self, pending: PendingPrediction) -> float:
        wait = self.wait_before_defer
        return min(pending.deadline, time.time() + (default_wait_before_defer(self.model) if wait is None else wait))

    def _give_up(self, context: Context, prediction_id: str) -> Prediction:
        """End the wait at the deadline. Return the prediction only if it turns out to have succeeded meanwhile."""
        try:
            return give_up_prediction(self.hook.access, prediction_id, self.log, cancels=self.cancel_on_timeout)
        except NotInTime as late:
            records = SubmissionRecords.of_task(context, durable=self.durable)
            if shown := records.read_shown():
                publish_result(context, shown)
            error_type = FluxDeadlineError if late.canceled or records.are_kept else FluxStillRunningError
            raise error_type(str(late), prediction_id, canceled=late.canceled) from None
