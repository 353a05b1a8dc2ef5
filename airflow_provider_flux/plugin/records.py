"""What the UI shows of a prediction: known fields of the right type, out of whatever a task has pushed.

Anyone who writes a DAG can push any XCom, and older versions of this provider push less. So nothing here fails: a field
that is missing or odd is left out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_provider_flux.protocol.picture_inputs import values_of

LONGEST_TEXT = 2000
MOST_PICTURES = 16
"""Of one prediction. FLUX models make four at most."""

MOST_PASSED = 16
"""Ways to make a picture that are shown."""

SHA256 = re.compile(r"[0-9a-f]{64}")

_TEXTS = (
    *("id", "model", "gateway", "status", "prompt", "error", "cost_source"),
    *("created_at", "started_at", "completed_at", "expires_at"),
)
_PASSED = ("model", "gateway", "reason", "error")
_NUMBERS = ("seed", "cost_usd")
_FIGURES = (
    *("total", "done", "failed", "unknown", "kept", "in_flight"),
    *("rate_per_minute", "seconds_left", "spent_usd", "measured_usd"),
)
_FIGURE_TEXTS = ("started_at", "updated_at", "manifest_path")

Record = dict[str, Any]


def prediction(value: object) -> Record | None:
    """Read a ``flux_result``; None if it is none."""
    if not isinstance(value, Mapping) or not isinstance(value.get("id"), str):
        return None
    metrics = value.get("metrics")
    record = _common(value)
    record |= _numbers(metrics if isinstance(metrics, Mapping) else {}, ("predict_time",))
    record["outputs"] = _web_addresses(value.get("outputs"))
    record["stored"] = _pictures(value.get("stored"))
    record["inputs"] = _pictures(value.get("inputs"))
    return record


def row(value: object) -> Record | None:
    """Read a line of a batch's manifest, or of its live figures, as a prediction; None if it is none."""
    if not isinstance(value, Mapping) or not all(isinstance(value.get(name), str) for name in ("key", "status")):
        return None
    record = _common(value) | _texts(value, ("key",)) | _numbers(value, ("predict_time", "attempts"))
    record["id"] = value["prediction_id"] if isinstance(value.get("prediction_id"), str) else ""
    record["outputs"] = _web_addresses([value.get("url")])
    record["stored"] = _pictures([value])
    record["inputs"] = _pictures(_inputs_of_row(value.get("input")))
    return record


def batch(value: object) -> Record | None:
    """Read the figures of a batch, live or final; None if they are none."""
    if not isinstance(value, Mapping):
        return None
    recent = value.get("recent")
    rows = map(row, recent) if isinstance(recent, list) else ()
    figures = _texts(value, _FIGURE_TEXTS) | _numbers(value, _FIGURES) | _flags(value, ("spent_is_at_most",))
    figures["left_out"] = [name[:LONGEST_TEXT] for name in _list(value.get("left_out")) if isinstance(name, str)]
    if _is_number(value.get("succeeded")):
        # What the totals at the end call it.
        figures["done"] = value["succeeded"]
    return figures | {"recent": [known for known in rows if known]}


def _inputs_of_row(text: object) -> list[object]:
    """Read the pictures out of a manifest's column ``input``."""
    try:
        read = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return []
    return [value for _, value in values_of(read)] if isinstance(read, Mapping) else []


def _common(value: Mapping[str, Any]) -> Record:
    flags = _flags(value, ("retry_helps", "cost_is_at_most"))
    passed = [_texts(way, _PASSED) for way in _list(value.get("passed_over")) if isinstance(way, Mapping)]
    return _texts(value, _TEXTS) | _numbers(value, _NUMBERS) | flags | {"passed_over": passed}


def _flags(value: Mapping[str, Any], names: Iterable[str]) -> Record:
    return {name: value[name] for name in names if isinstance(value.get(name), bool)}


def _list(value: object) -> list[Any]:
    """Return a short list, also out of the text in which a manifest has it."""
    try:
        read = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return []
    return read[:MOST_PASSED] if isinstance(read, list) else []


def _texts(value: Mapping[str, Any], names: Iterable[str]) -> Record:
    return {name: value[name][:LONGEST_TEXT] for name in names if isinstance(value.get(name), str)}


def _numbers(value: Mapping[str, Any], names: Iterable[str]) -> Record:
    return {name: value[name] for name in names if _is_number(value.get(name))}


def _is_number(value: object) -> bool:
    # JSON has no NaN and no infinity; Python's reader takes them, and browsers then refuse the whole answer.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _web_addresses(value: object) -> list[str]:
    """Keep what a browser may load or open: no ``javascript:``, no ``data:``."""
    addresses = value[:MOST_PICTURES] if isinstance(value, list) else []
    return [text for text in addresses if isinstance(text, str) and text.lower().startswith(("https://", "http://"))]


def _pictures(value: object) -> list[Record]:
    pictures = value[:MOST_PICTURES] if isinstance(value, list) else []
    return [_picture(entry) for entry in pictures if isinstance(entry, Mapping) and isinstance(entry.get("path"), str)]


def _picture(entry: Mapping[str, Any]) -> Record:
    picture = {"path": entry["path"]} | _texts(entry, ("format",)) | _numbers(entry, ("bytes", "width", "height"))
    sha256 = entry.get("sha256")
    if isinstance(sha256, str) and SHA256.fullmatch(sha256):
        picture["sha256"] = sha256
    return picture
