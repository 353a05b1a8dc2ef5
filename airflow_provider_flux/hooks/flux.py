"""The hook: one gateway, as an Airflow connection describes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from airflow_provider_flux.exceptions import (
    FluxConnectionError,
    FluxError,
    FluxInputError,
)
from airflow_provider_flux.hooks.checks import TEST_PREDICTION_ID, check_webhook, explain_test
from airflow_provider_flux.hooks.gateway_calls import GatewayCalls, deadline_or_default
from airflow_provider_flux.inputs.picture_reading import read_input
from airflow_provider_flux.inputs.transfer import InputTransfer, check_input_transfer
from airflow_provider_flux.protocol import catalogue
from airflow_provider_flux.protocol.flows import CallFailed, DeadlinePassed, Send
from airflow_provider_flux.protocol.lookup import candidates_of, listed_since
from airflow_provider_flux.protocol.messages import JSON, Log, Request
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus
from airflow_provider_flux.protocol.resume import ResumePolicy, SubmissionRecord
from airflow_provider_flux.protocol.submission import LookUp, NotSubmitted, Prepare, Save, Submission
from airflow_provider_flux.protocol.webhook_addresses import shared_secret
from airflow_provider_flux.tasks.arguments import AUTO
from airflow_provider_flux.telemetry import note_seen, span, waiting_for

OnUnknownSubmission = Literal["fail", "resubmit"]


class FluxHook(GatewayCalls):
    """Talk to a gateway that serves FLUX models through Replicate's predictions API.

    Works with DeerAPI, CometAPI, Replicate and their like, and with BFL itself. Requests and the key go to the
    connection's own origin only; for BFL also to its regions' hosts.

    :param flux_conn_id: connection of type ``flux``; see
        :func:`airflow_provider_flux.client.connection.read_connection`.
    :raises FluxConnectionError: from any call, if the connection cannot be used.
    """

    conn_name_attr = "flux_conn_id"
    conn_type = "flux"
    hook_name = "FLUX gateway"

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return how the connection form looks on Airflow 3.1, which does not read it from the provider's metadata."""
        from airflow_provider_flux.get_provider_info import UI_FIELD_BEHAVIOUR

        return {name.replace("-", "_"): value for name, value in UI_FIELD_BEHAVIOUR.items()}

    def check_input(
        self,
        model: str,
        input: Mapping[str, JSON],
        *,
        against_schema: bool = True,
        known_fields_only: bool = False,
    ) -> None:
        """Check a model's name and its input before they are paid for, and log what the gateway would ignore.

        :param against_schema: check the input against the model's schema, not only whether it can be sent.
        :param known_fields_only: refuse fields that the gateway would ignore.
        :raises FluxInputError: naming each field, its value and what is allowed.
        """
        report = catalogue.check_input(model, input, against_schema=against_schema)
        errors = [*report.errors, *(report.warnings if known_fields_only else ())]
        if errors:
            raise FluxInputError(f"{model}: {'; '.join(errors)}. Nothing was sent.")
        for warning in report.warnings:
            self.log.warning("%s", warning)

    def check_model(self, model: str) -> None:
        """Check that the gateway of this connection can be asked for a model.

        :raises FluxInputError: if it cannot, saying how models are written for it.
        """
        try:
            self.access.gateway.dialect(model)
        except ValueError as error:
            raise FluxInputError(f"{error} (connection {self.flux_conn_id!r}). Nothing was sent.") from None

    def read_input(
        self, model: str, input: Mapping[str, JSON], input_files: Mapping[str, JSON] | None = None
    ) -> dict[str, JSON]:
        """Return an input in which the path of each picture has become what was read there. Nothing is sent.

        :param input_files: paths of pictures by field, for models that are not in the catalogue.
        :raises FluxInputError: if one is missing, no whole picture, or too large.
        :raises FluxStorageError: if a storage cannot be read just now.
        """
        return read_input(model, input, input_files)

    def create_prediction(
        self,
        model: str,
        input: Mapping[str, JSON],
        *,
        webhook: str | None = None,
        webhook_events_filter: Sequence[str] | None = None,
        validate_input: bool = True,
        input_files: Mapping[str, JSON] | None = None,
        input_transfer: InputTransfer = "auto",
        on_unknown_submission: OnUnknownSubmission = "fail",
        cancel_after: float | None = None,
        wait: float | None = None,
        deadline: float | None = None,
    ) -> Prediction:
        """Make one prediction. This is the call that costs money.

        The request is repeated only where the gateway cannot have made a prediction: no connection, or a 429. Where
        nobody can know, a gateway that lists predictions tells within a minute; elsewhere nothing is sent again.

        :param model: ``owner/name``, such as ``black-forest-labs/flux-schnell``.
        :param input: everything meant for the model. A field that is a picture takes an https URL, a ``data:`` URI, or
            any path that ``ObjectStoragePath`` takes.
        :param webhook: https URL that the gateway is asked to call; ``auto`` for that of this Airflow, see
            :meth:`webhook_url`.
        :param webhook_events_filter: which of ``start``, ``output``, ``logs``, ``completed`` to call it for.
        :param validate_input: check the input against the model's schema first.
        :param input_files: paths of pictures by field, for models that are not in the catalogue.
        :param input_transfer: how pictures from a path travel: ``auto``, ``inline``, ``upload`` or ``signed``.
        :param on_unknown_submission: what to do where nobody can know, at a gateway without a list: ``fail``, or
            ``resubmit`` to send the request once more and risk paying twice.
        :param cancel_after: seconds after which the service itself ends the prediction; only Replicate is told.
        :param wait: seconds for which the gateway may hold its answer back until the prediction has ended, which saves
            polls; where it does so, it answers with the prediction's end.
        :param deadline: seconds since the epoch until which transient problems are retried; two minutes if not given.
        :raises FluxInputError: if the input is wrong; nothing was sent.
        :raises FluxStorageError: if a picture's storage cannot be read just now; nothing was sent.
        :raises FluxRefusedError: if the gateway refuses.
        :raises FluxSubmissionUnknownError: if nobody can know whether a prediction was made.
        :raises FluxGatewayError: if the gateway could not be reached in time; no prediction was made.
        """
        check_input_transfer(input_transfer)
        self.check_input(model, input, against_schema=validate_input)
        return self.run_submission(
            self.submission(
                model,
                self.read_input(model, input, input_files),
                webhook=webhook,
                webhook_events_filter=webhook_events_filter,
                on_unknown_submission=on_unknown_submission,
                cancel_at=None if cancel_after is None else time.time() + cancel_after,
                wait=wait,
                deadline=deadline,
            ),
            input_transfer=input_transfer,
        )

    def submission(
        self,
        model: str,
        input: Mapping[str, JSON],
        *,
        webhook: str | None = None,
        webhook_events_filter: Sequence[str] | None = None,
        on_unknown_submission: OnUnknownSubmission = "fail",
        cancel_at: float | None = None,
        wait: float | None = None,
        deadline: float | None = None,
        generation: int = 0,
        try_number: int = 1,
        patience: float | None = None,
        attempt: int = 0,
        passed: Sequence[Mapping[str, JSON]] = (),
        unrecorded_since: float | None = None,
    ) -> Submission:
        """Describe a prediction that :meth:`run_submission` is to have.

        The arguments are those of :meth:`create_prediction` and of
        :class:`~airflow_provider_flux.protocol.submission.Submission`.

        :param cancel_at: when the service itself should end the prediction, in seconds since the epoch.
        """
        if webhook == AUTO:
            webhook, webhook_events_filter = self.webhook_url(), ["completed"]
        check_webhook(webhook, webhook_events_filter)
        self.check_model(model)
        secret = self.access.webhook_secret or shared_secret(self.access.key, self.access.conn_id)
        gateway = self.access.gateway

        def request(sent: Mapping[str, JSON]) -> Request:
            return gateway.create(
                model,
                sent,
                webhook=webhook,
                webhook_events_filter=webhook_events_filter,
                webhook_secret=secret,
                cancel_after=None if cancel_at is None else cancel_at - time.time(),
                # An answer that is held back for longer than it is waited for would leave the create in doubt.
                wait=None if wait is None else min(wait, self.access.read_timeout / 2),
            )

        return Submission(
            conversation=self._conversation,
            model=model,
            input=input,
            request=request,
            policy=ResumePolicy(
                generation=generation,
                try_number=try_number,
                can_list=gateway.preset.lists_predictions,
                resubmits=on_unknown_submission == "resubmit",
            ),
            deadline=deadline_or_default(deadline),
            patience=patience,
            attempt=attempt,
            passed=list(passed),
            unrecorded_since=unrecorded_since,
        )

    def run_submission(
        self,
        submission: Submission,
        record: SubmissionRecord | None = None,
        save: Callable[[SubmissionRecord | None, Prediction | None], None] = lambda record, prediction: None,
        check_going_on: Callable[[], None] = lambda: None,
        input_transfer: InputTransfer = "auto",
    ) -> Prediction:
        """Have a prediction: that of an earlier try, or a new one. Raises as :meth:`create_prediction` does.

        :param record: what earlier tries have saved.
        :param save: keeps a record in place of the one before; None forgets it. Called before anything is sent, and
            with the prediction once there is one.
        :param check_going_on: called before each create is sent; may raise a FluxError, and nothing is sent.
        :param input_transfer: how pictures from a path travel.
        """

        def carry_out(effect: Send | Prepare | Save | LookUp) -> Prediction | Mapping[str, JSON] | None:
            if isinstance(effect, Prepare):
                return self.input_to_send(effect.input, input_transfer, deadline=submission.deadline)
            if isinstance(effect, LookUp):
                return self._run(submission.settle_by_list(effect))
            if isinstance(effect, Save):
                save(effect.record, effect.prediction)
                return None
            try:
                check_going_on()
            except FluxError as error:
                raise NotSubmitted(str(error)) from error
            return None

        with span("flux.submit", model=submission.model):
            flow = submission.attach_or_submit(record)
            return self._call(flow, f"model {submission.model}", model=submission.model, carry_out=carry_out)

    def input_to_send(
        self, input: Mapping[str, JSON], input_transfer: InputTransfer, *, deadline: float, log: Log | None = None
    ) -> dict[str, JSON]:
        """Return an input with something that the gateway can read in the place of each picture that was read.

        What it returns opens the pictures to whoever has it: it is for the gateway alone.

        :param deadline: of the prediction, in seconds since the epoch.
        :raises FluxError: if a picture cannot be sent; nothing was paid for.
        """
        from airflow_provider_flux.inputs.sending import input_to_send

        return input_to_send(
            input,
            self.access.gateway,
            wanted=input_transfer,
            deadline=deadline,
            ask=lambda request: self._call(self._conversation.read(request, deadline=deadline), "upload of a picture"),
            log=log or self.log,
        )

    def get_prediction(self, prediction_id: str, *, deadline: float | None = None) -> Prediction:
        """Ask for one prediction.

        :param deadline: seconds since the epoch until which transient problems are retried; two minutes if not given.
        :raises FluxGatewayError: if it cannot be told.
        """
        flow = self._conversation.get(prediction_id, deadline=deadline_or_default(deadline))
        return self._call(flow, f"prediction {prediction_id}")

    def get_ended_prediction(self, prediction_id: str, status: PredictionStatus) -> Prediction:
        """Ask for a prediction that was seen to have ended.

        :param status: the status that was seen. It stands, should the gateway's own word still lag behind.
        :raises FluxGatewayError: if it cannot be told.
        """
        prediction = self.get_prediction(prediction_id)
        return prediction if prediction.status.is_terminal else replace(prediction, status=status)

    def wait_for_prediction(
        self,
        prediction_id: str,
        *,
        model: str = "",
        submitted_at: float | None = None,
        deadline: float | None = None,
        poll_interval: float | None = None,
        at_once: bool = True,
    ) -> Prediction | None:
        """Poll one prediction until it has ended or the deadline comes.

        :param model: fits the poll times to how long the model's runs take, and tells when an output is complete.
        :param submitted_at: when the prediction was made, in seconds since the epoch; now if not given.
        :param deadline: seconds since the epoch; two minutes from now if not given.
        :param poll_interval: exactly this many seconds between polls, instead of the fitted times.
        :param at_once: poll before the first wait.
        :return: the prediction as last seen: in a terminal state unless the deadline came first; None if the gateway
            could not be reached all the while.
        :raises FluxGatewayError: if the gateway refuses to tell.
        """
        conversation = self._conversation
        flow = conversation.watch(
            prediction_id,
            conversation.schedule(model, interval=poll_interval),
            model=model,
            submitted_at=submitted_at or time.time(),
            deadline=deadline_or_default(deadline),
            at_once=at_once,
        )
        try:
            with waiting_for(prediction_id, model):
                prediction = self._call(flow, f"prediction {prediction_id}")
        except DeadlinePassed as passed:
            return passed.last
        if submitted_at is not None:
            note_seen(self.access.gateway, prediction, model, waited=time.time() - submitted_at)
        return prediction

    def cancel_prediction(self, prediction_id: str, *, deadline: float | None = None) -> Prediction | None:
        """Cancel one prediction.

        Replicate documents this. DeerAPI and CometAPI do not, so there it is an attempt.

        :param deadline: seconds since the epoch until which transient problems are retried; two minutes if not given.
        :return: the prediction as the gateway then describes it; None if it accepts without saying.
        :raises FluxGatewayError: if the gateway cannot or will not cancel; the prediction goes on.
        """
        flow = self._conversation.cancel(prediction_id, deadline=deadline_or_default(deadline))
        return self._call(flow, f"prediction {prediction_id}")

    def list_predictions(self, *, deadline: float | None = None) -> Iterator[Prediction]:
        """Yield past predictions, newest first, a page at a time (Replicate only).

        :param deadline: seconds since the epoch until which transient problems are retried; two minutes if not given.
        :raises FluxConnectionError: if the gateway has no such list.
        """
        if not self.access.gateway.preset.lists_predictions:
            raise FluxConnectionError(f"{self.gateway_name} does not list predictions; only Replicate does.")
        for page in self._conversation.list(deadline=deadline_or_default(deadline)):
            yield from self._call(page, "list of predictions")

    def test_connection(self) -> tuple[bool, str]:
        """Check the connection free of charge: no request that this makes can create a prediction.

        :return: whether it works, and what to tell the person who asked.
        """
        try:
            gateway = self.access.gateway
            if gateway.preset.identity_path:
                self._run(self._conversation.read(gateway.read(gateway.preset.identity_path), deadline=time.time()))
            # The key can be right and the path wrong: a gateway knows that it has no such prediction.
            self._run(self._conversation.get(TEST_PREDICTION_ID, deadline=time.time()))
        except FluxConnectionError as error:
            return False, str(error)
        except CallFailed as failed:
            return explain_test(failed.failure, self.gateway_name, gateway.origin)
        return True, f"{self.gateway_name} at {gateway.origin} accepts the key."

    def find_predictions(
        self, model: str, input: Mapping[str, JSON], *, sent_at: float, deadline: float | None = None
    ) -> list[Prediction]:
        """Return the predictions that a create may have made, newest first (Replicate only).

        :param sent_at: when the create was sent, in seconds since the epoch.
        :param deadline: seconds since the epoch until which transient problems are retried; two minutes if not given.
        :raises FluxConnectionError: if the gateway has no list.
        :raises FluxGatewayError: if the list cannot be read, which is not the same as an empty one.
        """
        if not self.access.gateway.preset.lists_predictions:
            raise FluxConnectionError(f"{self.gateway_name} does not list predictions; only Replicate does.")
        flow = listed_since(self._conversation, sent_at, deadline=deadline_or_default(deadline))
        return candidates_of(self._call(flow, "list of predictions"), model, input, sent_at=sent_at)
