"""Handing a wait from the worker to the triggerer."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, NoReturn

from airflow_provider_flux.tasks.pending import PendingPrediction

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator


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
    # Not where a DAG is only parsed: the triggerer's base class takes a good part of a second to import.
    from airflow_provider_flux.triggers.flux import FluxPredictionTrigger

    task.log.info("Prediction %s: waiting for it in the triggerer", pending.prediction_id)
    task.defer(
        trigger=FluxPredictionTrigger(
            **asdict(pending),
            poll_interval=poll_interval,
            cancel_on_kill=cancel_on_kill,
            end_task=end_task,
            push_return_value=task.do_xcom_push,
        ),
        method_name="execute_complete",
        timeout=pending.safety_timeout,
    )
