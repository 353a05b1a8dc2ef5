"""The sensor: waits for a prediction that was made elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
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
from airflow_provider_flux.links import FluxPicturesLink, FluxPredictionLink, leave_to_plugin
from airflow_provider_flux.operators.base import PredictionTask
from airflow_provider_flux.protocol.flows import DOUBTFUL_LIMIT
from airflow_provider_flux.protocol.storable import find_unstorable
from airflow_provider_flux.tasks.arguments import text_argument
from airflow_provider_flux.tasks.end_from_trigger import EndFromTrigger, ends_from_trigger
from airflow_provider_flux.tasks.pending import (
    PendingPrediction,
    check_poll_interval,
    default_wait_before_defer,
    ended_status,
)
from airflow_provider_flux.tasks.results import publish_id, settle
from airflow_provider_flux.triggers.defer import defer_until_ended

if TYPE_CHECKING:
    from os import PathLike

    from airflow.sdk import BaseOperatorLink, Context, ObjectStoragePath

    from airflow_provider_flux.protocol.prediction import Prediction

DEFAULT_POKE_INTERVAL = 10.0
"""Seconds between two looks of a sensor that does not defer."""


TRIGGER_FAILED = "__fail__"
TRIGGER_TIMEOUT = "Trigger timeout"
"""How Airflow resumes a task whose deferral it has ended (task SDK, bases/operator.py)."""

CLOSER_LOOK = 4.0
CLOSER_INTERVAL = 1.0
"""Seconds for which, and in which steps, an answer is looked at again whose status and output do not fit together."""


class FluxPredictionSensor(PredictionTask, BaseSensorOperator):
    """Wait for a prediction that was made elsewhere.

    Never makes or cancels a prediction, so that it can be retried and cleared at no cost. Its ``return_value`` is the
    list of output URLs; ``prediction_id``, ``flux_result`` and ``output_url`` are pushed as by
    :class:`~airflow_provider_flux.operators.flux.FluxPredictionOperator`.

    :param prediction_id: which prediction; takes the operator's ``output``.
    :param flux_conn_id: connection of type ``flux``, of the account that made the prediction.
    :param deferrable: wait in the triggerer.
    :param poll_interval: exactly this many seconds between the triggerer's polls; fitted to the model if not given.
    :param end_from_trigger: let a success end the task in the triggerer, which spares a second start on a worker.
        ``auto`` does so unless something would be dropped, as ``docs/behaviour.md`` lists it: outlets, an
        ``on_success_callback``, a ``post_execute``, a listener that is told of successes, and the like. Failures
        always resume on a worker.
    :param output_path: store the pictures below this folder (``s3://conn@bucket/prefix``, a local path, anything
        ``ObjectStoragePath`` takes) and return their paths.
    :param output_sidecar: write a JSON file with prompt, model, seed and times next to them.
    :param poke_interval: seconds between two looks if the sensor does not defer.
    :param timeout: how long to wait in all. As with any sensor, a sensor that has timed out is not retried.
    """

    template_fields: Sequence[str] = ("prediction_id", "flux_conn_id", "output_path")
    operator_extra_links: Sequence[BaseOperatorLink] = (FluxPredictionLink(), FluxPicturesLink())
    ui_color = "#e6f1fb"

    def __init__(
        self,
        *,
        prediction_id: str,
        flux_conn_id: str = FluxHook.default_conn_name,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float | None = None,
        end_from_trigger: EndFromTrigger = "auto",
        output_path: str | PathLike[str] | ObjectStoragePath | None = None,
        output_sidecar: bool = False,
        poke_interval: Any = DEFAULT_POKE_INTERVAL,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        leave_to_plugin(self)
        self.prediction_id = prediction_id
        self.flux_conn_id = flux_conn_id
        self.deferrable = deferrable
        check_poll_interval(poll_interval)
        self.poll_interval = poll_interval
        self._choose_ending(end_from_trigger)
        self.output_path = output_path
        self._stores_pictures = output_path is not None
        self.output_sidecar = output_sidecar
        self._deadline: float | None = None
        self._doubtful_looks = 0
        self._in_trouble = False

    def execute(self, context: Context) -> Any:
        """Wait for the prediction."""
        if not self.deferrable:
            # A leg of a rescheduled sensor that sees nothing leaves the link of the leg before.
            self.prediction_page = None
            self._deadline = time.time() + self.timeout
            return super().execute(context)
        allowed = self.timeout
        if self.execution_timeout is not None:
            allowed = min(allowed, self.execution_timeout.total_seconds())
        # Airflow's own way to resume turns errors into skips where soft_fail or never_fail say so.
        return self.resume_execution("look_and_defer", {"deadline": time.time() + allowed}, context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume; where Airflow itself has ended the deferral, take a last look first."""
        timed_out = (next_kwargs or {}).get("error") == TRIGGER_TIMEOUT
        if next_method == TRIGGER_FAILED and timed_out:
            return super().resume_execution("look_a_last_time", {}, context)
        return super().resume_execution(next_method, next_kwargs, context)

    def look_a_last_time(self, context: Context) -> list[str]:
        """Look once, after no triggerer has done so to the deadline."""
        return self._settle_or_time_out(context, self._look(time.time(), self.poll_interval))

    def look_and_defer(self, context: Context, deadline: float) -> list[str]:
        """Look for a moment on the worker; go on waiting in the triggerer if that is not enough."""
        self._publish_id(context)
        self._deadline = deadline
        now = time.time()
        prediction = self._look(min(deadline, now + default_wait_before_defer("")), self.poll_interval)
        if prediction is not None and prediction.status.is_terminal:
            return self._settle(context, prediction)
        if time.time() >= deadline:
            raise self._timed_out()
        pending = PendingPrediction(
            prediction_id=self.prediction_id,
            flux_conn_id=self.flux_conn_id,
            model="" if prediction is None else prediction.model,
            submitted_at=self._made_at(prediction, now),
            deadline=deadline,
        )
        defer_until_ended(
            self,
            pending,
            poll_interval=self.poll_interval,
            cancel_on_kill=False,
            end_task=ends_from_trigger(self, self._ending, FluxPredictionSensor),
        )

    @staticmethod
    def _made_at(prediction: Prediction | None, now: float) -> float:
        """Return when the prediction was made, which can be long before anybody waits for it."""
        created_at = None if prediction is None else prediction.created_at
        return now if created_at is None else min(now, created_at)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> list[str]:
        """Go on where the trigger left off, to the end and on this worker."""
        pending = PendingPrediction.from_event(event)
        self.flux_conn_id, self.prediction_id = pending.flux_conn_id, pending.prediction_id
        self.prediction_page, self._deadline = None, pending.deadline
        status = ended_status(event)
        if status is None:
            prediction = self._look(pending.deadline, self.poll_interval)
        else:
            prediction = self.hook.get_ended_prediction(pending.prediction_id, status)
        return self._settle_or_time_out(context, prediction)

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Look once. Transient problems, and a few doubtful responses, count as "not yet"."""
        self._publish_id(context)
        try:
            # A deadline that has come lets the question be asked once.
            prediction = self.hook.get_prediction(self.prediction_id, deadline=time.time())
        except FluxRefusedError:
            raise
        except FluxGatewayError as error:
            self._bear(error, context)
            return False
        self._doubtful_looks, self._in_trouble = 0, False
        if prediction.status.is_terminal is not bool(prediction.outputs):
            # A status and an output that do not belong together; a closer look shows which of them lags behind.
            prediction = self._look(time.time() + CLOSER_LOOK, CLOSER_INTERVAL) or prediction
        self._show_page(prediction)
        if not prediction.status.is_terminal:
            self.log.info("Prediction %s: %s", prediction.id, prediction.status_word)
            return False
        return PokeReturnValue(is_done=True, xcom_value=self._settle(context, prediction))

    def _publish_id(self, context: Context) -> None:
        self.prediction_id = text_argument("prediction_id", self.prediction_id, "the id of a prediction")
        for problem in find_unstorable(self.prediction_id, "prediction_id"):
            raise FluxInputError(f"{problem}.")
        # Where pictures go is looked at before they are waited for.
        self._storage  # noqa: B018
        publish_id(context, self.prediction_id)

    def _look(self, deadline: float, poll_interval: float | None) -> Prediction | None:
        prediction = self.hook.wait_for_prediction(self.prediction_id, deadline=deadline, poll_interval=poll_interval)
        self._show_page(prediction)
        return prediction

    def _show_page(self, prediction: Prediction | None) -> None:
        super()._show_page(prediction)
        if self.prediction_page and prediction is not None and not prediction.status.is_terminal:
            # Unlike an operator, a sensor that waits has told of nothing else that names the page.
            self.operator_extra_links = (FluxPredictionLink(),)

    def _bear(self, error: FluxGatewayError, context: Context) -> None:
        """Take an error of a look for "not yet", unless it has been doubtful for too long."""
        if not self._in_trouble:
            self.log.warning("%s Looking again.", error)
        self._in_trouble = True
        self._doubtful_looks += error.is_doubtful
        for_too_long = self._doubtful_looks >= DOUBTFUL_LIMIT
        if error.is_doubtful and self.reschedule:
            # A rescheduled sensor forgets what it has counted, but Airflow knows since when it looks.
            ti: Any = context["ti"]
            first = ti.get_first_reschedule_date(context)
            for_too_long = first is not None and time.time() - first.timestamp() > DOUBTFUL_LIMIT * self.poke_interval
        if for_too_long:
            raise FluxRefusedError(str(error), error.failure) from error

    def _timed_out(self) -> AirflowSensorTimeout:
        return AirflowSensorTimeout(
            f"Prediction {self.prediction_id} has not ended within the sensor's timeout of {self.timeout:g} s. "
            "It goes on; clear this sensor to wait for it again."
        )

    def _settle_or_time_out(self, context: Context, prediction: Prediction | None) -> list[str]:
        if prediction is None or not prediction.status.is_terminal:
            raise self._timed_out()
        return self._settle(context, prediction)

    def _settle(self, context: Context, prediction: Prediction) -> list[str]:
        try:
            return settle(context, prediction, self.hook.access, storage=self._storage, deadline=self._deadline)
        except FluxPredictionError as error:
            # Trying again would only find the same end.
            raise AirflowFailException(f"{error} Clear the task that made it to make another.") from error
