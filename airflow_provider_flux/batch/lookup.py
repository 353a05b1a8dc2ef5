"""Finding what creates have made whose answers nobody saw, in the gateway's list: one look for all rows."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from airflow_provider_flux import submission
from airflow_provider_flux.batch.making import Workshop
from airflow_provider_flux.batch.state import PlannedRow
from airflow_provider_flux.durable import fingerprint_of
from airflow_provider_flux.hooks.flux import CLOCK_SKEW, PATIENCE, ended_in_vain_before
from airflow_provider_flux.protocol.flows import CallFailed
from airflow_provider_flux.protocol.prediction import Prediction
from airflow_provider_flux.protocol.verdicts import Failure, Verdict


@dataclass(frozen=True, slots=True)
class Finding:
    """What the list tells of rows.

    :param made: rows, and the predictions that are theirs.
    :param not_made: rows of which it is certain by now that nothing was made.
    :param unclear: rows, and the predictions of which any could be theirs.
    :param failure: why the list cannot be read at all; it says nothing of any row then.
    """

    made: list[tuple[PlannedRow, str]] = field(default_factory=list)
    not_made: list[PlannedRow] = field(default_factory=list)
    unclear: list[tuple[PlannedRow, list[str]]] = field(default_factory=list)
    failure: Failure | None = None


async def look_up(workshop: Workshop, rows: Iterable[PlannedRow]) -> Finding:
    """Read the list back to the oldest of some creates, and tell what it says of them.

    :param rows: rows with an intent and without a prediction. Those that it says nothing of are to be looked up again.
    """
    alike: dict[str, list[PlannedRow]] = defaultdict(list)
    for row in rows:
        alike[row.fingerprint].append(row)
    asked_at = time.time()
    finding = Finding()
    try:
        listed = await _listed(workshop, alike)
    except CallFailed as failed:
        # Trouble that may pass is left to the next look.
        return Finding(failure=failed.failure) if failed.verdict is Verdict.REFUSED else finding
    for fingerprint, group in alike.items():
        # Another row with the same input may be about to get the prediction that is listed.
        if not workshop.store.is_being_made(fingerprint):
            candidates = [found for found in listed[fingerprint] if not workshop.store.knows_prediction(found)]
            _sort(finding, group, candidates, asked_at)
    return finding


def _sort(finding: Finding, group: list[PlannedRow], candidates: list[str], asked_at: float) -> None:
    """Tell which of some predictions belong to rows that all have the same input."""
    if len(candidates) > len(group):
        finding.unclear.extend((row, candidates) for row in group)
        return
    # Which of them is whose makes no difference.
    finding.made.extend(zip(group, candidates, strict=False))
    for row in group[len(candidates) :]:
        if asked_at >= _sent_at(row) + submission.LISTED_AFTER:
            finding.not_made.append(row)


async def _listed(workshop: Workshop, alike: Mapping[str, list[PlannedRow]]) -> Mapping[str, list[str]]:
    """Return the ids of the predictions that creates may have made, by what was submitted."""
    sent_at = {fingerprint: min(map(_sent_at, group)) for fingerprint, group in alike.items()}
    found: dict[str, list[str]] = defaultdict(list)
    for page in workshop.conversation.list(deadline=time.time() + PATIENCE):
        for prediction in await workshop.run(page):
            if prediction.created_at is None or prediction.created_at < min(sent_at.values()) - CLOCK_SKEW:
                return found
            fingerprint = fingerprint_of(workshop.access.gateway, prediction.model, prediction.input)
            if fingerprint in sent_at and _may_be_it(prediction, sent_at[fingerprint]):
                found[fingerprint].append(prediction.id)
    return found


def _may_be_it(prediction: Prediction, sent_at: float) -> bool:
    is_old = prediction.created_at is None or prediction.created_at < sent_at - CLOCK_SKEW
    return not (is_old or ended_in_vain_before(prediction, sent_at))


def _sent_at(row: PlannedRow) -> float:
    return row.entry.sent_at if row.entry is not None else 0.0
