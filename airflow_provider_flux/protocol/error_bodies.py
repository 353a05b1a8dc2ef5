"""Reading the bodies in which gateways say that something went wrong, also under HTTP status 200.

Documented are ``{"error": {…}}``, ``{"code", "message"}`` and problem+json (CometAPI's error page, new-api's
types/error.go, Replicate's OpenAPI file); seen besides are ``{"success": false}``, ``{"errors": […]}``, an error inside
an envelope's ``data``, and any of them with an ``id`` that is null or empty.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.prediction import GOOD_CODES, ids_in, read_id

NAME_LIMIT = 100
"""How many characters of a code or a request id are kept."""

_RESETS_IN = re.compile(r"resets in ~?(\d+(?:\.\d+)?) ?s", re.IGNORECASE)


def says_error(payload: JSON, known_codes: Mapping[str, object]) -> bool:
    """Tell a failure dressed as a success from a prediction, whose ``error`` belongs to the prediction.

    :param known_codes: codes with which nothing is made; with one of them an id is that of the request, unless there
        is a status too.
    """
    if not isinstance(payload, Mapping) or payload.get("code") == "task_not_exist":
        return False
    if ids_in(payload):
        return not isinstance(payload.get("status"), str) and message_and_code(payload, known_codes)[1] in known_codes
    bad_code = payload.get("code") not in (None, "", *GOOD_CODES)
    said = bool(payload.get("error") or payload.get("errors")) or payload.get("success") is False
    if said or (bad_code and any(name in payload for name in ("data", "message", "msg", "detail"))):
        return True
    return says_error(payload.get("data"), known_codes)


def message_and_code(payload: JSON, known_codes: Mapping[str, object]) -> tuple[str, str]:
    """Return what an error body says, and its code; both are empty if it says nothing.

    :param known_codes: codes that are found in other places as well, in any case.
    """
    if not isinstance(payload, Mapping):
        return "", ""
    bodies = list(_bodies(payload))
    texts: list[str] = []
    for body in bodies:
        for name in ("title", "detail", "message", "msg"):
            if part := body.get(name):
                texts.append(part if isinstance(part, str) else json.dumps(sketch(part)))
    if isinstance(payload.get("error"), str):
        texts.append(payload["error"])
    words = [body.get(name) for name in ("code", "type", "error") for body in bodies]
    known = (word.strip().lower() for word in words if isinstance(word, str))
    codes = [word for body in bodies if isinstance(word := body.get("code"), str) and word not in GOOD_CODES]
    code = next((word for word in known if word in known_codes), next(iter(codes), ""))
    return ": ".join(dict.fromkeys(texts)), code


def kinds_of(payload: JSON) -> str:
    """Return the types of error that a body names."""
    if not isinstance(payload, Mapping):
        return ""
    return " ".join(kind for body in _bodies(payload) if isinstance(kind := body.get("type"), str))[:NAME_LIMIT]


def told_status(payload: JSON) -> int | None:
    """Return the HTTP status that a body tells for an error; None if it tells none."""
    if not isinstance(payload, Mapping):
        return None
    for body in _bodies(payload):
        for name in ("code", "status", "status_code", "statusCode"):
            text = str(body.get(name))
            if re.fullmatch(r"[45]\d\d", text):
                return int(text)
    return None


def wait_asked_for(header: str | None, payload: JSON, text: str) -> float | None:
    """Return the seconds that an answer asks to wait; None if it does not say.

    :param text: the beginning of its body.
    """
    for hint in (header, _body_hint(payload)):
        seconds = seconds_of(hint)
        if seconds is not None:
            return seconds
    match = _RESETS_IN.search(text)
    return float(match[1]) if match else None


def seconds_of(hint: JSON) -> float | None:
    """Read a wish for patience: a number of seconds, or an HTTP date."""
    if hint is None or isinstance(hint, bool):
        return None
    try:
        seconds = float(hint)
    except (TypeError, ValueError, OverflowError):
        return _seconds_until(str(hint))
    return max(0.0, seconds) if math.isfinite(seconds) else None


def sketch(payload: JSON, depth: int = 3) -> JSON:
    """Cut a payload down before it is written out: a large one would hold up the triggerer's loop."""
    if isinstance(payload, Mapping) and depth:
        return {str(name)[:NAME_LIMIT]: sketch(payload[name], depth - 1) for name in list(payload)[:10]}
    if isinstance(payload, list) and depth:
        return [sketch(item, depth - 1) for item in payload[:3]]
    if isinstance(payload, str):
        return payload[:NAME_LIMIT]
    return type(payload).__name__ if isinstance(payload, (Mapping, list)) else payload


def _bodies(payload: Mapping[str, JSON]) -> Iterator[Mapping[str, JSON]]:
    """Yield the parts of an error body that may say what is wrong, the innermost first."""
    data = payload.get("data")
    if isinstance(data, Mapping) and not read_id(data.get("id")):
        yield from _bodies(data)
    errors = payload.get("errors")
    for error in (payload.get("error"), *(errors[:1] if isinstance(errors, list) else [errors])):
        if isinstance(error, Mapping):
            yield error
        elif isinstance(error, str) and error is not payload.get("error"):
            yield {"message": error}
    yield payload


def _body_hint(payload: JSON) -> JSON:
    if not isinstance(payload, Mapping):
        return None
    error = payload.get("error")
    return payload.get("retry_after", error.get("retry_after") if isinstance(error, Mapping) else None)


def _seconds_until(http_date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(http_date)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())
