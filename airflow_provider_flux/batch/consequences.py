"""What a row's failure means for the row and for the batch."""

from __future__ import annotations

from enum import Enum

from airflow_provider_flux.protocol.classify import Reason, Verdict
from airflow_provider_flux.protocol.flows import CallFailed

CONNECTION_AT_FAULT = frozenset(
    {Reason.KEY, Reason.CREDIT, Reason.FORBIDDEN, Reason.WRONG_URL, Reason.CERTIFICATE, Reason.SETTING}
)
"""Reasons that every other row would meet as well."""


class NotStartedError(Exception):
    """The row is left as it was, because the batch stops."""


class LeftError(Exception):
    """The row is left in flight, for another try."""


class Consequence(Enum):
    """What follows from a failed call of a row."""

    ROW_FAILS = "the row fails"
    STOP_NOT_STARTED = "the batch stops; the row is as if it had not begun"
    STOP_IN_FLIGHT = "the batch stops; the row is left in flight"


def consequence_of(failed: CallFailed, *, is_submitted: bool) -> Consequence:
    """Decide what follows from a failed call.

    ================================= ======================= ================
    Failure                           Nothing submitted       Submitted
    ================================= ======================= ================
    the connection is at fault        stop, not started       stop, in flight
    the gateway cannot be reached     stop, not started       row fails
    any other refusal                 row fails               row fails
    ================================= ======================= ================

    :param is_submitted: whether there is a prediction, or may be one.
    """
    if failed.failure.reason in CONNECTION_AT_FAULT:
        return Consequence.STOP_IN_FLIGHT if is_submitted else Consequence.STOP_NOT_STARTED
    if is_submitted or failed.verdict is Verdict.REFUSED:
        return Consequence.ROW_FAILS
    return Consequence.STOP_NOT_STARTED
