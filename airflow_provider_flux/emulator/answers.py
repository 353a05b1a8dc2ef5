"""Predictions as JSON: the prediction object, the gateway's task envelope and BFL's shape."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

from airflow_provider_flux.emulator import timestamps
from airflow_provider_flux.emulator.outcomes import (
    ABORTED,
    CANCELED,
    FAILED,
    PROCESSING,
    STARTING,
    SUCCEEDED,
    TERMINAL,
)
from airflow_provider_flux.emulator.predictions import Moment, Prediction
from airflow_provider_flux.emulator.state import State

DATA_SIDE = 64  # pixels of a picture inside a data: URI
LOG_NOTICE = "local stand-in: no model ran"
# new-api model/task.go
_TASK_WORDS = {STARTING: "SUBMITTED", PROCESSING: "IN_PROGRESS", SUCCEEDED: "SUCCESS"}
_TASK_WORDS |= dict.fromkeys((FAILED, CANCELED, ABORTED), "FAILURE")
_TASK_PROGRESS = {"SUBMITTED": "0%", "IN_PROGRESS": "30%"}
# help.bfl.ai and BFL's OpenAPI file
_BFL_WORDS = {STARTING: "Pending", PROCESSING: "Pending", SUCCEEDED: "Ready"}


class Answers:
    """Writes predictions in the shapes that clients meet.

    :param state: the emulator's state.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    def shaped(self, prediction: Prediction, shape: str, now: float | None = None) -> dict[str, Any]:
        """Write a prediction in one of the three shapes.

        :param prediction: the prediction.
        :param shape: ``prediction``, ``envelope`` or ``bfl``.
        :param now: the moment to show; ``None`` is the present.
        """
        writers = {"prediction": self.prediction, "envelope": self.envelope, "bfl": self.bfl}
        return writers[shape](prediction, now)

    def prediction(self, prediction: Prediction, now: float | None = None, early: str | None = None) -> dict[str, Any]:
        """Write the prediction object, keys in the order of the gateways' samples.

        :param prediction: the prediction.
        :param now: the moment to show; ``None`` is the present.
        :param early: show a finished one as still ``processing`` with its output as ``data_uri`` or ``url``.
        """
        now, settings = self._state.now if now is None else now, self._state.settings
        moment = prediction.at(now)
        removed = prediction.is_removed(now, settings.output_life)
        output = None if removed else self._output(prediction, moment)
        if early is not None and moment.status == SUCCEEDED:
            moment = Moment(PROCESSING, moment.started, None)
            output = self._addresses(prediction, "data" if early == "data_uri" else "url")
        body: dict[str, Any] = {
            "id": prediction.id,
            "model": self._model_name(prediction),
            "version": f"dp-{prediction.model.version_id[:32]}" if settings.alias else "hidden",
            "input": {} if removed else _reordered(prediction.input),
            "logs": None if removed else self._logs(prediction, moment),
            "output": output,
            "data_removed": removed,
            "error": self._error(prediction, moment),
            "source": "api",
            "status": moment.status,
            **self._times(prediction, moment),
            "urls": self._urls(prediction),
        }
        return {name: value for name, value in body.items() if name not in settings.drop_fields}

    def envelope(self, prediction: Prediction, now: float | None = None) -> dict[str, Any]:
        """Write new-api's task envelope (QuantumNous/new-api dto/task.go) around the prediction.

        :param prediction: the prediction.
        :param now: the moment to show; ``None`` is the present.
        """
        now = self._state.now if now is None else now
        moment = prediction.at(now)
        word = _TASK_WORDS.get(moment.status, "UNKNOWN")
        inner = self.prediction(prediction, now)
        task = {
            "task_id": prediction.id,
            "status": word,
            "fail_reason": "" if word != "FAILURE" else (inner.get("error") or moment.status),
            "progress": _TASK_PROGRESS.get(word, "100%"),
            "submit_time": int(prediction.created),
            "start_time": int(moment.started or 0),
            "finish_time": int(moment.ended or 0),
            "data": inner,
        }
        if word == "SUCCESS" and (addresses := self._addresses(prediction, "url")):
            task["result_url"] = addresses if isinstance(addresses, str) else addresses[0]
        return {"code": "success", "message": "", "data": task}

    def bfl(self, prediction: Prediction, now: float | None = None) -> dict[str, Any]:
        """Write BFL's answer of ``get_result`` (apidoc.cometapi.com/api/image/flux/flux-query).

        :param prediction: the prediction.
        :param now: the moment to show; ``None`` is the present.
        """
        now = self._state.now if now is None else now
        if prediction.is_removed(now, self._state.settings.output_life):
            return bfl_unknown(prediction.id)
        moment = prediction.at(now)
        word = _BFL_WORDS.get(moment.status, "Content Moderated" if prediction.outcome.moderated else "Error")
        body: dict[str, Any] = {"id": prediction.id, "status": word, "result": None}
        if moment.status == SUCCEEDED:
            body["result"] = self._bfl_result(prediction, moment)
        elif word == "Content Moderated":
            body["details"] = {"Moderation Reasons": ["Content Moderated"]}
        elif word == "Error":
            body["details"] = {"error": self._error(prediction, moment)}
        return body

    def _bfl_result(self, prediction: Prediction, moment: Moment) -> dict[str, Any]:
        addresses = self._addresses(prediction, "url")
        started, ended = moment.started or prediction.created, moment.ended or prediction.created
        return {
            "seed": prediction.seed,
            "prompt": prediction.prompt,
            "sample": addresses[0] if isinstance(addresses, list) else addresses,
            "duration": ended - started,
            "start_time": started,
            "end_time": ended,
        }

    def _model_name(self, prediction: Prediction) -> str:
        if self._state.settings.alias:
            return f"replicate/{prediction.model.name}-internal-model"
        return prediction.model.full_name

    def _output(self, prediction: Prediction, moment: Moment) -> object:
        if moment.status == PROCESSING and prediction.outcome.early:
            return self._addresses(prediction, "url")
        if moment.status != SUCCEEDED:
            return None
        return self._addresses(prediction, prediction.outcome.output)

    def _addresses(self, prediction: Prediction, kind: str) -> list[str] | str | None:
        if kind == "none":
            return None
        if kind == "empty":
            return []
        count = prediction.picture_count
        if kind == "data":
            addresses = [f"data:image/png;base64,{_small_png(prediction.seed + number)}" for number in range(count)]
        else:
            addresses = [self._file_address(prediction, number) for number in range(count)]
        as_list = prediction.model.gives_list != (kind == "other_kind")
        return addresses if as_list else addresses[0]

    def _file_address(self, prediction: Prediction, number: int) -> str:
        return f"{self._state.output_origin}/output/{prediction.id}/out-{number}.{file_format(prediction)}"

    def _logs(self, prediction: Prediction, moment: Moment) -> str | None:
        if moment.status == CANCELED:
            return None  # replicate-python tests/cassettes: null after a cancel
        if moment.started is None:
            return ""
        lines = [f"Using seed: {prediction.seed}", LOG_NOTICE]
        if moment.ended is not None and prediction.outcome.log:
            lines.append(prediction.outcome.log)
        return "\n".join(lines) + "\n"

    def _error(self, prediction: Prediction, moment: Moment) -> str | None:
        if moment.status != FAILED or prediction.outcome.error is None:
            return None
        return prediction.outcome.error.format(reference=prediction.id[:10])

    def _times(self, prediction: Prediction, moment: Moment) -> dict[str, Any]:
        digits = self._state.settings.fraction_digits
        count = [digits[(prediction.number + step) % len(digits)] for step in range(3)]
        times: dict[str, Any] = {"created_at": timestamps.write(prediction.created, count[0])}
        if moment.status != STARTING:
            times["started_at"] = timestamps.write(moment.started, count[1]) if moment.started else None
            times["completed_at"] = timestamps.write(moment.ended, count[2]) if moment.ended else None
        if prediction.deadline is not None:
            times["deadline"] = timestamps.write(prediction.deadline, count[0])
        if moment.status in TERMINAL and moment.ended and moment.started:
            times["metrics"] = {
                "predict_time": round(moment.ended - moment.started, 9),
                "total_time": round(moment.ended - prediction.created, 9),
            }
            if moment.status == SUCCEEDED:
                times["metrics"]["image_count"] = prediction.picture_count
        return times

    def _urls(self, prediction: Prediction) -> dict[str, str]:
        # On the gateways these name Replicate's host, not the gateway's (samples on both gateways' pages).
        state = self._state
        origin = state.gateway_url if prediction.flavour == "replicate" else state.foreign_url
        address = f"{origin}/v1/predictions/{prediction.id}"
        return {
            "cancel": f"{address}/cancel",
            "get": address,
            "stream": f"{state.foreign_url}/v1/files/{prediction.id}",
            "web": f"{state.gateway_url}/p/{prediction.id}",
        }


def bfl_unknown(prediction_id: str) -> dict[str, Any]:
    """Write BFL's answer for an id that is unknown or expired.

    :param prediction_id: the id asked for.
    """
    return {"id": prediction_id, "status": "Task not found", "result": None}


def file_format(prediction: Prediction) -> str:
    """Return the format of a prediction's files, as their addresses' ending.

    :param prediction: the prediction.
    """
    fallback = "jpg" if prediction.flavour == "bfl" else prediction.model.default_format
    asked = str(prediction.input.get("output_format", fallback))
    name = "jpg" if asked == "jpeg" else asked
    if prediction.outcome.picture == "other_format":
        return "png" if name == "jpg" else "jpg"
    return name if name in {"webp", "jpg", "png"} else fallback


def _small_png(seed: int) -> str:
    """Return a one-coloured PNG in base64, made without Pillow so that it costs nothing."""
    side, colour = DATA_SIDE, struct.pack(">I", seed & 0xFFFFFF)[1:]
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress((b"\0" + colour * side) * side)),
        (b"IEND", b""),
    )
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(parts)).decode()


def _reordered(given: dict[str, Any]) -> dict[str, Any]:
    names = sorted(given)
    if names == list(given):
        names.reverse()
    return {name: given[name] for name in names}
