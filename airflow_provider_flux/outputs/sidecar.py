"""What is written down next to the pictures: how they came about, and nothing that opens a door."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_flux.outputs.addresses import without_secrets
from airflow_provider_flux.outputs.inline import is_inline
from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.prediction import Prediction
from airflow_provider_flux.protocol.storable import storable
from airflow_provider_flux.protocol.times import iso


def describe(prediction: Prediction, *, gateway: str, model: str, input: Mapping[str, JSON]) -> dict[str, Any]:
    """Return the facts about a prediction that are kept with its pictures.

    :param gateway: the gateway's name.
    :param model: the model that was asked for; the answer may name an internal alias.
    :param input: what was sent. Pictures inside it are left out, and URLs lose what signs them.
    """
    shown = {name: _harmless(value) for name, value in input.items()}
    described = {
        "prediction_id": prediction.id,
        "gateway": gateway,
        "model": model,
        "prompt": shown.get("prompt"),
        "seed": shown.get("seed"),
        "input": shown,
        "metrics": dict(prediction.metrics),
        "created_at": iso(prediction.created_at),
        "started_at": iso(prediction.started_at),
        "completed_at": iso(prediction.completed_at),
    }
    return dict(storable(described))


def _harmless(value: JSON) -> JSON:
    if isinstance(value, Mapping):
        return {name: _harmless(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_harmless(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if is_inline(value):
        return f"{value.partition(',')[0][:80]}, ({len(value)} characters)"
    is_url = value.startswith(("https://", "http://")) and len(value.split()) == 1
    return without_secrets(value) if is_url else value
