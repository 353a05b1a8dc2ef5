"""One prediction for one task, whatever dies in between: the record of a submission, and what follows from it.

Before a create is sent, an intent is written into Airflow's task state store (Airflow 3.3 and later); the prediction's
id is added the moment it is known. The store outlives retries, clears, workers and triggerers, so that the next try
finds what the last one paid for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_flux.protocol.gateways import Gateway
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus
from airflow_provider_flux.protocol.verdicts import can_pass
from airflow_provider_flux.protocol.wire import JSON

if TYPE_CHECKING:
    from airflow.sdk import Context

RECORD_KEY = "flux_prediction"
"""Name of the record in the task state store. Never renamed: a new version must find what an old one paid for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionRecord:
    """What is known of a submission.

    :param fingerprint: stands for gateway, model and input, so that a changed row is not given an old picture.
    :param generation: changes when a person clears the task, and not when Airflow retries it.
    :param try_number: the try that sent the create.
    :param sent_at: when the create was about to be sent, in seconds since the epoch.
    :param prediction_id: None as long as nobody knows whether there is a prediction.
    :param told: whether an error has said so, and what clearing the task may cost.
    """

    fingerprint: str
    generation: int
    try_number: int
    sent_at: float
    prediction_id: str | None = None
    told: bool = False


class Step(Enum):
    """What to do about a record."""

    SUBMIT = "submit"
    LOOK_UP = "look up"
    REFUSE = "refuse"
    ASK = "ask"
    ATTACH = "attach"
    CANCEL_AND_SUBMIT = "cancel and submit"


def decide(
    record: SubmissionRecord | None,
    *,
    fingerprint: str,
    generation: int,
    can_list: bool,
    resubmits: bool,
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

    :param record: what the store holds.
    :param fingerprint: of what this try would submit.
    :param generation: of this try.
    :param can_list: whether the gateway lists predictions.
    :param resubmits: whether the caller takes the risk of paying twice.
    :param seen: the recorded prediction as the gateway describes it now.
    :param gone: whether the gateway says that it knows no such prediction.
    """
    if record is None:
        return Step.SUBMIT
    same_input = record.fingerprint == fingerprint
    cleared = record.generation != generation
    if record.prediction_id is None:
        takes_the_risk = resubmits or (cleared and record.told)
        return _decide_on_intent(same_input, can_list, takes_the_risk)
    if seen is None and not gone:
        return Step.ASK
    if same_input:
        return _decide_on_prediction(seen, cleared)
    return Step.CANCEL_AND_SUBMIT if seen is not None and not seen.status.is_terminal else Step.SUBMIT


def _decide_on_intent(same_input: bool, can_list: bool, takes_the_risk: bool) -> Step:
    if not same_input:
        return Step.SUBMIT
    if can_list:
        return Step.LOOK_UP
    return Step.SUBMIT if takes_the_risk else Step.REFUSE


def _decide_on_prediction(seen: Prediction | None, cleared: bool) -> Step:
    if seen is None or _is_at_its_end(seen):
        return Step.SUBMIT if cleared else Step.ATTACH
    ended_without_picture = seen.status.is_terminal and seen.status is not PredictionStatus.SUCCEEDED
    return Step.SUBMIT if ended_without_picture else Step.ATTACH


def _is_at_its_end(prediction: Prediction) -> bool:
    """Tell whether neither waiting nor trying again can bring a picture: expired, or failed for good."""
    if prediction.status is PredictionStatus.SUCCEEDED:
        return not prediction.outputs
    return prediction.status is PredictionStatus.FAILED and not can_pass(prediction.error or "")


def fingerprint_of(gateway: Gateway, model: str, input: Mapping[str, JSON]) -> str:
    """Return a short name for what is submitted, the same on every machine."""
    whole = json.dumps([gateway.origin, gateway.prefix, model, input], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(whole.encode()).hexdigest()[:32]


class _Store(Protocol):
    """Airflow's task state store, as far as it is used here."""

    def get(self, key: str) -> Any: ...
    def set(self, key: str, value: Any) -> None: ...
    def delete(self, key: str) -> None: ...


class SubmissionRecords:
    """The record of one task in Airflow's task state store.

    :param store: None where there is no store (Airflow 3.1 and 3.2), or none is wanted: then nothing is remembered.
    """

    def __init__(self, store: _Store | None) -> None:
        self._store = store

    @classmethod
    def of_task(cls, context: Context, *, durable: bool) -> SubmissionRecords:
        """Return the records of the running task."""
        # Asked for by what is there, not by version: the store came with Airflow 3.3.
        store: Any = context.get("task_state_store") if durable else None
        return cls(store)

    @property
    def are_kept(self) -> bool:
        """Whether a later try will find them."""
        return self._store is not None

    def read(self) -> SubmissionRecord | None:
        """Return the record, or None if there is none."""
        stored = self._store.get(RECORD_KEY) if self._store is not None else None
        return SubmissionRecord(**stored) if isinstance(stored, dict) else None

    def write(self, record: SubmissionRecord) -> None:
        """Keep a record in place of the one before."""
        if self._store is not None:
            self._store.set(RECORD_KEY, asdict(record))

    def add_id(self, record: SubmissionRecord, prediction_id: str) -> None:
        """Add the id to an intent."""
        self.write(replace(record, prediction_id=prediction_id))

    def note_told(self, record: SubmissionRecord) -> None:
        """Note that an error tells of an intent whose outcome nobody knows."""
        self.write(replace(record, told=True))

    def forget(self) -> None:
        """Remove the record of a create that is known to have made nothing."""
        if self._store is not None:
            self._store.delete(RECORD_KEY)
