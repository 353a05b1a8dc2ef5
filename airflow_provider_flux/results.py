"""What a prediction becomes in Airflow: XComs, or an error."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_flux.exceptions import (
    FluxOutputError,
    FluxOutputExpiredError,
    FluxPredictionCanceledError,
    FluxPredictionError,
    FluxPredictionFailedError,
    FluxPredictionRejectedError,
)
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus
from airflow_provider_flux.protocol.verdicts import can_pass, is_content_refusal, shorten

if TYPE_CHECKING:
    from airflow.sdk import Context

PREDICTION_ID_KEY = "prediction_id"
OUTPUT_URL_KEY = "output_url"
RESULT_KEY = "flux_result"

PROMPT_LIMIT = 200
"""How many characters of the prompt are kept in ``flux_result``."""

LIFE_AT_REPLICATE = 3600.0
SHORTEST_LIFE = 600.0
"""Seconds after the end of a prediction for which its files live: an hour at Replicate (its data retention page), about
ten minutes at BFL (CometAPI's FLUX page). The gateways hand on what their upstream gave and state no life of their own,
so anything that is not at Replicate is taken to live as short as the shortest."""


def publish_id(context: Context, prediction_id: str) -> None:
    """Push the id before any wait, so that it is known whatever happens next."""
    context["ti"].xcom_push(PREDICTION_ID_KEY, prediction_id)


def published_id(context: Context) -> str | None:
    """Return the id that this task pushed before it was deferred."""
    task_instance: Any = context["ti"]
    prediction_id = task_instance.xcom_pull(
        task_ids=task_instance.task_id, key=PREDICTION_ID_KEY, map_indexes=task_instance.map_index
    )
    return prediction_id if isinstance(prediction_id, str) else None


def settle(context: Context, prediction: Prediction, *, model: str = "", prompt: str | None = None) -> list[str]:
    """Push what became of a prediction that has ended, and return its URLs.

    ``flux_result`` is pushed in any case, ``output_url`` for a success.

    :param model: the model that was asked for; the answer may name an internal alias.
    :param prompt: the prompt that was sent; not every answer repeats it.
    :raises FluxPredictionError: if it did not succeed.
    :raises FluxOutputError: if it did, but there is no URL to hand on.
    """
    context["ti"].xcom_push(RESULT_KEY, describe(prediction, model=model, prompt=prompt))
    if prediction.status is not PredictionStatus.SUCCEEDED:
        raise _ending_error(prediction)
    urls = _urls(prediction)
    # A bare string is the only form that Airflow's XCom page makes clickable.
    context["ti"].xcom_push(OUTPUT_URL_KEY, urls[0])
    return urls


def describe(prediction: Prediction, *, model: str = "", prompt: str | None = None) -> dict[str, Any]:
    """Return the small dict that galleries and downstream tasks read: plain JSON, no ``data:`` URI."""
    shown = prompt or prediction.input.get("prompt")
    return {
        "id": prediction.id,
        "model": model or prediction.model,
        "status": prediction.status.value,
        "outputs": [output for output in prediction.outputs if not _is_inline(output)],
        "prompt": shorten(shown, PROMPT_LIMIT) if isinstance(shown, str) else "",
        "error": shorten(prediction.error) if prediction.error else None,
        "metrics": dict(prediction.metrics),
        "created_at": _iso(prediction.created_at),
        "started_at": _iso(prediction.started_at),
        "completed_at": _iso(prediction.completed_at),
        "expires_at": _iso(_expires_at(prediction)),
    }


def _expires_at(prediction: Prediction) -> float | None:
    """Return until when the pictures can be relied on; None if there are none, or nobody said when it ended."""
    if prediction.status is not PredictionStatus.SUCCEEDED or prediction.completed_at is None:
        return None
    hosts = {urlsplit(output).hostname or "" for output in prediction.outputs}
    at_replicate = all(host == "replicate.delivery" or host.endswith(".replicate.delivery") for host in hosts)
    return prediction.completed_at + (LIFE_AT_REPLICATE if at_replicate else SHORTEST_LIFE)


def _ending_error(prediction: Prediction) -> FluxPredictionError:
    if prediction.status is not PredictionStatus.FAILED:
        how = "was aborted before it began" if prediction.status is PredictionStatus.ABORTED else "was canceled"
        return FluxPredictionCanceledError(f"Prediction {prediction.id} {how}; it has no picture.", prediction.id)
    text = shorten(prediction.error or "the gateway gave no reason")
    message = f"Prediction {prediction.id} failed: {text}"
    if can_pass(text):
        return FluxPredictionFailedError(f"{message}. A new prediction may succeed.", prediction.id)
    refused = "The content was refused: change" if is_content_refusal(text) else "Change"
    advice = f"{refused} the input before making a new prediction."
    return FluxPredictionRejectedError(f"{message}. {advice}", prediction.id)


def _urls(prediction: Prediction) -> list[str]:
    if not prediction.outputs:
        ended = _iso(prediction.completed_at) or "an unknown time"
        if prediction.data_removed:
            raise FluxOutputExpiredError(
                f"Prediction {prediction.id} succeeded at {ended}, but its output has been deleted since: Replicate "
                "keeps files for one hour, other services for less. Fetch them in the task that waits, or right after."
            )
        what = (
            f"with an output that is no URL: {prediction.odd_output}" if prediction.odd_output else "without any output"
        )
        raise FluxOutputError(f"Prediction {prediction.id} succeeded at {ended} {what}.")
    if any(_is_inline(output) for output in prediction.outputs):
        raise FluxOutputError(
            f"Prediction {prediction.id} gave its picture as a data: URI, which is too large for XCom. "
            "Fetch it with FluxHook.get_prediction and store it yourself."
        )
    return list(prediction.outputs)


def _is_inline(output: str) -> bool:
    return output[:5].lower() == "data:"


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
