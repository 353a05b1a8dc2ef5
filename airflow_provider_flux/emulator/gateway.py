"""The gateway's own routes as apidoc.deerapi.com and apidoc.cometapi.com describe them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from airflow_provider_flux.emulator import creation, responses
from airflow_provider_flux.emulator.calls import Call
from airflow_provider_flux.emulator.responses import Refused, json_response
from airflow_provider_flux.emulator.served_models import MODELS, Model, by_version
from airflow_provider_flux.emulator.shapes import View


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
    model = sold(call, MODELS, named)
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


def sold(call: Call, models: Mapping[str, Model], name: str) -> Model:
    """Return the model of a name, or refuse as a gateway does that does not sell it."""
    model = models.get(name)
    if model is None or model.full_name in call.state.settings.unsold:
        raise Refused(call.wording.model_not_found(name))
    return model
