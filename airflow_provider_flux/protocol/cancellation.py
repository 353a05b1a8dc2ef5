"""Canceling a prediction that nobody waits for any more, and saying plainly what came of it."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_flux.protocol.flows import CallFailed, Conversation, Flow
from airflow_provider_flux.protocol.prediction import CANCELED, Prediction, PredictionStatus

CANCEL_PATIENCE = 30.0
"""Seconds for which a cancel is tried when nobody is in a hurry."""

KILL_PATIENCE = 4.0
"""Seconds. A worker that is told to stop is killed 5 s later (Airflow's supervisor)."""

CANCEL_AFTER_MARGIN = 30.0
"""Seconds by which the service's own end of a prediction comes after the deadline that the task keeps itself."""


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What came of a cancel.

    :param prediction: the prediction as the gateway then described it; None if it did not.
    :param report: what came of it, for people.
    """

    prediction: Prediction | None
    report: str

    @property
    def canceled(self) -> bool:
        """Whether the gateway confirms it; otherwise the prediction may go on and be billed."""
        return self.prediction is not None and self.prediction.status in CANCELED

    @property
    def succeeded(self) -> bool:
        """Whether the prediction has succeeded before it could be canceled."""
        return self.prediction is not None and self.prediction.status is PredictionStatus.SUCCEEDED


class NotInTime(Exception):
    """The prediction did not end by its deadline.

    :param cancellation: what came of canceling it; None if it was left alone.
    """

    def __init__(self, prediction_id: str, cancellation: Cancellation | None) -> None:
        report = (
            "It goes on and may be billed, as cancel_on_timeout=False says."
            if cancellation is None
            else cancellation.report
        )
        super().__init__(f"Prediction {prediction_id} did not end in time. {report}")
        self.prediction_id = prediction_id
        self.canceled = cancellation is not None and cancellation.canceled


def cancel(conversation: Conversation, prediction_id: str, *, patience: float | None = None) -> Flow[Cancellation]:
    """Try to cancel a prediction. Never raises for what the gateway does.

    Only Replicate documents a cancel; DeerAPI and CometAPI may have none, which the report then says.

    :param patience: seconds for which transient problems are retried; half a minute if not given.
    """
    deadline = conversation.clock() + (CANCEL_PATIENCE if patience is None else patience)
    try:
        seen = yield from conversation.cancel(prediction_id, deadline=deadline)
    except CallFailed as failed:
        return Cancellation(
            None, f"Prediction {prediction_id} could not be canceled ({failed.failure}). It goes on and may be billed."
        )
    return Cancellation(seen, _report(prediction_id, seen))


def give_up(conversation: Conversation, prediction_id: str, *, cancels: bool) -> Flow[Prediction]:
    """End the wait for a prediction at its deadline. Return it only if it turns out to have succeeded meanwhile.

    :param cancels: whether to cancel it.
    :raises NotInTime: in any other case.
    """
    if not cancels:
        raise NotInTime(prediction_id, None)
    cancellation = yield from cancel(conversation, prediction_id)
    if cancellation.succeeded and cancellation.prediction is not None:
        return cancellation.prediction
    raise NotInTime(prediction_id, cancellation)


def _report(prediction_id: str, seen: Prediction | None) -> str:
    if seen is None:
        return f"The gateway accepted the cancel of prediction {prediction_id} without saying what became of it."
    if seen.status in CANCELED:
        return f"Prediction {prediction_id} is canceled."
    if seen.status.is_terminal:
        return f"Prediction {prediction_id} had already ended: {seen.status.value}."
    return f"The gateway accepted the cancel of prediction {prediction_id}, which is still {seen.status.value}."
