"""What a try does about the prediction of an earlier one: the record of a submission, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from airflow_provider_flux.protocol.classify import can_pass
from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.prediction import CANCELED, Prediction, PredictionStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionRecord:
    """What is known of a submission.

    :param fingerprint: stands for gateway, model and input, so that a changed row is not given an old picture.
    :param generation: changes when a person clears the task, and not when Airflow retries it.
    :param try_number: the try that sent the create.
    :param sent_at: when the create was about to be sent, in seconds since the epoch.
    :param prediction_id: None as long as nobody knows whether there is a prediction.
    :param told: whether an error has said so, and what clearing the task may cost.
    :param sent_as: what was sent in the place of pictures, as :func:`.picture_inputs.sent_as` names it.
    :param billed: what the answer to the create has told of its price (BFL only).
    :param attempt: which of the ways to make the picture was submitted: 0, or the number of a fallback.
    :param passed: the ways before it, and why they have made no picture: objects with ``model``, ``gateway``,
        ``reason`` and ``error``.
    """

    fingerprint: str
    generation: int
    try_number: int
    sent_at: float
    prediction_id: str | None = None
    told: bool = False
    sent_as: str = ""
    billed: Mapping[str, JSON] = field(default_factory=dict)
    attempt: int = 0
    passed: Sequence[Mapping[str, JSON]] = field(default_factory=list)

    @classmethod
    def from_stored(cls, stored: Mapping[str, JSON]) -> SubmissionRecord:
        """Read what was stored. Fields that a later version has added are left out."""
        return cls(**{name: stored[name] for name in cls.__slots__ if name in stored})


class Step(Enum):
    """What to do about a record."""

    SUBMIT = "submit"
    LOOK_UP = "look up"
    REFUSE = "refuse"
    ASK = "ask"
    ATTACH = "attach"
    CANCEL_AND_SUBMIT = "cancel and submit"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumePolicy:
    """Who asks, and what may be done about a record that is found.

    :param generation: of this try; changes when a person clears the task.
    :param try_number: counts Airflow's tries.
    :param can_list: whether the gateway lists predictions.
    :param resubmits: whether the caller takes the risk of paying twice where nobody can know.
    """

    generation: int = 0
    try_number: int = 1
    can_list: bool
    resubmits: bool

    def takes_the_risk(self, record: SubmissionRecord) -> bool:
        """Tell whether a person has been told of an unknown outcome, and has cleared the task since."""
        return record.told and record.generation != self.generation

    def is_of_an_earlier_try(self, record: SubmissionRecord | None) -> bool:
        """Tell whether a record was made by another try than this one."""
        return record is not None and (record.generation, record.try_number) != (self.generation, self.try_number)


def decide(
    record: SubmissionRecord | None,
    *,
    fingerprint: str,
    policy: ResumePolicy,
    seen: Prediction | None = None,
    gone: bool = False,
) -> Step:
    """Decide what a try does about the record it finds.

    ============================================ =================== =======================================
    Record                                       Prediction          Step
    ============================================ =================== =======================================
    none                                                             submit
    intent of another input                                          submit
    intent, gateway lists predictions                                look up
    intent, ``on_unknown_submission="resubmit"``                     submit
    intent, told and task cleared since                              submit: a person took the risk
    intent                                                           refuse: nobody can know
    id                                           not asked for yet   ask
    id of another input                          running             cancel and submit
    id of another input                          ended or gone       submit
    id                                           running             attach: wait for it
    id                                           succeeded           attach: use its pictures
    id, task cleared since                       succeeded, expired  submit
    id                                           succeeded, expired  attach: the error says so
    id                                           failed for good     attach: the error says so
    id, task cleared since                       failed for good     submit
    id                                           failed, canceled    submit
    id, task cleared since                       gone                submit
    id                                           gone                attach: the error says so
    ============================================ =================== =======================================

    :param record: what was saved.
    :param fingerprint: of what this try would submit.
    :param policy: of this try.
    :param seen: the recorded prediction as the gateway describes it now.
    :param gone: whether the gateway says that it knows no such prediction.
    """
    if record is None:
        return Step.SUBMIT
    same_input = record.fingerprint == fingerprint
    if record.prediction_id is None:
        return _decide_on_intent(record, same_input, policy)
    if seen is None and not gone:
        return Step.ASK
    if same_input:
        return _decide_on_prediction(seen, cleared=record.generation != policy.generation)
    return Step.CANCEL_AND_SUBMIT if seen is not None and not seen.status.is_terminal else Step.SUBMIT


def _decide_on_intent(record: SubmissionRecord, same_input: bool, policy: ResumePolicy) -> Step:
    if not same_input:
        return Step.SUBMIT
    if policy.can_list:
        return Step.LOOK_UP
    return Step.SUBMIT if policy.resubmits or policy.takes_the_risk(record) else Step.REFUSE


def _decide_on_prediction(seen: Prediction | None, *, cleared: bool) -> Step:
    if seen is None or _is_at_its_end(seen):
        return Step.SUBMIT if cleared else Step.ATTACH
    ended_without_picture = seen.status.is_terminal and seen.status is not PredictionStatus.SUCCEEDED
    return Step.SUBMIT if ended_without_picture else Step.ATTACH


def _is_at_its_end(prediction: Prediction) -> bool:
    """Tell whether neither waiting nor trying again can bring a picture: expired, or failed for good."""
    if prediction.status is PredictionStatus.SUCCEEDED:
        return not prediction.outputs
    return prediction.status is PredictionStatus.FAILED and not can_pass(prediction.error or "")


def can_be_handed_on(prediction: Prediction) -> bool:
    """Tell whether a prediction needs no more waiting. A success without output is not believed at first sight."""
    return (
        bool(prediction.outputs) if prediction.status is PredictionStatus.SUCCEEDED else prediction.status.is_terminal
    )


def was_canceled_under(prediction: Prediction, record: SubmissionRecord | None, policy: ResumePolicy) -> bool:
    """Tell whether a prediction that a try has gone on with was canceled for the sake of the try before.

    Clearing or ending a task cancels its prediction, maybe just after the next try has found it.
    """
    return prediction.status in CANCELED and policy.is_of_an_earlier_try(record)
