"""Handing a wait from the worker to the triggerer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_flux.tasks.pending import PendingPrediction

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator


TRIGGER = "airflow_provider_flux.triggers.flux.FluxPredictionTrigger"


@dataclass(frozen=True, kw_only=True)
class SerializedTrigger:
    """The trigger as Airflow stores it: a worker only hands it on, and its class takes a good while to import.

    The arguments are those of :class:`~airflow_provider_flux.triggers.flux.FluxPredictionTrigger`.
    """

    pending: PendingPrediction
    poll_interval: float | None
    cancel_on_kill: bool
    end_task: bool
    push_return_value: bool

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make the trigger."""
        arguments = asdict(self)
        return TRIGGER, {**arguments.pop("pending"), **arguments}


def defer_until_ended(
    task: BaseOperator,
    pending: PendingPrediction,
    *,
    poll_interval: float | None,
    cancel_on_kill: bool,
    end_task: bool,
) -> NoReturn:
    """Leave the worker; the task goes on in its ``execute_complete`` once the trigger has fired.

    :param end_task: let the trigger end the task instead, should the prediction succeed.
    """
    task.log.info("Prediction %s: waiting for it in the triggerer", pending.prediction_id)
    task.defer(
        trigger=SerializedTrigger(  # type: ignore[arg-type]
            pending=pending,
            poll_interval=poll_interval,
            cancel_on_kill=cancel_on_kill,
            end_task=end_task,
            push_return_value=task.do_xcom_push,
        ),
        method_name="execute_complete",
        timeout=pending.safety_timeout,
    )
