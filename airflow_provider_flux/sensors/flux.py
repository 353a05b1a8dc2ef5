"""The sensor: waits for a prediction that was made elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf
from airflow.sdk import BaseSensorOperator, PokeReturnValue

from airflow_provider_flux.exceptions import (
    AirflowFailException,
    AirflowSensorTimeout,
    FluxGatewayError,
    FluxInputError,
    FluxPredictionError,
    FluxRefusedError,
)
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.links import FluxPredictionLink
from airflow_provider_flux.results import publish_id, settle
from airflow_provider_flux.waiting import (
    PendingPrediction,
    check_poll_interval,
    default_wait_before_defer,
    defer_until_ended,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_flux.protocol.prediction import Prediction

DEFAULT_POKE_INTERVAL = 10.0
"""Seconds between two looks of a sensor that does not defer."""


class FluxPredictionSensor(BaseSensorOperator):
    """Wait for a prediction that was made elsewhere.

    Never makes or cancels a prediction, so that it can be retried and cleared at no cost. Its ``return_value`` is the
    list of output URLs; ``prediction_id``, ``flux_result`` and ``output_url`` are pushed as by
    :class:`~airflow_provider_flux.operators.flux.FluxPredictionOperator`.

    :param prediction_id: which prediction; takes the operator's ``output``.
    :param flux_conn_id: connection of type ``flux``, of the account that made the prediction.
    :param deferrable: wait in the triggerer.
    :param poll_interval: exactly this many seconds between the triggerer's polls; fitted to the model if not given.
    :param poke_interval: seconds between two looks if the sensor does not defer.
    :param timeout: how long to wait in all. As with any sensor, a sensor that has timed out is not retried.
    """

    template_fields: Sequence[str] = ("prediction_id", "flux_conn_id")
    operator_extra_links = (FluxPredictionLink(),)
    ui_color = "#e6f1fb"

    def __init__(
        self,
        *,
        prediction_id: str,
        flux_conn_id: str = FluxHook.default_conn_name,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float | None = None,
        poke_interval: Any = DEFAULT_POKE_INTERVAL,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.prediction_id = prediction_id
        self.flux_conn_id = flux_conn_id
        self.deferrable = deferrable
        check_poll_interval(poll_interval)
        self.poll_interval = poll_interval
        self.prediction_page: str | None = ""
        self._in_trouble = False

    @cached_property
    def hook(self) -> FluxHook:
        """The hook of this task's connection."""
        return FluxHook(self.flux_conn_id)

    def execute(self, context: Context) -> Any:
        """Wait for the prediction."""
        if not isinstance(self.prediction_id, str) or not self.prediction_id:
            raise FluxInputError(f"prediction_id must be the id of a prediction, not {self.prediction_id!r}.")
        publish_id(context, self.prediction_id)
        if not self.deferrable:
            return super().execute(context)
        now = time.time()
        pending = PendingPrediction(prediction_id=self.prediction_id, submitted_at=now, deadline=now + self.timeout)
        # Airflow's own way to resume turns errors into skips where soft_fail or never_fail say so.
        return self.resume_execution("wait_or_defer", {"pending": pending}, context)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> list[str]:
        """Go on where the trigger left off."""
        self.prediction_page = None
        return self.wait_or_defer(context, PendingPrediction.from_event(event))

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Look once. Passing trouble counts as "not yet"."""
        try:
            prediction = self.hook.get_prediction(self.prediction_id, deadline=time.time() + self.poke_interval)
        except FluxRefusedError:
            raise
        except FluxGatewayError as error:
            if not self._in_trouble:
                self.log.warning("%s Looking again.", error)
            self._in_trouble = True
            return False
        self._in_trouble = False
        self.prediction_page = self.hook.access.gateway.page(prediction)
        if not prediction.status.is_terminal:
            self.log.info("Prediction %s: %s", prediction.id, prediction.status_word)
            return False
        return PokeReturnValue(is_done=True, xcom_value=self._settle(context, prediction))

    def wait_or_defer(self, context: Context, pending: PendingPrediction) -> list[str]:
        """Look for a moment on the worker; go on waiting in the triggerer if that is not enough."""
        prediction = self.hook.wait_for_prediction(
            pending.prediction_id,
            submitted_at=pending.submitted_at,
            deadline=min(pending.deadline, time.time() + default_wait_before_defer("")),
            poll_interval=self.poll_interval,
        )
        if prediction is not None:
            self.prediction_page = self.hook.access.gateway.page(prediction)
            if prediction.status.is_terminal:
                return self._settle(context, prediction)
        if time.time() >= pending.deadline:
            raise AirflowSensorTimeout(
                f"Prediction {pending.prediction_id} has not ended within the sensor's timeout of {self.timeout:g} s. "
                "It goes on; clear this sensor to wait for it again."
            )
        defer_until_ended(
            self,
            pending,
            flux_conn_id=self.flux_conn_id,
            model="" if prediction is None else prediction.model,
            poll_interval=self.poll_interval,
            cancel_on_kill=False,
        )

    def _settle(self, context: Context, prediction: Prediction) -> list[str]:
        try:
            return settle(context, prediction)
        except FluxPredictionError as error:
            # Trying again would only find the same end.
            raise AirflowFailException(f"{error} Clear the task that made it to make another.") from error
