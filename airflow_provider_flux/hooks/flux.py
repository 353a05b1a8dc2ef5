"""The hook: one gateway, as an Airflow connection describes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, TypeVar

from airflow.sdk import BaseHook

from airflow_provider_flux.client.connection import GatewayAccess, read_connection
from airflow_provider_flux.exceptions import (
    FluxConnectionError,
    FluxDeadlineError,
    FluxError,
    FluxGatewayError,
    FluxInputError,
    call_error,
    gateway_error,
)
from airflow_provider_flux.hooks.checks import TEST_PREDICTION_ID, check_webhook_events, explain_test
from airflow_provider_flux.protocol import catalogue
from airflow_provider_flux.protocol.classify import Failure, Reason, Verdict
from airflow_provider_flux.protocol.flows import CallFailed, Conversation, DeadlinePassed, Flow, Send
from airflow_provider_flux.protocol.lookup import candidates_of, listed_since
from airflow_provider_flux.protocol.messages import JSON, Request
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus
from airflow_provider_flux.protocol.pricing import Prices, read_price_list
from airflow_provider_flux.protocol.resume import ResumePolicy, SubmissionRecord
from airflow_provider_flux.protocol.submission import LookUp, NotSubmitted, Save, Submission
from airflow_provider_flux.telemetry import note_seen, span, waiting_for

T = TypeVar("T")

PATIENCE = 120.0
"""Seconds for which a call retries transient problems when the caller sets no deadline."""

OnUnknownSubmission = Literal["fail", "resubmit"]


class FluxHook(BaseHook):
    """Talk to a gateway that serves FLUX models through Replicate's predictions API.

    Works with DeerAPI, CometAPI, Replicate and any gateway like them. Every request goes to the connection's own
    origin, the only place the key is sent to.

    :param flux_conn_id: connection of type ``flux``; see
        :func:`airflow_provider_flux.client.connection.read_connection`.
    :raises FluxConnectionError: from any call, if the connection cannot be used.
    """

    conn_name_attr = "flux_conn_id"
    default_conn_name = "flux_default"
    conn_type = "flux"
    hook_name = "FLUX gateway"

    def __init__(self, flux_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.flux_conn_id = flux_conn_id

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return how the connection form looks on Airflow 3.1, which does not read it from the provider's metadata."""
        from airflow_provider_flux.get_provider_info import UI_FIELD_BEHAVIOUR

        return {name.replace("-", "_"): value for name, value in UI_FIELD_BEHAVIOUR.items()}

    @cached_property
    def access(self) -> GatewayAccess:
        """The connection, read once."""
        return read_connection(self.get_connection(self.flux_conn_id))

    @property
    def gateway_name(self) -> str:
        """The gateway's name, for messages."""
        return self.access.gateway.preset.label

    def check_input(self, model: str, input: Mapping[str, JSON], *, against_schema: bool = True) -> None:
        """Check a model's name and its input before they are paid for, and log what the gateway would ignore.

        :param against_schema: check the input against the model's schema, not only whether it can be sent.
        :raises FluxInputError: naming each field, its value and what is allowed.
        """
        report = catalogue.check_input(model, input, against_schema=against_schema)
        for warning in report.warnings:
            self.log.warning("%s", warning)
        if report.errors:
            raise FluxInputError(f"{model}: {'; '.join(report.errors)}. Nothing was sent.")

    def create_prediction(
        self,
        model: str,
        input: Mapping[str, JSON],
        *,
        webhook: str | None = None,
        webhook_events_filter: Sequence[str] | None = None,
        validate_input: bool = True,
        on_unknown_submission: OnUnknownSubmission = "fail",
        cancel_after: float | None = None,
        wait: float | None = None,
        deadline: float | None = None,
    ) -> Prediction:
        """Make one prediction. This is the call that costs money.

        The request is repeated only where the gateway cannot have made a prediction: no connection, or a 429. Where
        nobody can know, a gateway that lists predictions tells within a minute; elsewhere nothing is sent again.

        :param model: ``owner/name``, such as ``black-forest-labs/flux-schnell``.
        :param input: everything meant for the model.
        :param webhook: https URL that the gateway is asked to call. A gateway's webhook cannot be verified, since its
            signing secret belongs to the gateway's account at Replicate.
        :param webhook_events_filter: which of ``start``, ``output``, ``logs``, ``completed`` to call it for.
        :param validate_input: check the input against the model's schema first.
        :param on_unknown_submission: what to do where nobody can know, at a gateway without a list: ``fail``, or
            ``resubmit`` to send the request once more and risk paying twice.
        :param cancel_after: seconds after which the service itself ends the prediction; only Replicate is told.
        :param wait: seconds for which the gateway may hold its answer back until the prediction has ended, which saves
            polls; where it does so, it answers with the prediction's end.
        :param deadline: seconds since the epoch until which transient problems are retried; two minutes if not given.
        :raises FluxInputError: if the input is wrong; nothing was sent.
        :raises FluxRefusedError: if the gateway refuses.
        :raises FluxSubmissionUnknownError: if nobody can know whether a prediction was made.
        :raises FluxGatewayError: if the gateway could not be reached in time; no prediction was made.
        """
        self.check_input(model, input, against_schema=validate_input)
        return self.run_submission(
            self.submission(
                model,
                input,
                webhook=webhook,
                webhook_events_filter=webhook_events_filter,
                on_unknown_submission=on_unknown_submission,
                cancel_at=None if cancel_after is None else time.time() + cancel_after,
                wait=wait,
                deadline=deadline,
            )
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
        unrecorded_since: float | None = None,
    ) -> Submission:
        """Describe a prediction that :meth:`run_submission` is to have.

        The arguments are those of :meth:`create_prediction` and of
        :class:`~airflow_provider_flux.protocol.submission.Submission`.

        :param cancel_at: when the service itself should end the prediction, in seconds since the epoch.
        """
        check_webhook_events(webhook_events_filter)
        gateway = self.access.gateway

        def request() -> Request:
            return gateway.create(
                model,
                input,
                webhook=webhook,
                webhook_events_filter=webhook_events_filter,
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
            deadline=_deadline(deadline),
            unrecorded_since=unrecorded_since,
        )

    def run_submission(
        self,
        submission: Submission,
        record: SubmissionRecord | None = None,
        save: Callable[[SubmissionRecord | None], None] = lambda record: None,
        check_going_on: Callable[[], None] = lambda: None,
    ) -> Prediction:
        """Have a prediction: that of an earlier try, or a new one. Raises as :meth:`create_prediction` does.

        :param record: what earlier tries have saved.
        :param save: keeps a record in place of the one before; None forgets it. Called before anything is sent.
        :param check_going_on: called before each create is sent; may raise a FluxError, and nothing is sent.
        """

        def carry_out(effect: Send | Save | LookUp) -> Prediction | None:
            if isinstance(effect, LookUp):
                return self._run(submission.settle_by_list(effect))
            if isinstance(effect, Save):
                save(effect.record)
                return None
            try:
                check_going_on()
            except FluxError as error:
                raise NotSubmitted(str(error)) from error
            return None

        with span("flux.submit", model=submission.model):
            flow = submission.attach_or_submit(record)
            return self._call(flow, f"model {submission.model}", model=submission.model, carry_out=carry_out)

    def get_prediction(self, prediction_id: str, *, deadline: float | None = None) -> Prediction:
        """Ask for one prediction.

        :param deadline: seconds since the epoch until which transient problems are retried; two minutes if not given.
        :raises FluxGatewayError: if it cannot be told.
        """
        flow = self._conversation.get(prediction_id, deadline=_deadline(deadline))
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
            deadline=_deadline(deadline),
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
        flow = self._conversation.cancel(prediction_id, deadline=_deadline(deadline))
        return self._call(flow, f"prediction {prediction_id}")

    def list_predictions(self, *, deadline: float | None = None) -> Iterator[Prediction]:
        """Yield past predictions, newest first, a page at a time (Replicate only).

        :param deadline: seconds since the epoch until which transient problems are retried; two minutes if not given.
        :raises FluxConnectionError: if the gateway has no such list.
        """
        if not self.access.gateway.preset.lists_predictions:
            raise FluxConnectionError(f"{self.gateway_name} does not list predictions; only Replicate does.")
        for page in self._conversation.list(deadline=_deadline(deadline)):
            yield from self._call(page, "list of predictions")

    def models(self) -> list[str]:
        """Return the ids of the models that the gateway offers to this key (DeerAPI and CometAPI).

        :raises FluxConnectionError: if the gateway has no such list.
        """
        payload = self._read(self.access.gateway.preset.models_path, "list of models")
        entries = payload.get("data") if isinstance(payload, dict) else None
        if not isinstance(entries, list):
            raise self._malformed("list of models")
        return [entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]

    def balance(self) -> float:
        """Return what is left to spend, in USD (DeerAPI only: CometAPI takes the key in a URL, Replicate has none).

        :raises FluxConnectionError: if the gateway does not tell.
        """
        preset = self.access.gateway.preset
        limit = self._read(preset.balance_path, "balance")
        used = self._read(preset.usage_path, "balance")
        try:
            # The limit is in dollars and the usage in hundredths of a dollar (DeerAPI's balance page).
            return float(limit["hard_limit_usd"]) - float(used["total_usage"]) / 100
        except (KeyError, TypeError, ValueError):
            raise self._malformed("balance") from None

    def price_list(self) -> Prices:
        """Return what the gateway says its models cost, in USD (CometAPI only; the first page of its public list).

        :raises FluxConnectionError: if the gateway has no such list.
        """
        try:
            return read_price_list(self._read(self.access.gateway.preset.price_list_path, "prices"))
        except ValueError:
            raise self._malformed("prices") from None

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

    @property
    def _conversation(self) -> Conversation:
        return Conversation(self.access.gateway, self.log)

    def _run(self, flow: Flow[T], carry_out: Callable[[Any], Any] | None = None) -> T:
        from airflow_provider_flux.client.sync import run

        return run(flow, self.access, carry_out=carry_out)

    def _call(self, flow: Flow[T], about: str, *, model: str = "", carry_out: Callable[[Any], Any] | None = None) -> T:
        try:
            return self._run(flow, carry_out)
        except NotSubmitted as nothing:
            cause = nothing.__cause__
            raise (
                cause if isinstance(cause, FluxError) else FluxDeadlineError(str(nothing), "", canceled=False)
            ) from None
        except CallFailed as failed:
            raise call_error(self.access.gateway, failed, about=about, model=model) from None

    def _read(self, path: str, about: str) -> JSON:
        if not path:
            raise FluxConnectionError(f"{self.gateway_name} does not tell its {about}.")
        return self._call(self._conversation.read(self.access.gateway.read(path), deadline=_deadline(None)), about)

    def _malformed(self, about: str) -> FluxGatewayError:
        failure = Failure(Reason.MALFORMED, "the answer does not have the documented shape", about)
        return gateway_error(self.gateway_name, failure, Verdict.REFUSED)

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
        flow = listed_since(self._conversation, sent_at, deadline=_deadline(deadline))
        return candidates_of(self._call(flow, "list of predictions"), model, input, sent_at=sent_at)


def _deadline(deadline: float | None) -> float:
    return time.time() + PATIENCE if deadline is None else deadline
