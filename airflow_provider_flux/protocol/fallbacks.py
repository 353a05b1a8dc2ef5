"""Which way to make a picture comes next, where one has not made it and certainly costs nothing more.

============================================================== ===================
What became of a way                                           Cause
============================================================== ===================
create refused: no channel, key, forbidden, no such model      ``unavailable``
create refused: too many requests, past ``patience``           ``unavailable``
create never accepted: no connection, certificate, proxy       ``unavailable``
create lost, and the gateway's list shows that it made nothing ``unavailable``
create refused: no credit                                      ``credit``
create refused for its content                                 ``refused_content``
prediction failed for its content                              ``refused_content``
prediction failed                                              ``failed``
prediction aborted, or canceled at our deadline                ``deadline``
create refused for its input                                   none: a person has to mend it
create lost                                                    none: it may have been paid for
prediction canceled by anybody else, or still running          none
============================================================== ===================
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum
from typing import Literal, TypeAlias

from airflow_provider_flux.protocol.classify import Reason, is_content_refusal
from airflow_provider_flux.protocol.flows import CallFailed
from airflow_provider_flux.protocol.gateways import Gateway
from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus

FallbackCause: TypeAlias = Literal["unavailable", "credit", "failed", "refused_content", "deadline"]
"""For what another way is taken."""


class Cause(str, Enum):
    """Why a way has not made the picture."""

    UNAVAILABLE = "unavailable"
    CREDIT = "credit"
    FAILED = "failed"
    REFUSED_CONTENT = "refused_content"
    DEADLINE = "deadline"


USUAL_CAUSES: tuple[FallbackCause, ...] = ("unavailable", "credit", "failed")
"""For these the next way is taken, unless something else is asked for."""

_OF_REFUSAL = {
    Reason.KEY: Cause.UNAVAILABLE,
    Reason.FORBIDDEN: Cause.UNAVAILABLE,
    Reason.MODEL: Cause.UNAVAILABLE,
    Reason.NOT_FOUND: Cause.UNAVAILABLE,
    Reason.CERTIFICATE: Cause.UNAVAILABLE,
    Reason.SETTING: Cause.UNAVAILABLE,
    Reason.RATE_LIMITED: Cause.UNAVAILABLE,
    Reason.OUTAGE: Cause.UNAVAILABLE,
    Reason.NETWORK: Cause.UNAVAILABLE,
    Reason.MALFORMED: Cause.UNAVAILABLE,
    Reason.CREDIT: Cause.CREDIT,
    Reason.CONTENT: Cause.REFUSED_CONTENT,
}


PASSED_LIMIT = 300
"""How many characters are kept of why a way has not made the picture."""


class NotAccepted(CallFailed):
    """A create has certainly made nothing."""


def cause_of_refusal(failed: CallFailed) -> Cause | None:
    """Return why a call has not made the picture; None if another way must not be taken for it."""
    return _OF_REFUSAL.get(failed.failure.reason) if isinstance(failed, NotAccepted) else None


def cause_of_end(prediction: Prediction) -> Cause | None:
    """Return why a prediction that has ended has no picture; None if another way must not be taken for it."""
    if prediction.status is PredictionStatus.ABORTED:
        return Cause.DEADLINE
    if prediction.status is not PredictionStatus.FAILED:
        return None
    return Cause.REFUSED_CONTENT if is_content_refusal(prediction.error or "") else Cause.FAILED


def may_follow_unavailable(at: int, *, count: int, on: Collection[str]) -> bool:
    """Tell whether another way is taken, should this one not be had."""
    return next_way(at, Cause.UNAVAILABLE, count=count, on=on) is not None


def passed_over(model: str, gateway: Gateway, cause: Cause | None, error: str) -> dict[str, JSON]:
    """Return what is kept of a way that has not made the picture.

    :param error: what happened, in a few words.
    """
    reason = None if cause is None else cause.value
    return {"model": model, "gateway": gateway.preset.name, "reason": reason, "error": error}


def next_way(at: int, cause: Cause | None, *, count: int, on: Collection[str]) -> int | None:
    """Return which way comes next; None if none does.

    :param at: the way that has not made the picture, from 0.
    :param cause: why it has not.
    :param count: how many ways there are.
    :param on: the causes for which the next one is taken.
    """
    return at + 1 if cause is not None and cause.value in on and at + 1 < count else None
