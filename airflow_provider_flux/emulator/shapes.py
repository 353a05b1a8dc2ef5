"""Predictions as JSON: the prediction object, the gateway's task envelope and BFL's shape; and times as text."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from datetime import datetime, timezone
from typing import Any

from airflow_provider_flux.emulator.predictions import Moment, Prediction
from airflow_provider_flux.emulator.rules import CANCELED, PROCESSING, STARTING, SUCCEEDED, TERMINAL
from airflow_provider_flux.emulator.state import State

NANO = 1_000_000_000
# new-api model/task.go
_TASK_WORDS = {STARTING: "SUBMITTED", PROCESSING: "IN_PROGRESS", SUCCEEDED: "SUCCESS"}
_TASK_WORDS |= dict.fromkeys(TERMINAL - {SUCCEEDED}, "FAILURE")
_TASK_PROGRESS = {"SUBMITTED": "0%", "IN_PROGRESS": "30%"}
# help.bfl.ai and BFL's OpenAPI file
_BFL_WORDS = {STARTING: "Pending", PROCESSING: "Pending", SUCCEEDED: "Ready"}
_FRACTION = re.compile(r"\.(\d+)")


def write_time(moment: float, digits: int) -> str:
    """Write seconds since the epoch as a date-time in UTC with 0 to 9 digits of fractional seconds."""
    seconds, nanoseconds = divmod(round(moment * NANO), NANO)
    text = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f"{nanoseconds:09d}"[:digits]
    return f"{text}.{fraction}Z" if fraction else f"{text}Z"


def read_time(text: str) -> float:
    """Read an ISO 8601 date-time; without a zone it is taken as UTC.

    :raises ValueError: when it is none.
    """
    plain = _FRACTION.sub(lambda match: "." + match[1][:6].ljust(6, "0"), text.strip())
    plain = plain.replace(" ", "+")  # an unescaped "+" of a zone arrives as a space
    parsed = datetime.fromisoformat(plain[:-1] + "+00:00" if plain[-1:] in {"Z", "z"} else plain)
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)).timestamp()


def bfl_unknown(prediction_id: str) -> dict[str, Any]:
    """Write what BFL says of an id that is unknown or expired."""
    return {"id": prediction_id, "status": "Task not found", "result": None}


class View:
    """A prediction as clients meet it at one moment.

    :param now: the moment to show; ``None`` is the present.
    :param early: show a finished one as still ``processing`` with its output as ``data_uri`` or ``url``.
    """

    def __init__(
        self, state: State, prediction: Prediction, now: float | None = None, early: str | None = None
    ) -> None:
        now = state.now if now is None else now
        self._state, self._settings, self._prediction = state, state.settings, prediction
        self._removed = prediction.is_removed(now, state.settings.output_life)
        self._moment = prediction.at(now)
        self._early = early if self._moment.status == SUCCEEDED else None
        if self._early:
            self._moment = Moment(PROCESSING, self._moment.started, None)

    def shaped(self, shape: str) -> dict[str, Any]:
        """Write it as ``prediction``, ``envelope`` or ``bfl``."""
        return {"prediction": self.prediction, "envelope": self.envelope, "bfl": self.bfl}[shape]()

    def prediction(self) -> dict[str, Any]:
        """Write the prediction object, keys in the order of the gateways' samples."""
        made, alias = self._prediction, self._settings.alias
        names = sorted(made.input)
        names = names[::-1] if names == list(made.input) else names  # never in the order in which they were sent
        body: dict[str, Any] = {
            "id": made.id,
            "model": f"replicate/{made.model.name}-internal-model" if alias else made.model.full_name,
            "version": made.version or (f"dp-{made.model.version_id[:32]}" if alias else "hidden"),
            **({"deployment": made.deployment} if made.deployment else {}),
            "input": {} if self._removed else {name: made.input[name] for name in names},
            "logs": None if self._removed else self._logs(),
            "output": self._output(),
            "data_removed": self._removed,
            "error": made.error(self._moment.status),
            "source": "api",
            "status": self._moment.status,
            **self._times(),
            "urls": self._urls(),
        }
        return {name: value for name, value in body.items() if name not in self._settings.drop_fields}

    def envelope(self) -> dict[str, Any]:
        """Write new-api's task envelope (QuantumNous/new-api dto/task.go) around the prediction."""
        moment, inner = self._moment, self.prediction()
        word = _TASK_WORDS.get(moment.status, "UNKNOWN")
        task = {
            "task_id": self._prediction.id,
            "status": word,
            "fail_reason": "" if word != "FAILURE" else (inner.get("error") or moment.status),
            "progress": _TASK_PROGRESS.get(word, "100%"),
            "submit_time": int(self._prediction.created),
            "start_time": int(moment.started or 0),
            "finish_time": int(moment.ended or 0),
            "data": inner,
        }
        if word == "SUCCESS" and (addresses := self._addresses("url")):
            task["result_url"] = addresses if isinstance(addresses, str) else addresses[0]
        return {"code": "success", "message": "", "data": task}

    def bfl(self) -> dict[str, Any]:
        """Write BFL's ``get_result`` (apidoc.cometapi.com/api/image/flux/flux-query)."""
        made, status = self._prediction, self._moment.status
        if self._removed:
            return bfl_unknown(made.id)
        failed = "Content Moderated" if made.outcome.name in {"E005", "NSFW"} else "Error"
        word = _BFL_WORDS.get(status) or (failed if status in TERMINAL else status)
        body: dict[str, Any] = {"id": made.id, "status": word, "result": None}
        if word == "Ready":
            addresses = self._addresses("url") or ""
            started, ended = self._moment.started or made.created, self._moment.ended or made.created
            body["result"] = {
                "seed": made.seed,
                "prompt": made.prompt,
                "sample": addresses[0] if isinstance(addresses, list) else addresses,
                "duration": ended - started,
                "start_time": started,
                "end_time": ended,
            }
        elif word == "Content Moderated":
            body["details"] = {"Moderation Reasons": ["Content Moderated"]}
        elif word == "Error":
            body["details"] = {"error": made.error(status)}
        return body

    def _output(self) -> object:
        outcome, status = self._prediction.outcome, self._moment.status
        if self._early:
            return self._addresses("data" if self._early == "data_uri" else "url")
        if self._removed:
            return None
        if status == PROCESSING and outcome.early:
            return self._addresses("url")
        return self._addresses(outcome.output) if status == SUCCEEDED else None

    def _addresses(self, kind: str) -> list[str] | str | None:
        made = self._prediction
        if kind in {"none", "empty"}:
            return None if kind == "none" else []
        if kind == "data":
            pictures = (_small_png(made.seed + number) for number in range(made.picture_count))
            addresses = [f"data:image/png;base64,{picture}" for picture in pictures]
        else:
            address = f"{self._state.output_origin}/output/{made.id}/out-"
            addresses = [f"{address}{number}.{made.file_format}" for number in range(made.picture_count)]
        as_list = made.model.gives_list != (kind == "other_kind")
        return addresses if as_list else addresses[0]

    def _logs(self) -> str | None:
        made = self._prediction
        if self._moment.status == CANCELED:
            return None  # replicate-python tests/cassettes: null after a cancel
        if self._moment.started is None:
            return ""
        lines = [f"Using seed: {made.seed}", "local stand-in: no model ran"]
        if self._moment.ended is not None and made.outcome.log:
            lines.append(made.outcome.log)
        return "\n".join(lines) + "\n"

    def _times(self) -> dict[str, Any]:
        made, moment, digits = self._prediction, self._moment, self._settings.fraction_digits
        count = [digits[(made.number + step) % len(digits)] for step in range(3)]
        times: dict[str, Any] = {"created_at": write_time(made.created, count[0])}
        if moment.status != STARTING:
            times["started_at"] = write_time(moment.started, count[1]) if moment.started else None
            times["completed_at"] = write_time(moment.ended, count[2]) if moment.ended else None
        if made.deadline is not None:
            times["deadline"] = write_time(made.deadline, count[0])
        if moment.status in TERMINAL and moment.ended and moment.started:
            times["metrics"] = {
                "predict_time": round(moment.ended - moment.started, 9),
                "total_time": round(moment.ended - made.created, 9),
            }
            if moment.status == SUCCEEDED:
                times["metrics"]["image_count"] = made.picture_count
        return times

    def _urls(self) -> dict[str, str]:
        # On the gateways these name Replicate's host, not the gateway's (samples on both gateways' pages).
        state, made = self._state, self._prediction
        origin = state.gateway_url if made.flavour == "replicate" else state.foreign_url
        address = f"{origin}/v1/predictions/{made.id}"
        return {
            "cancel": f"{address}/cancel",
            "get": address,
            "stream": f"{state.foreign_url}/v1/files/{made.id}",
            "web": f"{state.gateway_url}/p/{made.id}",
        }


def _small_png(seed: int) -> str:
    """Return a one-coloured PNG in base64, made without Pillow so that it costs nothing."""
    side, colour = 64, struct.pack(">I", seed & 0xFFFFFF)[1:]
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress((b"\0" + colour * side) * side)),
        (b"IEND", b""),
    )
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(parts)).decode()
