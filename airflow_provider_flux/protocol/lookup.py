"""What a create has made whose answer nobody saw, as a gateway's list of predictions tells it (Replicate only).

A list tells for certain only once a prediction that was made would be in it. Until then, and where several predictions
could be the one, or the list cannot be read, nothing is sent again on its word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from airflow_provider_flux.protocol.classify import Failure, Verdict
from airflow_provider_flux.protocol.flows import CallFailed, Conversation, Flow, Sleep
from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus

LOOKS_AFTER = (1.0, 5.0, 15.0, 30.0, 60.0)
"""Seconds after a create at which the list is read. A prediction that is not in it after the last was not made."""

CLOCK_SKEW = 30.0
"""Seconds by which the gateway's clock may differ from this machine's."""

GRACE = 5.0
"""Seconds that reading the list is given even after the deadline, which the lost create has used up."""


class OutcomeUnknown(CallFailed):
    """Nobody can know whether a create has made a prediction.

    :param failure: how its answer was lost, or why the list does not tell; None if the worker ended before it came.
    :param sent_at: when it was sent, in seconds since the epoch.
    :param candidates: ids of the predictions of which any could be the one.
    :param resent: whether this is the second create in a row, as ``on_unknown_submission="resubmit"`` wanted it.
    """

    def __init__(
        self, failure: Failure, sent_at: float, *, candidates: Sequence[str] = (), resent: bool = False
    ) -> None:
        super().__init__(failure, Verdict.UNKNOWN)
        self.sent_at = sent_at
        self.candidates = candidates
        self.resent = resent


@dataclass(frozen=True, slots=True)
class Match:
    """What the list tells of creates with one and the same input.

    :param made: the predictions that they made, one for each of the first creates. Which is whose makes no difference.
    :param not_made: how many of the last creates have made nothing, for certain.
    :param candidates: the predictions of which any could be any create's; then nothing else is told.
    """

    made: Sequence[Prediction] = field(default_factory=tuple)
    not_made: int = 0
    candidates: Sequence[Prediction] = field(default_factory=tuple)


def match(sent_at: Sequence[float], candidates: Sequence[Prediction], *, asked_at: float) -> Match:
    """Decide what the list tells of creates with one and the same input.

    ============================ =========================== ==========================================
    Predictions in the list      Asked                       What is told
    ============================ =========================== ==========================================
    more than creates                                        any could be theirs: nothing is sent again
    as many as creates                                       each create has made one
    fewer, or none               before the last look        of the last creates nothing yet
    fewer, or none               at the last look, or later  the last creates have made nothing
    ============================ =========================== ==========================================

    :param sent_at: when each create was sent, in seconds since the epoch.
    :param candidates: predictions with just this input, made since, that belong to nobody else.
    :param asked_at: when the list was asked for.
    """
    if len(candidates) > len(sent_at):
        return Match(candidates=candidates)
    left = sorted(sent_at)[len(candidates) :]
    return Match(made=candidates, not_made=sum(asked_at >= moment + LOOKS_AFTER[-1] for moment in left))


def next_look(sent_at: float, now: float) -> float:
    """Return in how many seconds the list is to be read for a create; at once after the last look."""
    return next((sent_at + after - now for after in LOOKS_AFTER if sent_at + after > now), 0.0)


def identity(model: str, input: Mapping[str, JSON]) -> str:
    """Return what two predictions of one input share: numbers that are equal in JSON are written the same."""
    return json.dumps([model, _plain_numbers(input)], sort_keys=True, separators=(",", ":"))


def could_be_made(prediction: Prediction, sent_at: float) -> bool:
    """Tell whether a create that was sent at a time can have made a prediction."""
    if prediction.created_at is None or prediction.created_at < sent_at - CLOCK_SKEW:
        return False
    ended = prediction.completed_at is not None and prediction.completed_at < sent_at
    return not ended or prediction.status is PredictionStatus.SUCCEEDED


def listed_since(conversation: Conversation, moment: float, *, deadline: float) -> Flow[list[Prediction]]:
    """Return the predictions made since a time, newest first.

    :raises CallFailed: if the list cannot be read, which is not the same as an empty one.
    """
    listed: list[Prediction] = []
    for page in conversation.list(deadline=deadline):
        for prediction in (yield from page):
            if prediction.created_at is None or prediction.created_at < moment - CLOCK_SKEW:
                return listed
            listed.append(prediction)
    return listed


def candidates_of(
    listed: Sequence[Prediction], model: str, input: Mapping[str, JSON], *, sent_at: float
) -> list[Prediction]:
    """Return those of listed predictions that a create of this input can have made."""
    sought = identity(model, input)
    return [
        prediction
        for prediction in listed
        if could_be_made(prediction, sent_at) and identity(prediction.model, prediction.input) == sought
    ]


def settle(
    conversation: Conversation,
    model: str,
    input: Mapping[str, JSON],
    *,
    sent_at: float,
    failure: Failure,
    deadline: float,
) -> Flow[Prediction | None]:
    """Find out from the list what a create has made.

    :param failure: how its answer was lost.
    :return: the prediction; None if the create has made none, for certain.
    :raises OutcomeUnknown: if the list cannot be read, or does not tell by the deadline.
    """
    until = max(deadline, conversation.clock() + GRACE)
    while True:
        asked_at = conversation.clock()
        wait = next_look(sent_at, asked_at) if asked_at < sent_at + LOOKS_AFTER[-1] else 0.0
        if asked_at + wait > until:
            raise OutcomeUnknown(failure, sent_at)
        yield Sleep(wait)
        asked_at = conversation.clock()
        try:
            listed = yield from listed_since(conversation, sent_at, deadline=until)
        except CallFailed as failed:
            raise OutcomeUnknown(failed.failure, sent_at) from failed
        told = match([sent_at], candidates_of(listed, model, input, sent_at=sent_at), asked_at=asked_at)
        if told.candidates:
            raise OutcomeUnknown(failure, sent_at, candidates=[prediction.id for prediction in told.candidates])
        if told.made:
            return told.made[0]
        if told.not_made:
            return None


def find_alive(
    conversation: Conversation, model: str, input: Mapping[str, JSON], *, since: float, deadline: float
) -> Flow[Prediction | None]:
    """Return the newest prediction of an input that still brings a picture, or has brought one; None if there is none.

    :raises CallFailed: if the list cannot be read.
    """
    listed = yield from listed_since(conversation, since, deadline=deadline)
    for prediction in candidates_of(listed, model, input, sent_at=since):
        is_alive = not prediction.status.is_terminal
        if is_alive or (prediction.status is PredictionStatus.SUCCEEDED and prediction.outputs):
            return prediction
    return None


def _plain_numbers(value: JSON) -> JSON:
    if isinstance(value, Mapping):
        return {name: _plain_numbers(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
