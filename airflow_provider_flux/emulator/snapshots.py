"""Predictions as tests and the ledger see them."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import Any

from airflow_provider_flux.emulator.predictions import Prediction

LONGEST_TEXT = 500


@dataclass(frozen=True)
class PredictionSnapshot:
    """A prediction at one moment.

    :param id: the id given out.
    :param flavour: the kind of route that it came through: ``gateway``, ``replicate`` or ``bfl``.
    :param model: full model name.
    :param input: the input as it was sent.
    :param created: when it was made, in seconds of the emulator's clock.
    :param status: the status word at that moment.
    :param started: when it began to run, if it did.
    :param ended: when it ended, if it did.
    :param outcome: the name of the outcome decided for it; a cancel or a deadline may come first.
    :param error: the text that its end carries.
    :param canceled_by: the route that cancelled it: ``gateway`` or ``replicate``.
    :param gets: how often it was queried.
    :param seed: the seed that its pictures are drawn from.
    :param webhook: where to report, if asked.
    """

    id: str
    flavour: str
    model: str
    input: dict[str, Any]
    created: float
    status: str
    started: float | None
    ended: float | None
    outcome: str
    error: str | None
    canceled_by: str | None
    gets: int
    seed: int
    webhook: str | None


def snapshot(prediction: Prediction, now: float) -> PredictionSnapshot:
    """Take a snapshot.

    :param prediction: the prediction.
    :param now: the emulator's clock.
    """
    moment = prediction.at(now)
    error = prediction.outcome.error if moment.status == "failed" else None
    return PredictionSnapshot(
        id=prediction.id,
        flavour=prediction.flavour,
        model=prediction.model.full_name,
        input=copy.deepcopy(prediction.input),
        created=prediction.created,
        status=moment.status,
        started=moment.started,
        ended=moment.ended,
        outcome=prediction.outcome.name,
        error=error.format(reference=prediction.id[:10]) if error else None,
        canceled_by=prediction.canceled_by,
        gets=prediction.gets,
        seed=prediction.seed,
        webhook=prediction.webhook,
    )


def prediction_json(shot: PredictionSnapshot) -> dict[str, Any]:
    """Write a snapshot for the ledger, long texts cut.

    :param shot: the snapshot.
    """
    shown = asdict(shot)
    shown["input"] = {name: _cut(value) for name, value in shot.input.items()}
    return shown


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return f"{value[:LONGEST_TEXT]}... ({len(value)} characters)"
    if isinstance(value, list):
        return [_cut(item) for item in value]
    return value
