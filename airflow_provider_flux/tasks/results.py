"""What a prediction becomes in Airflow: XComs, or an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_flux.exceptions import (
    FluxOutputError,
    FluxOutputExpiredError,
    FluxPredictionCanceledError,
    FluxPredictionError,
    FluxPredictionFailedError,
    FluxPredictionRejectedError,
)
from airflow_provider_flux.outputs.inline import is_inline
from airflow_provider_flux.protocol.classify import can_pass, is_content_refusal, shorten
from airflow_provider_flux.protocol.fallbacks import cause_of_end
from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.picture_inputs import pictures_of, with_pictures_at
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus
from airflow_provider_flux.protocol.pricing import Cost, cost, price_of, told_cost
from airflow_provider_flux.protocol.storable import storable
from airflow_provider_flux.protocol.times import expires_at, iso
from airflow_provider_flux.telemetry import note_end

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_flux.client.connection import GatewayAccess
    from airflow_provider_flux.outputs.storing import StoredPicture
    from airflow_provider_flux.outputs.task_outputs import Storage

PREDICTION_ID_KEY = "prediction_id"
OUTPUT_URL_KEY = "output_url"
RESULT_KEY = "flux_result"
RETURN_VALUE_KEY = "return_value"
"""Airflow's own key for what a task returns."""

PROMPT_LIMIT = 200
"""How many characters of the prompt are kept in ``flux_result``."""


def publish_id(context: Context, prediction_id: str) -> None:
    """Push the id before any wait, so that it is known whatever happens next."""
    context["ti"].xcom_push(PREDICTION_ID_KEY, prediction_id)


def publish_result(context: Context, result: Mapping[str, Any]) -> None:
    """Push a ``flux_result``, as :func:`describe` makes it."""
    context["ti"].xcom_push(RESULT_KEY, result)


def published_id(context: Context) -> str | None:
    """Return the id that this task pushed before it was deferred."""
    prediction_id = _own_xcom(context, PREDICTION_ID_KEY)
    return prediction_id if isinstance(prediction_id, str) else None


def with_published_inputs(
    context: Context, input: Mapping[str, JSON], shown: Mapping[str, Any] | None
) -> dict[str, JSON]:
    """Return an input with the pictures that this task has read before it was deferred.

    :param shown: the first ``flux_result`` as the record has it; None if it was pushed.
    """
    published = shown or _own_xcom(context, RESULT_KEY)
    inputs = published.get("inputs") if isinstance(published, Mapping) else None
    return with_pictures_at(input, {picture["field"]: picture for picture in inputs or ()})


def _own_xcom(context: Context, key: str) -> Any:
    task_instance: Any = context["ti"]
    return task_instance.xcom_pull(task_ids=task_instance.task_id, key=key, map_indexes=task_instance.map_index)


def settle(
    context: Context,
    prediction: Prediction,
    access: GatewayAccess,
    *,
    model: str = "",
    input: Mapping[str, JSON] | None = None,
    storage: Storage | None = None,
    deadline: float | None = None,
    passed: Sequence[Mapping[str, JSON]] = (),
) -> list[str]:
    """Push what became of a prediction that has ended, and return its URLs, or the paths of its stored pictures.

    ``flux_result`` is pushed in any case, ``output_url`` for a success.

    :param model: the model that was asked for; the answer may name an internal alias.
    :param input: what was sent; not every answer repeats it.
    :param storage: where the pictures are to be stored; None if they are left where they are.
    :param deadline: when storing them must end, in seconds since the epoch, however slowly they come.
    :param passed: the ways that were tried before, as :func:`describe` tells of them.
    :raises FluxPredictionError: if it did not succeed.
    :raises FluxOutputError: if it did, but there is nothing to hand on.
    :raises FluxOutputNotStoredError: if its pictures could not be stored this time.
    """
    model, sent = model or prediction.model, input or prediction.input
    described = partial(describe, prediction, access, model=model, input=sent, passed=passed)
    publish_result(context, described())
    if prediction.status is not PredictionStatus.SUCCEEDED:
        note_end(access.gateway, prediction, model)
        raise ending_error(prediction)
    check_outputs(prediction, may_be_inline=storage is not None)
    pictures = []
    if storage is not None:
        pictures = storage.store(context, prediction, access, model=model, input=sent, deadline=deadline)
    note_end(access.gateway, prediction, model)
    if pictures:
        publish_result(context, described(pictures=pictures))
    urls = _plain(prediction.outputs)
    if urls:
        # A bare string is the only form that Airflow's XCom page makes clickable.
        context["ti"].xcom_push(OUTPUT_URL_KEY, urls[0])
    return [picture.path for picture in pictures] or urls


def xcoms_of_success(prediction: Prediction, access: GatewayAccess, *, model: str) -> dict[str, Any] | None:
    """Return what :func:`settle` would push and return, for a success that needs no worker; None for any other.

    The input is known from the answer alone here, so an answer that does not repeat it is left to a worker.
    """
    urls = _plain(prediction.outputs)
    is_plain = prediction.status is PredictionStatus.SUCCEEDED and urls == list(prediction.outputs) != []
    if not is_plain or not prediction.input.get("prompt"):
        return None
    note_end(access.gateway, prediction, model)
    result = describe(prediction, access, model=model or prediction.model, input=prediction.input)
    return {RESULT_KEY: result, OUTPUT_URL_KEY: urls[0], RETURN_VALUE_KEY: urls}


def push_xcoms(task_instance: Any, xcoms: Mapping[str, JSON]) -> None:
    """Push XComs of a task from the triggerer, one call to Airflow's supervisor each.

    Not in the event that ends the task: Airflow stores those encoded twice, so that a downstream task gets text in
    place of a list, and cannot be mapped over them (3.1 to 3.3: models/trigger.py, models/xcom.py).
    """
    from airflow.sdk.execution_time.xcom import XCom

    for key, value in xcoms.items():
        XCom.set(
            key,
            value,
            dag_id=task_instance.dag_id,
            task_id=task_instance.task_id,
            run_id=task_instance.run_id,
            map_index=task_instance.map_index,
            # What a mapped task downstream is expanded by.
            _mapped_length=len(value) if key == RETURN_VALUE_KEY else None,
        )


def describe(
    prediction: Prediction,
    access: GatewayAccess,
    *,
    model: str,
    input: Mapping[str, JSON],
    pictures: Sequence[StoredPicture] = (),
    passed: Sequence[Mapping[str, JSON]] = (),
) -> dict[str, Any]:
    """Return the small dict that galleries and downstream tasks read: plain JSON, no ``data:`` URI.

    :param model: the model that was asked for.
    :param input: what was sent.
    :param pictures: the stored pictures, where they have been stored.
    :param passed: the ways to make the picture that were tried before, and why they have made none, as a submission's
        record has them.
    """
    prompt, seed = input.get("prompt"), input.get("seed")
    failed = prediction.status is PredictionStatus.FAILED
    described = {
        "id": prediction.id,
        "page": access.gateway.page(prediction) or None,
        "model": model,
        "gateway": access.gateway.preset.name,
        "passed_over": [dict(way) for way in passed],
        "status": prediction.status.value,
        "outputs": _plain(prediction.outputs),
        "stored": [_stored(picture) for picture in pictures],
        "inputs": [{**picture, "field": where} for where, picture in pictures_of(input)],
        "prompt": shorten(prompt, PROMPT_LIMIT) if isinstance(prompt, str) else "",
        "seed": seed if isinstance(seed, int) else None,
        **told(cost_of(prediction, access, model=model, input=input, pictures=pictures)),
        "error": shorten(prediction.error) if prediction.error else None,
        "retry_helps": can_pass(prediction.error or "") if failed else None,
        "metrics": dict(prediction.metrics),
        "created_at": iso(prediction.created_at),
        "started_at": iso(prediction.started_at),
        "completed_at": iso(prediction.completed_at),
        "expires_at": iso(expires_at(prediction)),
    }
    return dict(storable(described))


def _stored(picture: StoredPicture) -> dict[str, Any]:
    return {
        "path": picture.path,
        "sha256": picture.sha256,
        "bytes": picture.size,
        "width": picture.width,
        "height": picture.height,
        "format": picture.format,
    }


def cost_of(
    prediction: Prediction,
    access: GatewayAccess,
    *,
    model: str,
    input: Mapping[str, JSON],
    pictures: Sequence[StoredPicture],
) -> Cost | None:
    """Return what a prediction has cost; None if that is not known, as for one that did not succeed.

    :param model: the model that was asked for.
    :param input: what was sent.
    :param pictures: the stored pictures, where they have been stored.
    """
    if prediction.status is not PredictionStatus.SUCCEEDED:
        return None
    preset = access.gateway.preset
    if preset.bills_on_create and (billed := told_cost(prediction)) is not None:
        return billed
    quote = price_of(preset.name, model, access.prices, access.listed_prices)
    sizes = [(picture.width, picture.height) for picture in pictures]
    return cost(quote, model, input, prediction, sizes=sizes)


def told(cost: Cost | None) -> dict[str, Any]:
    """Return a cost as XComs and manifests tell of it."""
    if cost is None:
        return {"cost_usd": None, "cost_is_at_most": None, "cost_source": None}
    return {"cost_usd": cost.usd, "cost_is_at_most": cost.is_at_most, "cost_source": cost.source}


def ending_error(prediction: Prediction) -> FluxPredictionError:
    """Return the error of a prediction that has ended without success."""
    error = _ending_error(prediction)
    error.cause = cause_of_end(prediction)
    return error


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


def check_outputs(prediction: Prediction, *, may_be_inline: bool) -> None:
    """Check that a success has something to hand on.

    :param may_be_inline: whether a picture inside the answer itself will do.
    :raises FluxOutputExpiredError: if it has been deleted since.
    :raises FluxOutputError: if there is nothing that can be used.
    """
    if not prediction.outputs:
        ended = iso(prediction.completed_at) or "an unknown time"
        if prediction.data_removed:
            raise FluxOutputExpiredError(
                f"Prediction {prediction.id} succeeded at {ended}, but its output has been deleted since: Replicate "
                "keeps files for one hour, other services for less. Give output_path, and the task that waits stores "
                "them before it ends."
            )
        what = (
            f"with an output that is no URL: {prediction.odd_output}" if prediction.odd_output else "without any output"
        )
        raise FluxOutputError(f"Prediction {prediction.id} succeeded at {ended} {what}.")
    if not may_be_inline and _plain(prediction.outputs) != list(prediction.outputs):
        raise FluxOutputError(
            f"Prediction {prediction.id} gave its picture as a data: URI, which is too large for XCom. Give "
            "output_path, and it is stored as a file; clear the task to do so without a new prediction."
        )


def _plain(outputs: Sequence[str]) -> list[str]:
    """Return the outputs that may go to XCom."""
    return [output for output in outputs if not is_inline(output)]
