"""The manifest: what became of every row, as a table of its own in JSON Lines.

Every line has the same columns, each of one type wherever it is not null, so that pandas and pyarrow read it as it is.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from itertools import chain
from typing import TYPE_CHECKING, Any

from airflow_provider_flux.batch.line_files import join, list_names, read_records, write_lines
from airflow_provider_flux.batch.model import PlannedRow, RowStatus
from airflow_provider_flux.batch.own_files import PARTS, history_path
from airflow_provider_flux.batch.row_store import RowStore
from airflow_provider_flux.batch.rows import part_suffix
from airflow_provider_flux.exceptions import FluxManifestMissingError
from airflow_provider_flux.outputs.sidecar import describe
from airflow_provider_flux.outputs.storing import StoredPicture
from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus
from airflow_provider_flux.protocol.storable import dumps
from airflow_provider_flux.tasks.arguments import path_argument

if TYPE_CHECKING:
    from os import PathLike

    from airflow.sdk import ObjectStoragePath

COLUMNS: Mapping[str, JSON] = {
    "row": 0,
    "key": "",
    "status": "",
    "path": None,
    "paths": [],
    "url": None,
    "prediction_id": None,
    "model": "",
    "prompt": None,
    "input": "{}",
    "fingerprint": "",
    "seed": None,
    "sha256": None,
    "width": None,
    "height": None,
    "format": None,
    "bytes": None,
    "predict_time": None,
    "cost_usd": None,
    "cost_is_at_most": None,
    "cost_source": None,
    "gateway": None,
    "passed_over": None,
    "error": None,
    "attempts": 0,
    "made_at": None,
}
"""The columns of a manifest, and what they hold where there is nothing to say.

``row`` counts from 1. ``path``, ``url``, ``sha256``, ``width``, ``height``, ``format`` and ``bytes`` are those of the
first picture, ``paths`` has them all. ``input`` is JSON, without what pictures in it hold and what signs its URLs.
``model`` and ``gateway`` are those that made the row; ``passed_over`` is JSON, and tells why the ways before did not.
"""


def line(row: PlannedRow, status: RowStatus, outcome: Mapping[str, JSON] | None) -> dict[str, JSON]:
    """Return a row's line.

    :param outcome: how it ended; None if it has not.
    """
    shown = _harmless(row.model, row.input)
    prompt = shown.get("prompt")
    seed = row.input.get("seed")
    known = {name: value for name, value in (outcome or {}).items() if name in COLUMNS}
    return {
        **COLUMNS,
        "model": row.model,
        "prompt": prompt if isinstance(prompt, str) else None,
        "input": dumps(shown, separators=(",", ":")),
        "seed": seed if isinstance(seed, int) and not isinstance(seed, bool) else None,
        "fingerprint": row.fingerprint,
        "attempts": row.entry.attempts if row.entry is not None else 0,
        "prediction_id": row.entry.prediction_id if row.entry is not None else None,
        **known,
        "row": row.position + 1,
        "key": row.key,
        "status": status.value,
    }


def success(
    prediction: Prediction, pictures: Iterable[StoredPicture], *, attempts: int, made_at: float
) -> dict[str, JSON]:
    """Return the outcome of a row whose pictures are stored.

    :param made_at: when they were, in seconds since the epoch.
    """
    stored = list(pictures)
    first = stored[0]
    predict_time = prediction.metrics.get("predict_time")
    return {
        "status": RowStatus.SUCCEEDED.value,
        "prediction_status": PredictionStatus.SUCCEEDED.value,
        "is_lasting": True,
        "path": first.path,
        "paths": [picture.path for picture in stored],
        "url": _unsigned(first.url),
        "prediction_id": prediction.id,
        "sha256": first.sha256,
        "width": first.width,
        "height": first.height,
        "format": first.format,
        "bytes": first.size,
        "predict_time": float(predict_time) if isinstance(predict_time, (int, float)) else None,
        "attempts": attempts,
        "made_at": datetime.fromtimestamp(made_at, timezone.utc).isoformat(timespec="seconds"),
    }


def write_manifest(path: str, store: RowStore) -> dict[str, Any]:
    """Write the manifest of a batch in one piece, rows in the table's order, and return its totals."""
    tally = Tally()
    write_lines(path, (dumps(tally.add(line(*result))) for result in store.results()))
    return tally.totals()


def read_manifest(path: str | PathLike[str] | ObjectStoragePath) -> Iterator[dict[str, JSON]]:
    """Yield a manifest's lines; none if there is no manifest.

    :raises FluxRecordError: if a line is none of a manifest's.
    :raises FluxStorageError: if it cannot be read.
    """
    return read_records(path_argument("path", path), _listed)


def read_former(manifest_path: str, suffix: str, store: RowStore) -> None:
    """Take note of the pictures that older manifests list: the whole table's, and those of all its parts.

    A row that was in another part of the table before is not paid for again. This task's own manifest comes last: of
    two that list a row, the later one counts.

    :param suffix: of the manifest that will be replaced.
    """
    folder, _, name = manifest_path.rpartition("/")
    own = f"{name}{suffix}"
    manifests = [found for found in list_names(folder) if re.fullmatch(re.escape(name) + PARTS, found)]
    for found in sorted(manifests, key=lambda found: (found == own, found)):
        has_pictures = (listed for listed in read_manifest(join(folder, found)) if _has_pictures(listed))
        store.put_former(has_pictures, is_listed=found == own)


def read_history(path: str) -> Iterator[dict[str, JSON]]:
    """Yield rows that have pictures and are not in a manifest any more; none if there is no such file.

    :raises FluxRecordError: if a line tells of none.
    :raises FluxStorageError: if it cannot be read.
    """
    return read_records(path, _made)


def merge_manifests(manifest_path: str | PathLike[str] | ObjectStoragePath, parts: int) -> dict[str, Any]:
    """Make one manifest of those of a table's parts, in the table's order. For a plain task after the mapped ones.

    :param manifest_path: as the operators got it; the parts' manifests are beside it.
    :param parts: how many parts there are.
    :return: ``manifest_path`` and the totals of all rows.
    :raises FluxManifestMissingError: if a part has no manifest.
    :raises FluxRecordError: if a line of one cannot be read.
    :raises FluxStorageError: if one cannot be read, or the whole one cannot be written.
    """
    manifest_path = path_argument("manifest_path", manifest_path)
    folder, _, name = manifest_path.rpartition("/")
    names = [f"{name}{part_suffix(part, parts)}" for part in range(parts)]
    missing = sorted(set(names) - set(list_names(folder)))
    if missing:
        raise FluxManifestMissingError(
            f"There is no manifest {join(folder, missing[0])}. Has its task ended? Nothing was written."
        )
    _remember_unlisted(manifest_path, [join(folder, part) for part in names])
    tally = Tally()
    merged = heapq.merge(*(read_manifest(join(folder, part)) for part in names), key=lambda listed: int(listed["row"]))
    write_lines(manifest_path, (dumps(tally.add(listed)) for listed in merged))
    return {**tally.totals(), "manifest_path": manifest_path}


def _remember_unlisted(manifest_path: str, parts: Iterable[str]) -> None:
    """Add to the history what a manifest lists and the one that is made of its parts will not."""
    listed = {(line["key"], line["fingerprint"]) for part in parts for line in read_manifest(part)}
    history = history_path(manifest_path)
    made = chain(read_history(history), filter(_has_pictures, read_manifest(manifest_path)))
    unlisted = [line for line in made if (line["key"], line["fingerprint"]) not in listed]
    if unlisted:
        write_lines(history, map(dumps, unlisted))


class Tally:
    """Adds up a manifest's lines."""

    def __init__(self) -> None:
        self._statuses: Counter[str] = Counter()
        self._cost_usd = 0.0
        self._predict_seconds = 0.0

    def add(self, listed: dict[str, JSON]) -> dict[str, JSON]:
        """Count a line, and return it."""
        self._statuses[listed["status"]] += 1
        # What was kept has been paid for by another run.
        if listed["status"] != RowStatus.KEPT.value:
            self._cost_usd += listed["cost_usd"] or 0.0
            self._predict_seconds += listed["predict_time"] or 0.0
        return listed

    def totals(self) -> dict[str, Any]:
        """Return how many rows there are of each status, and what they took."""
        return {
            "total": sum(self._statuses.values()),
            **{status.value: self._statuses[status.value] for status in RowStatus if status is not RowStatus.UNSETTLED},
            "spent_usd": round(self._cost_usd, 6),
            "predict_seconds": round(self._predict_seconds, 3),
        }


def _listed(read: dict[str, JSON]) -> dict[str, JSON]:
    if missing := sorted({"row", "key", "status", "paths", "fingerprint"} - set(read)):
        raise ValueError(f"it is no line of a manifest: it has no {', '.join(missing)}")
    if not isinstance(read["row"], int):
        raise TypeError("it is no line of a manifest: its row is no number")
    return {**COLUMNS, **_made(read)}


def _made(read: dict[str, JSON]) -> dict[str, JSON]:
    if missing := sorted({"key", "paths", "fingerprint"} - set(read)):
        raise ValueError(f"it is no line of a history: it has no {', '.join(missing)}")
    texts = (read["key"], read["fingerprint"], *(read["paths"] if isinstance(read["paths"], list) else [None]))
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("it is no line of a history: its key, fingerprint and paths are no texts")
    return read


def _has_pictures(listed: Mapping[str, JSON]) -> bool:
    return listed["status"] in (RowStatus.SUCCEEDED.value, RowStatus.KEPT.value) and bool(listed["paths"])


def _harmless(model: str, input: Mapping[str, JSON]) -> dict[str, JSON]:
    nobody = Prediction(id="", status=PredictionStatus.UNKNOWN)
    return dict(describe(nobody, gateway="", model=model, input=input)["input"])


def _unsigned(url: str) -> str | None:
    from airflow_provider_flux.outputs.addresses import without_secrets

    return without_secrets(url) if url else None
