"""One prediction, read from any of the shapes in which gateways describe it."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum

from airflow_provider_flux.protocol.dialects import DEPLOYMENTS, parted
from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.urls import tidy


class PredictionStatus(str, Enum):
    """The states of a prediction, in Replicate's words.

    ``aborted`` means that a deadline passed before the prediction began; it is not billed (Replicate's
    lifecycle page). ``UNKNOWN`` stands for a word that is not known today: the prediction is taken to be alive.
    """

    STARTING = "starting"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    ABORTED = "aborted"
    UNKNOWN = "unknown"

    @property
    def is_terminal(self) -> bool:
        """Whether the prediction will never change again."""
        return self in _TERMINAL


_TERMINAL = frozenset(
    {
        PredictionStatus.SUCCEEDED,
        PredictionStatus.FAILED,
        PredictionStatus.CANCELED,
        PredictionStatus.ABORTED,
    }
)

CANCELED = frozenset({PredictionStatus.CANCELED, PredictionStatus.ABORTED})
"""Ended early, at somebody's word."""

_STATUS_WORDS: Mapping[str, PredictionStatus] = {
    **{status.value: status for status in PredictionStatus if status is not PredictionStatus.UNKNOWN},
    "cancelled": PredictionStatus.CANCELED,
    # new-api's task envelope (dto/task.go)
    "not_start": PredictionStatus.STARTING,
    "submitted": PredictionStatus.STARTING,
    "queued": PredictionStatus.STARTING,
    "in_progress": PredictionStatus.PROCESSING,
    "success": PredictionStatus.SUCCEEDED,
    "failure": PredictionStatus.FAILED,
    # BFL's own API (its OpenAPI file)
    "pending": PredictionStatus.PROCESSING,
    "ready": PredictionStatus.SUCCEEDED,
    "error": PredictionStatus.FAILED,
    "request moderated": PredictionStatus.FAILED,
    "content moderated": PredictionStatus.FAILED,
}

TEXT_LIMIT = 2000
"""How many characters of a text in a prediction are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One prediction as a gateway last described it.

    :param id: opaque name of the prediction.
    :param status: its state.
    :param status_word: the state as the gateway wrote it.
    :param model: the model as the gateway names it, which may be an internal alias; empty if not told.
    :param version: the version of the model, as the gateway tells it; empty if not told.
    :param deployment: the deployment that made it, in the same way.
    :param outputs: what it made, always a tuple: URLs, or ``data:`` URIs that must never be stored in XCom.
    :param error: the gateway's text for a failure.
    :param input: the echo of what was asked for.
    :param metrics: such as ``predict_time`` in seconds; any may be missing.
    :param created_at: seconds since the epoch; None if not told. So are the next two.
    :param data_removed: whether the service has already deleted input and output.
    :param odd_output: an output that is no URL in any documented shape, shortened.
    :param page: page of the prediction for people, as the answer names it; empty if not told.
    :param polling_url: where BFL says that it is to be asked for; empty if not told.
    """

    id: str
    status: PredictionStatus
    status_word: str = ""
    model: str = ""
    version: str = ""
    deployment: str = ""
    outputs: tuple[str, ...] = ()
    error: str | None = None
    input: Mapping[str, JSON] = field(default_factory=dict)
    metrics: Mapping[str, JSON] = field(default_factory=dict)
    created_at: float | None = None
    started_at: float | None = None
    completed_at: float | None = None
    data_removed: bool = False
    odd_output: str = ""
    page: str = ""
    polling_url: str = ""

    def is_of(self, model: str) -> bool:
        """Tell whether it may have been asked for by a model's name, in whichever way that is written."""
        return model in (self.model, self.version, f"{self.model}:{self.version}", f"{DEPLOYMENTS}{self.deployment}")


class Absent(Enum):
    """What an answer can be when it is not a prediction."""

    NOT_FOUND = "not found"
    """The gateway says that it knows no such prediction, or none yet."""
    NOT_A_PREDICTION = "not a prediction"
    ANOTHER = "another prediction"
    """The answer is about a prediction that was not asked for, and so is its picture."""


LONGEST_ID = 200
_ID = re.compile(rf"[^\s/\\]{{1,{LONGEST_ID}}}")


def read_id(value: JSON) -> str:
    """Return the id of a prediction, which some gateways write as a number; empty if it can be none.

    It becomes part of a path and of log lines: ``..`` would lead to another path, and a control character make two
    lines of one.
    """
    text = str(value) if value and isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    # What could not be stored has become U+FFFD by now; by such an id nothing is found again.
    is_good = _ID.fullmatch(text) and text.isprintable() and text not in (".", "..") and "\ufffd" not in text
    return text if is_good else ""


class NoIdError(ValueError):
    """A text was given for the id of a prediction that can be none."""

    def __init__(self, text: object) -> None:
        super().__init__(f"{repr(text)[:LONGEST_ID]} cannot be the id of a prediction")


def ids_in(payload: Mapping[str, JSON]) -> list[str]:
    """Return the ids that an object goes by. A text comes first: new-api's numbers are rows of its database."""
    values = sorted((payload.get("id"), payload.get("task_id")), key=lambda value: not isinstance(value, str))
    return [found for value in values if (found := read_id(value))]


def read_prediction(payload: JSON, *, asked_for: str | None = None) -> Prediction | Absent:
    """Read the answer of a create, get or cancel request.

    Understands the prediction object of Replicate, the task envelope of new-api
    (``{"code", "message", "data": {"task_id", "status", "data": {…}}}``) and BFL's ``{"id", "status", "result"}``.

    :param payload: the decoded JSON.
    :param asked_for: the id that was asked for. It wins over the id inside an envelope, which may be the upstream's; an
        answer that goes by another one is not believed.
    """
    if not isinstance(payload, Mapping):
        return Absent.NOT_A_PREDICTION
    if _is_enveloped(payload):
        return _read_envelope(payload, asked_for)
    if asked_for and (named := ids_in(payload)) and parted(asked_for)[0] not in named:
        return Absent.ANOTHER
    return _read_object(payload, asked_for)


def read_created(payload: JSON) -> Prediction | Absent:
    """Read the answer of a create, if need be for nothing but the id: with it, what was paid for can be found again."""
    read = read_prediction(payload)
    if read is not Absent.NOT_A_PREDICTION or not isinstance(payload, Mapping):
        return read
    good = _is_enveloped(payload) and payload["code"] in GOOD_CODES
    return _read_bare_id(payload["data"] if good else payload) or read


GOOD_CODES = ("success", 0, 200)


def _is_enveloped(payload: Mapping[str, JSON]) -> bool:
    return payload.get("code") is not None and "data" in payload


def _read_bare_id(created: JSON) -> Prediction | None:
    if isinstance(created, Mapping):
        says_error = created.get("error") or created.get("code") not in (None, *GOOD_CODES)
        if says_error or isinstance(created.get("status"), (int, float)):
            return None
        created = next(iter(ids_in(created)), None)
    prediction_id = read_id(created)
    return Prediction(id=prediction_id, status=PredictionStatus.STARTING) if prediction_id else None


def _read_envelope(payload: Mapping[str, JSON], asked_for: str | None) -> Prediction | Absent:
    task = payload["data"]
    if payload["code"] not in GOOD_CODES:
        return Absent.NOT_FOUND if payload["code"] == "task_not_exist" else Absent.NOT_A_PREDICTION
    if task is None:
        return Absent.NOT_FOUND
    if not isinstance(task, Mapping):
        return Absent.NOT_A_PREDICTION
    inner = task.get("data")
    named = ids_in(task)[::-1] or ids_in(_mapping(inner))
    if asked_for and named and parted(asked_for)[0] not in named:
        return Absent.ANOTHER
    inside = _read_object(inner if isinstance(inner, Mapping) else task, asked_for)
    prediction_id = asked_for or next(iter(named), "")
    word = _text(task.get("status"))
    if not prediction_id or not word:
        return inside
    if isinstance(inside, Absent):
        inside = Prediction(id=prediction_id, status=PredictionStatus.UNKNOWN)
    status = _status(word)
    failed = PredictionStatus.FAILED in (status, inside.status)
    codes = _codes_of_failure(task, inside.error or "") if failed else ()
    return replace(
        inside,
        id=prediction_id,
        # A gateway that does not know a word such as "aborted" leaves its envelope running for ever.
        status=inside.status if inside.status.is_terminal or status is PredictionStatus.UNKNOWN else status,
        status_word=word,
        outputs=inside.outputs or _outputs(_url(task.get("result_url"))),
        error=_joined(*codes, _text(task.get("fail_reason")), inside.error),
        created_at=inside.created_at or _seconds(task.get("submit_time")),
        started_at=inside.started_at or _seconds(task.get("start_time")),
        completed_at=inside.completed_at or _seconds(task.get("finish_time")),
    )


def _read_object(payload: Mapping[str, JSON], asked_for: str | None) -> Prediction | Absent:
    word = payload.get("status")
    if word == "Task not found":
        return Absent.NOT_FOUND
    prediction_id = next(iter(ids_in(payload)), "")
    if not prediction_id:
        return Absent.NOT_A_PREDICTION
    if word is None:
        # BFL's create answer has an id and where to poll, but no status.
        if "polling_url" not in payload:
            return Absent.NOT_A_PREDICTION
        word = PredictionStatus.STARTING.value
    # Replicate's error bodies carry the HTTP code under the same key, as a number.
    if not isinstance(word, str):
        return Absent.NOT_A_PREDICTION
    result = _mapping(payload.get("result"))
    output = payload.get("output", result.get("sample"))
    outputs = _outputs(output)
    moderated = word if word.lower().endswith("moderated") else None
    error = _error_text(payload.get("error")) or _error_text(payload.get("details") or None) or ""
    failed = _status(word) is PredictionStatus.FAILED
    return Prediction(
        id=asked_for or prediction_id,
        status=_status(word),
        status_word=word,
        model=_text(payload.get("model")),
        version=_text(payload.get("version")),
        deployment=_text(payload.get("deployment")),
        outputs=outputs,
        odd_output="" if outputs or not output else _shown(output)[:200],
        error=_joined(moderated, *_codes_of_failure(payload, error), error) if failed else error or None,
        input=_mapping(payload.get("input")),
        metrics=_metrics(payload, result),
        created_at=_seconds(payload.get("created_at")),
        started_at=_seconds(payload.get("started_at", result.get("start_time"))),
        completed_at=_seconds(payload.get("completed_at", result.get("end_time"))),
        data_removed=payload.get("data_removed") is True,
        page=_page(payload.get("urls")),
        polling_url=_url(payload.get("polling_url")) or "",
    )


BILLED = ("cost", "input_mp", "output_mp")
"""What BFL tells of the price of a prediction when it is made: credits, and megapixels (BFL's OpenAPI file)."""


def _metrics(payload: Mapping[str, JSON], result: Mapping[str, JSON]) -> dict[str, JSON]:
    billed = {name: payload[name] for name in BILLED if isinstance(payload.get(name), (int, float))}
    duration = {"predict_time": result["duration"]} if isinstance(result.get("duration"), (int, float)) else {}
    return {**billed, **duration, **_mapping(payload.get("metrics"))}


def _status(word: str) -> PredictionStatus:
    return _STATUS_WORDS.get(word.strip().lower(), PredictionStatus.UNKNOWN)


def _text(value: JSON) -> str:
    return value if isinstance(value, str) else ""


def _error_text(value: JSON) -> str | None:
    """Return all that an error says; its code may be the only word of why a new attempt is useless."""
    if value is None or value == "":
        return None
    if isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
        return _joined(*(_error_text(part) for part in value[:10]))
    if not isinstance(value, Mapping):
        return _shown(value)
    text = _text(value.get("message")) or _text(value.get("detail")) or _text(value.get("error"))
    codes = (code for code in _codes(value) if code not in text)
    return _joined(*codes, text[:TEXT_LIMIT]) if text else _shown(value)


def _codes(value: Mapping[str, JSON]) -> tuple[str, ...]:
    """Return the codes beside a text; not those that say that all is well."""
    found = (_text(value.get(name))[:CODE_LIMIT] for name in ("code", "error_code", "type"))
    return tuple(code for code in found if code and code not in GOOD_CODES)


def _codes_of_failure(payload: JSON, text: str) -> tuple[str, ...]:
    """Return the codes that a failure tells beside its error, or in its logs (Replicate's error code page)."""
    payload = _mapping(payload)
    in_logs = _CODE_IN_LOGS.findall(_text(payload.get("logs"))[-TEXT_LIMIT:])[-1:]
    return tuple(code for code in (*_codes(payload), *in_logs) if code not in text)


CODE_LIMIT = 100
_CODE_IN_LOGS = re.compile(r"\((?:code: ?)?(E\d{3,4}|PA)\)")


def _joined(*texts: str | None) -> str | None:
    """Keep every text: any of them may be the one that says why a new attempt is useless."""
    if not any(texts):
        return None
    return ": ".join(dict.fromkeys(text for text in texts if text)) or None


def _mapping(value: JSON) -> Mapping[str, JSON]:
    return value if isinstance(value, Mapping) else {}


def _outputs(value: JSON) -> tuple[str, ...]:
    """Read a string, a list, or nothing as one list: 9 of the 11 FLUX models answer with a bare string."""
    if value is None:
        return ()
    values = value if isinstance(value, list) else [value]
    return tuple(url for item in values if (url := _url(item)) is not None)


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 1000
_REPR.maxdict = _REPR.maxlist = 10


def _shown(value: JSON) -> str:
    """Write out a value of any size in a few words."""
    return value[:TEXT_LIMIT] if isinstance(value, str) else _REPR.repr(value)[:TEXT_LIMIT]


def _page(urls: JSON) -> str:
    page = _text(_mapping(urls).get("web"))
    return page if page.startswith(("https://", "http://")) else ""


def _url(value: JSON) -> str | None:
    # new-api puts the failure's text here where a task has no result (model/task.go, GetResultURL).
    if not isinstance(value, str):
        return None
    url = tidy(value) if "://" in value[:100] else value.strip()
    return url if url.startswith(("https://", "http://")) or url[:5].lower() == "data:" else None


_YEAR_10000 = 253_402_300_800
_TIMESTAMP = re.compile(
    r"(?P<whole>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?P<fraction>\.\d+)?(?P<zone>Z|[+-]\d\d:?\d\d)?",
    re.IGNORECASE,
)


def _seconds(value: JSON) -> float | None:
    """Read a time as seconds since the epoch.

    Fractions of 3, 6, 8 and 9 digits were recorded, which Python 3.10's ``fromisoformat`` refuses; a task
    envelope gives Unix seconds.
    """
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _sensible(value)
    match = _TIMESTAMP.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    zone = (match["zone"] or "Z").upper().replace("Z", "+00:00")
    try:
        whole = datetime.fromisoformat(match["whole"] + (zone if ":" in zone else f"{zone[:3]}:{zone[3:]}"))
    except ValueError:
        return None
    return _sensible(whole.timestamp() + float(match["fraction"] or 0))


def _sensible(seconds: float) -> float | None:
    """Drop what no date can show: zero for "not yet", milliseconds, and the year 1 that Go writes for "never"."""
    return float(seconds) if 0 < seconds < _YEAR_10000 else None
