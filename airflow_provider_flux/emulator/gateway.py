"""The gateway's own routes as apidoc.deerapi.com and apidoc.cometapi.com describe them, and those in BFL's style."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from airflow_provider_flux.emulator import creation, responses
from airflow_provider_flux.emulator.calls import Call
from airflow_provider_flux.emulator.responses import Refused, json_response
from airflow_provider_flux.emulator.served_models import BFL_MODELS, MODELS, Model, by_version
from airflow_provider_flux.emulator.shapes import View, bfl_unknown


async def create_by_model(call: Call) -> web.StreamResponse:
    body = call.json_object()
    return await _create(call, f"{call.path['owner']}/{call.path['name']}", body)


async def create_legacy(call: Call) -> web.StreamResponse:
    """Create with ``version`` in the body, or ``model`` as older pages had it."""
    body = call.json_object()
    named = body.get("version") or body.get("model")
    if not isinstance(named, str) or not named:
        raise Refused(call.wording.error(400))
    model = by_version(named)
    return await _create(call, model.full_name if model else named, body)


async def _create(call: Call, named: str, body: dict[str, Any]) -> web.StreamResponse:
    state, settings = call.state, call.state.settings
    model = _sold(call, MODELS, named)
    creation.check(call, model, body, strict=False)
    prediction = await creation.create(call, model, body["input"], **creation.webhook_fields(body))
    ended = await creation.wait(call, prediction) if settings.gateway_prefer else None
    early = settings.early_output(ended)
    view = View(state, prediction, prediction.created if ended is None else state.now, early)
    return json_response(
        view.prediction() if early else view.shaped(settings.create_shape), status=settings.created_status or 200
    )


async def query(call: Call) -> web.StreamResponse:
    """Respond in the shape that is set."""
    prediction = call.prediction()
    if prediction is None:
        return responses.unknown_task()
    prediction.gets += 1
    return json_response(View(call.state, prediction).shaped(call.state.settings.shape))


async def cancel(call: Call) -> web.StreamResponse:
    """Cancel, or respond as a gateway without that route does; no gateway documents one."""
    mode = call.state.settings.cancel
    if mode in _NO_CANCEL:
        return _NO_CANCEL[mode](call)
    prediction = call.prediction()
    if prediction is None:
        return responses.unknown_task()
    if mode == "works":
        call.state.cancel(prediction, "gateway")
    return json_response(View(call.state, prediction).shaped(call.state.settings.shape))


async def list_all(call: Call) -> web.StreamResponse:
    """Respond as gateways do where nothing lives: with a page or a redirect."""
    return _redirect(call) if call.state.settings.list_answer == "redirect" else responses.no_such_page()


def _redirect(call: Call) -> web.Response:
    return responses.redirect(call.state.foreign_url + call.request.path)


def _no_post(call: Call) -> web.Response:
    return call.wording.gateway_error(404, f"Invalid URL (POST {call.request.path})", "invalid_request_error")


_NO_CANCEL: dict[str, Callable[[Call], web.Response]] = {
    "404": _no_post,
    "405": lambda call: web.Response(text="405: Method Not Allowed", status=405, headers={"Allow": "GET,HEAD"}),
    "html": lambda call: responses.no_such_page(),
    "redirect": _redirect,
}


def _sold(call: Call, models: Mapping[str, Model], name: str) -> Model:
    model = models.get(name)
    if model is None or model.full_name in call.state.settings.unsold:
        raise Refused(call.wording.model_not_found(name))
    return model


async def create_bfl(call: Call) -> web.StreamResponse:
    """Create from a flat body (apidoc.cometapi.com/api/image/flux/flux-generate-image)."""
    settings = call.state.settings
    model = _sold(call, BFL_MODELS, call.path["model"])
    body = call.json_object()
    if faults := creation.bfl_faults(body):
        raise Refused(responses.upstream_refusal(422, {"detail": faults}))
    given = {name: value for name, value in body.items() if name not in {"webhook_url", "webhook_secret"}}
    made = await creation.create(call, model, given, **creation.webhook_fields(body, "webhook_url"))
    if settings.create_shape == "envelope":
        created = View(call.state, made, made.created).envelope()
    elif made.webhook is not None:
        # BFL's OpenAPI file: with a webhook the response has no polling_url
        created = {"id": made.id, "status": "Pending", "webhook_url": made.webhook}
    else:
        created = {"id": made.id, "polling_url": f"{call.state.foreign_url}/v1/get_result?id={made.id}"}
    if settings.create_shape != "envelope":
        created |= {"cost": None, "input_mp": None, "output_mp": None}
    return json_response(created, status=settings.created_status or 200)


async def query_any(call: Call) -> web.StreamResponse:
    """Respond to ids of both styles (flux-query): a Replicate-path id gets a standard prediction object."""
    prediction = call.prediction()
    if prediction is None:
        return json_response(bfl_unknown(call.record.prediction_id or ""))
    prediction.gets += 1
    return json_response(View(call.state, prediction).shaped("bfl" if prediction.flavour == "bfl" else "prediction"))
