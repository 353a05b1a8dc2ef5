"""What version 0.1 has stored is understood: a task that is under way when the package is upgraded goes on."""

from __future__ import annotations

import importlib
from typing import Any

from airflow_provider_flux.batch.model import Entry
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.protocol.fingerprint import fingerprint_of
from airflow_provider_flux.protocol.gateways import choose_gateway
from airflow_provider_flux.protocol.resume import SubmissionRecord
from airflow_provider_flux.tasks.pending import PendingPrediction
from tests.conftest import Connect
from tests.durable.task_instance import OperatorTaskInstance

SCHNELL = "black-forest-labs/flux-schnell"
BOAT = {"prompt": "A paper boat"}

RECORD: dict[str, Any] = {
    "fingerprint": "27e1fdbb",
    "generation": 1,
    "try_number": 1,
    "sent_at": 1790000000.0,
    "prediction_id": "abc",
    "told": False,
}
LEDGER_LINE = (
    '{"key":"sku-1","revision":2,"run":"0f","generation":1,"try_number":1,"fingerprint":"27","sent_at":1790000000.0,'
    '"prediction_id":"abc","told":false,"attempts":1,"committed_usd":0.003,"outcome":null}'
)
TRIGGER = {
    "prediction_id": "abc",
    "flux_conn_id": "flux_default",
    "model": SCHNELL,
    "submitted_at": 1790000000.0,
    "deadline": 1790001800.0,
    "poll_interval": None,
    "cancel_on_kill": True,
    "end_task": True,
    "push_return_value": True,
}


def test_a_record_is_read_and_fields_of_later_versions_are_left_out() -> None:
    assert SubmissionRecord.from_stored(RECORD) == SubmissionRecord(**RECORD)
    assert SubmissionRecord.from_stored({**RECORD, "colour": "blue"}) == SubmissionRecord(**RECORD)


def test_a_ledger_line_is_read_and_fields_of_later_versions_are_left_out() -> None:
    assert Entry.from_line(LEDGER_LINE).prediction_id == "abc"
    assert Entry.from_line(LEDGER_LINE.replace('"key"', '"colour":"blue","key"')) == Entry.from_line(LEDGER_LINE)


def test_a_trigger_is_made_again_by_its_class_path_and_arguments() -> None:
    path = "airflow_provider_flux.triggers.flux.FluxPredictionTrigger"
    module, _, name = path.rpartition(".")
    made = getattr(importlib.import_module(module), name)(**TRIGGER)
    assert made.serialize() == (path, TRIGGER)


def test_an_event_resumes_the_task_it_was_sent_for() -> None:
    facts = {name: TRIGGER[name] for name in ("prediction_id", "flux_conn_id", "model", "submitted_at", "deadline")}
    assert PendingPrediction.from_event({"status": "succeeded", **facts}).prediction_id == "abc"


def test_a_fingerprint_is_what_it_was() -> None:
    fingerprint = fingerprint_of(choose_gateway("https://api.deerapi.com"), SCHNELL, {"prompt": "A", "seed": 1})
    assert fingerprint == "21be5762c69406f068872914b3aa54b9"


def test_an_operator_goes_on_with_the_prediction_of_a_record(emulator: Emulator, connect: Connect) -> None:
    connect(emulator.url, gateway="deerapi")
    hook = FluxHook()
    made = hook.create_prediction(SCHNELL, BOAT)
    task = OperatorTaskInstance({"task_id": "make", "model": SCHNELL, "input": BOAT, "wait_for_completion": True})
    fingerprint = fingerprint_of(hook.access.gateway, SCHNELL, BOAT)
    task.store.kept["flux_prediction"] = {**RECORD, "fingerprint": fingerprint, "prediction_id": made.id}
    assert task.retry()
    assert (emulator.posts, emulator.accepted) == (1, 1)
