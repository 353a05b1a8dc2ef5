"""How a wait is handed from the worker to the triggerer and back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_flux.exceptions import FluxEventError
from airflow_provider_flux.protocol.prediction import PredictionStatus
from airflow_provider_flux.protocol.run_times import seed_profile

if TYPE_CHECKING:
    pass

TIMED_OUT = "timed_out"
CANNOT_TELL = "cannot_tell"
"""Statuses of an event besides those of a prediction that has ended."""

SAFETY_MARGIN = timedelta(minutes=2)
"""How long after the deadline Airflow itself ends a deferral whose trigger was never run."""

QUICK_WAIT = 6.0
SLOW_WAIT = 2.0
HELD_BACK = 4.0
QUICK_SHARE = 0.9
"""Seconds, and a share. A model of whose runs this share ends within QUICK_WAIT is waited for on the worker, since a
deferral costs a second worker start; for the others a short look catches what fails at once, which would otherwise
make a trigger fire before the scheduler is ready for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingPrediction:
    """What must be known to go on waiting. Airflow stores and logs it as plain text, so it holds ids and numbers only.

    It travels in the trigger's arguments and comes back in its event, not in the deferral's own arguments, because
    ``dag.test()`` drops those (Airflow 3.1 to 3.3). It names the connection and the model, because a task's templates
    are rendered again when it resumes and need not give what they gave before.

    :param prediction_id: which prediction.
    :param flux_conn_id: the connection of the account that made it.
    :param model: fits the poll times; empty if not known.
    :param submitted_at: when it was made, in seconds since the epoch.
    :param deadline: when to give up, in seconds since the epoch: absolute, so that it outlives a restart.
    """

    prediction_id: str
    flux_conn_id: str
    model: str
    submitted_at: float
    deadline: float

    def event(self, status: str) -> dict[str, Any]:
        """Return the event with which the triggerer hands the task back."""
        return {"status": status, **{name: getattr(self, name) for name in self.__slots__}}

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> PendingPrediction:
        """Read the event that resumed a task.

        :raises FluxEventError: if it is not one of :meth:`event`. The prediction is left alone.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(event, Mapping) or not all(name in event for name in ("status", *names)):
            raise FluxEventError(f"The task was resumed with something that is not an event of its trigger: {event!r}.")
        return cls(**{name: event[name] for name in names})

    @property
    def safety_timeout(self) -> timedelta:
        """After how long Airflow should end the deferral by itself."""
        return timedelta(seconds=max(0.0, self.deadline - time.time())) + SAFETY_MARGIN


def check_poll_interval(poll_interval: float | None) -> None:
    """Refuse an interval that would ask the gateway without a pause.

    :raises ValueError: when the DAG is parsed.
    """
    if poll_interval is not None and not poll_interval > 0:
        raise ValueError(f"poll_interval must be a number of seconds above 0, not {poll_interval!r}")


def check_timeout(timeout: float | timedelta) -> None:
    """Refuse a wait that ends before it begins, after the prediction is paid for.

    :raises ValueError: when the DAG is parsed.
    """
    if not (timeout.total_seconds() if isinstance(timeout, timedelta) else timeout) > 0:
        raise ValueError(f"timeout must be longer than nothing, not {timeout!r}")


def ended_status(event: Mapping[str, Any]) -> PredictionStatus | None:
    """Return how the prediction ended as the trigger saw it; None if it did not see an end."""
    if event["status"] not in set(PredictionStatus):
        return None
    status = PredictionStatus(event["status"])
    return status if status.is_terminal else None


def default_wait_before_defer(model: str) -> float:
    """Return how many seconds to wait on the worker before deferring, fitted to the model.

    A worker runs one task and ends, so it knows the model from the published figures only.
    """
    return QUICK_WAIT if _is_quick(model) else SLOW_WAIT


def _is_quick(model: str) -> bool:
    return seed_profile(model).ended_by(QUICK_WAIT) >= QUICK_SHARE


def wait_on_create(model: str) -> float | None:
    """Return for how many seconds the answer to a create may be held back; None for a model that takes longer.

    Less than the five seconds that Airflow gives a task to end once it is told to: until the answer has come, there is
    no id by which the prediction could be canceled.
    """
    return HELD_BACK if _is_quick(model) else None
