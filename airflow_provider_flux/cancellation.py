"""Canceling a prediction that nobody waits for any more, and saying plainly what came of it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from airflow_provider_flux.access import GatewayAccess
from airflow_provider_flux.protocol.flows import CallFailed, Conversation
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus
from airflow_provider_flux.protocol.wire import Log

KILL_PATIENCE = 4.0
"""Seconds. A worker that is told to stop is killed 5 s later (Airflow's supervisor)."""

CANCEL_AFTER_MARGIN = 30.0
"""Seconds by which the service's own end of a prediction comes after the deadline that the task keeps itself."""


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What came of a cancel.

    :param canceled: whether the gateway confirms it; otherwise the prediction may go on and be billed.
    :param prediction: the prediction as the gateway then described it; None if it did not.
    :param report: the same for people.
    """

    canceled: bool
    prediction: Prediction | None
    report: str


def cancel(access: GatewayAccess, prediction_id: str, log: Log, *, patience: float = KILL_PATIENCE) -> Cancellation:
    """Try to cancel a prediction. Never raises for what the gateway does.

    Only Replicate documents a cancel; DeerAPI and CometAPI may have none, which the report then says. Uses a session of
    its own and no lookup, so that it is safe inside a signal handler.

    :param patience: seconds for which passing trouble is borne.
    """
    from airflow_provider_flux.client.sync import run

    flow = Conversation(access.gateway, log).cancel(prediction_id, deadline=time.time() + patience)
    try:
        prediction = run(flow, access)
    except CallFailed as failed:
        report = f"Prediction {prediction_id} could not be canceled ({failed.failure}). It goes on and may be billed."
        return Cancellation(canceled=False, prediction=None, report=report)
    if prediction is None:
        report = f"The gateway accepted the cancel of prediction {prediction_id} without saying what became of it."
        return Cancellation(canceled=False, prediction=None, report=report)
    if prediction.status in (PredictionStatus.CANCELED, PredictionStatus.ABORTED):
        return Cancellation(canceled=True, prediction=prediction, report=f"Prediction {prediction_id} is canceled.")
    if prediction.status.is_terminal:
        report = f"Prediction {prediction_id} had already ended: {prediction.status.value}."
        return Cancellation(canceled=False, prediction=prediction, report=report)
    report = f"The gateway accepted the cancel of prediction {prediction_id}, which is still {prediction.status.value}."
    return Cancellation(canceled=False, prediction=prediction, report=report)
