"""The decision about a record, row by row."""

from __future__ import annotations

import itertools
import re

import pytest

from airflow_provider_flux.protocol.fingerprint import fingerprint_of
from airflow_provider_flux.protocol.gateways import choose_gateway
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus
from airflow_provider_flux.protocol.resume import ResumePolicy, Step, SubmissionRecord, decide
from airflow_provider_flux.tasks.state_store import RECORD_KEY

INTENT = SubmissionRecord(fingerprint="same", generation=1, try_number=1, sent_at=0.0)
TOLD = SubmissionRecord(fingerprint="same", generation=1, try_number=1, sent_at=0.0, told=True)
KNOWN = SubmissionRecord(fingerprint="same", generation=1, try_number=1, sent_at=0.0, prediction_id="p")


def prediction(status: str, *, outputs: tuple[str, ...] = (), error: str | None = None) -> Prediction:
    return Prediction(id="p", status=PredictionStatus(status), outputs=outputs, error=error)


RUNNING = prediction("processing")
DONE = prediction("succeeded", outputs=("https://x/a.png",))
EXPIRED = prediction("succeeded")
REJECTED = prediction("failed", error="NSFW content (E005)")
FAILED = prediction("failed", error="Prediction interrupted; please retry (code: PA)")
CANCELED = prediction("canceled")
ABORTED = prediction("aborted")

ROWS = {
    "none": (None, {}, Step.SUBMIT),
    "intent of another input": (INTENT, {"fingerprint": "other"}, Step.SUBMIT),
    "intent, task cleared since, not told": (INTENT, {"generation": 2}, Step.REFUSE),
    "intent, told and task cleared since": (TOLD, {"generation": 2}, Step.SUBMIT),
    "intent, told": (TOLD, {}, Step.REFUSE),
    "intent, told and cleared, gateway lists predictions": (TOLD, {"generation": 2, "can_list": True}, Step.LOOK_UP),
    "intent, gateway lists predictions": (INTENT, {"can_list": True}, Step.LOOK_UP),
    "intent, gateway lists predictions, resubmit": (INTENT, {"can_list": True, "resubmits": True}, Step.LOOK_UP),
    'intent, on_unknown_submission="resubmit"': (INTENT, {"resubmits": True}, Step.SUBMIT),
    "intent": (INTENT, {}, Step.REFUSE),
    "id, not asked for yet": (KNOWN, {}, Step.ASK),
    "id of another input, not asked for yet": (KNOWN, {"fingerprint": "other"}, Step.ASK),
    "id of another input, running": (KNOWN, {"fingerprint": "other", "seen": RUNNING}, Step.CANCEL_AND_SUBMIT),
    "id of another input, ended": (KNOWN, {"fingerprint": "other", "seen": DONE}, Step.SUBMIT),
    "id of another input, gone": (KNOWN, {"fingerprint": "other", "gone": True}, Step.SUBMIT),
    "id, running": (KNOWN, {"seen": RUNNING}, Step.ATTACH),
    "id, running, cleared": (KNOWN, {"seen": RUNNING, "generation": 2}, Step.ATTACH),
    "id, unknown status": (KNOWN, {"seen": prediction("unknown")}, Step.ATTACH),
    "id, succeeded": (KNOWN, {"seen": DONE}, Step.ATTACH),
    "id, succeeded, cleared": (KNOWN, {"seen": DONE, "generation": 2}, Step.ATTACH),
    "id, succeeded, expired": (KNOWN, {"seen": EXPIRED}, Step.ATTACH),
    "id, succeeded, expired, cleared": (KNOWN, {"seen": EXPIRED, "generation": 2}, Step.SUBMIT),
    "id, failed for good": (KNOWN, {"seen": REJECTED}, Step.ATTACH),
    "id, failed for good, cleared": (KNOWN, {"seen": REJECTED, "generation": 2}, Step.SUBMIT),
    "id, failed": (KNOWN, {"seen": FAILED}, Step.SUBMIT),
    "id, canceled": (KNOWN, {"seen": CANCELED}, Step.SUBMIT),
    "id, aborted": (KNOWN, {"seen": ABORTED}, Step.SUBMIT),
    "id, gone": (KNOWN, {"gone": True}, Step.ATTACH),
    "id, gone, cleared": (KNOWN, {"gone": True, "generation": 2}, Step.SUBMIT),
}


@pytest.mark.parametrize("row", ROWS)
def test_the_table_of_decisions_holds(row: str) -> None:
    """worker or triggerer dies at any point, retry, clear"""
    record, given, step = ROWS[row]
    facts = dict(given)
    policy = ResumePolicy(
        generation=facts.pop("generation", 1),
        can_list=facts.pop("can_list", False),
        resubmits=facts.pop("resubmits", False),
    )
    assert decide(record, **{"fingerprint": "same", "policy": policy, **facts}) is step


def test_a_living_or_finished_prediction_of_the_same_input_is_never_paid_for_again() -> None:
    """worker or triggerer dies at any point, retry, clear"""
    for seen, generation, can_list, resubmits in itertools.product(
        (RUNNING, DONE), (1, 2), (True, False), (True, False)
    ):
        policy = ResumePolicy(generation=generation, can_list=can_list, resubmits=resubmits)
        assert decide(KNOWN, fingerprint="same", policy=policy, seen=seen) is Step.ATTACH


def test_every_step_is_in_the_table_of_the_docstring() -> None:
    table = (decide.__doc__ or "").lower()
    for step in Step:
        assert re.search(rf"\b{step.value}\b", table)


def test_a_fingerprint_stands_for_gateway_model_and_input() -> None:
    deerapi, cometapi = choose_gateway("https://api.deerapi.com"), choose_gateway("https://api.cometapi.com")
    given = {"prompt": "A", "seed": 1}
    same = fingerprint_of(deerapi, "a/b", given)
    assert same == fingerprint_of(deerapi, "a/b", {"seed": 1, "prompt": "A"})
    others = [
        fingerprint_of(cometapi, "a/b", given),
        fingerprint_of(deerapi, "a/c", given),
        fingerprint_of(deerapi, "a/b", {**given, "seed": 2}),
    ]
    assert len({same, *others}) == 4
    assert RECORD_KEY == "flux_prediction"
