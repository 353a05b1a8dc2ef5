"""What a create has made whose answer nobody saw, as a gateway's list of predictions tells it (Replicate only).

A list tells for certain only once a prediction that was made would be in it. Until then, and where several predictions
could be the one, or the list cannot be read, nothing is sent again on its word.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from airflow_provider_flux.protocol import picture_inputs
from airflow_provider_flux.protocol.classify import Failure, Verdict
from airflow_provider_flux.protocol.fingerprint import plain_numbers
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


def match(
    sent_at: Sequence[float],
    candidates: Sequence[Prediction],
    *,
    asked_at: float,
    doubtful: Sequence[Prediction] = (),
) -> Match:
    """Decide what the list tells of creates with one and the same input.

    ============================ =========================== ==========================================
    Predictions in the list      Asked                       What is told
    ============================ =========================== ==========================================
    more than creates                                        any could be theirs: nothing is sent again
    as many as creates                                       each create has made one
    fewer, or none               before the last look        of the last creates nothing yet
    fewer, or none               at the last look, or later  the last creates have made nothing
    the same, and some do not    at the last look, or later  any could be theirs: nothing is sent again
    show whose they are
    ============================ =========================== ==========================================

    :param sent_at: when each create was sent, in seconds since the epoch.
    :param candidates: predictions with just this input, made since, that belong to nobody else.
    :param asked_at: when the list was asked for.
    :param doubtful: predictions of which the list does not show whether they are theirs.
    """
    if len(candidates) > len(sent_at):
        return Match(candidates=candidates)
    left = sorted(sent_at)[len(candidates) :]
    not_made = sum(asked_at >= moment + LOOKS_AFTER[-1] for moment in left)
    if not_made and doubtful:
        return Match(candidates=[*candidates, *doubtful])
    return Match(made=candidates, not_made=not_made)


def next_look(sent_at: float, now: float) -> float:
    """Return in how many seconds the list is to be read for a create; at once after the last look."""
    return next((sent_at + after - now for after in LOOKS_AFTER if sent_at + after > now), 0.0)


def identity(input: Mapping[str, JSON]) -> str:
    """Return what two predictions of one input share: numbers that are equal in JSON are written the same."""
    return json.dumps(plain_numbers(input), sort_keys=True, separators=(",", ":"))


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
    listed: Sequence[Prediction], model: str, input: Mapping[str, JSON], *, sent_at: float, sent_as: str = ""
) -> list[Prediction]:
    """Return those of listed predictions that a create of this input can have made.

    :param sent_as: what was sent in the place of its pictures, as :func:`.picture_inputs.sent_as` names it.
    """
    is_alike = _alike(model, input)
    return [
        prediction
        for prediction in listed
        if could_be_made(prediction, sent_at)
        and is_alike(prediction)
        and picture_inputs.sent_as(input, prediction.input) == sent_as
    ]


def doubtful_of(
    listed: Sequence[Prediction], model: str, input: Mapping[str, JSON], *, sent_at: float, files_url: str
) -> list[Prediction]:
    """Return those of listed predictions that a create can have made, though their inputs do not say so.

    Replicate deletes input and output an hour after the end (``data_removed``): a list that is read later does not
    show any more whose a prediction is. And a service may show another URL for a picture than was sent; only the URLs
    of its uploaded files are unlike for each create.

    :param files_url: how these begin; empty if the service takes no files.
    """
    until, is_alike = sent_at + LOOKS_AFTER[-1] + CLOCK_SKEW, _alike(model, input)
    return [
        prediction
        for prediction in listed
        if prediction.is_of(model)
        and could_be_made(prediction, sent_at)
        and (prediction.created_at or 0.0) <= until
        and (
            (prediction.data_removed and not prediction.input)
            or (is_alike(prediction) and _shows_other_urls(prediction, input, files_url))
        )
    ]


def _alike(model: str, input: Mapping[str, JSON]) -> Callable[[Prediction], bool]:
    """Return what tells whether a prediction has an input, but for its pictures."""
    sought = identity(picture_inputs.without_pictures(input, input))

    def is_alike(prediction: Prediction) -> bool:
        shown = picture_inputs.without_pictures(input, prediction.input)
        return prediction.is_of(model) and identity(shown) == sought

    return is_alike


def _shows_other_urls(prediction: Prediction, input: Mapping[str, JSON], files_url: str) -> bool:
    shown = picture_inputs.values_at_pictures(input, prediction.input)
    return bool(shown) and not all(files_url and str(value).startswith(files_url) for value in shown)


def settle(
    conversation: Conversation,
    model: str,
    input: Mapping[str, JSON],
    *,
    sent_at: float,
    failure: Failure,
    deadline: float,
    sent_as: str = "",
) -> Flow[Prediction | None]:
    """Find out from the list what a create has made.

    :param sent_as: what was sent in the place of the input's pictures, as :func:`.picture_inputs.sent_as` names it.
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
        told = match(
            [sent_at],
            candidates_of(listed, model, input, sent_at=sent_at, sent_as=sent_as),
            asked_at=asked_at,
            doubtful=doubtful_of(listed, model, input, sent_at=sent_at, files_url=conversation.gateway.files_url),
        )
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

    Of an input with pictures there is none: what was sent in their place is known to nobody any more.

    :raises CallFailed: if the list cannot be read.
    """
    listed = yield from listed_since(conversation, since, deadline=deadline)
    for prediction in candidates_of(listed, model, input, sent_at=since):
        is_alive = not prediction.status.is_terminal
        if is_alive or (prediction.status is PredictionStatus.SUCCEEDED and prediction.outputs):
            return prediction
    return None
