"""The routes in BFL's style: those of the gateways, and BFL's own (its OpenAPI file)."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from airflow_provider_flux.emulator import creation, responses
from airflow_provider_flux.emulator.calls import Call
from airflow_provider_flux.emulator.gateway import sold
from airflow_provider_flux.emulator.predictions import Prediction
from airflow_provider_flux.emulator.responses import Refused, json_response
from airflow_provider_flux.emulator.served_models import BFL_MODELS, credits_of
from airflow_provider_flux.emulator.shapes import View, bfl_unknown
from airflow_provider_flux.protocol.pricing import CREDIT_USD

OWN_FIELDS = ("webhook_url", "webhook_secret")


async def create_at_gateway(call: Call) -> web.StreamResponse:
    """Create from a flat body (apidoc.cometapi.com/api/image/flux/flux-generate-image)."""
    sold(call, BFL_MODELS, call.path["model"])
    body = call.json_object()
    if faults := creation.bfl_faults(call.path["model"], body):
        raise Refused(responses.upstream_refusal(422, {"detail": faults}))
    made = await _make(call, body)
    if call.state.settings.create_shape == "envelope":
        created = View(call.state, made, made.created).envelope()
    else:
        # DeerAPI's page has these, all null.
        created = {**_created(call, made, body), "cost": None, "input_mp": None, "output_mp": None}
    return json_response(created, status=call.state.settings.created_status or 200)


async def create(call: Call) -> web.StreamResponse:
    """Create at BFL itself, which tells what it costs."""
    settings, body = call.state.settings, call.json_object()
    model = BFL_MODELS.get(call.path["model"])
    if model is None or model.full_name in settings.unsold:
        raise Refused(call.wording.error(404))
    if faults := creation.bfl_faults(call.path["model"], body):
        raise Refused(json_response({"detail": faults}, status=422))
    active = sum(1 for made in call.state.predictions() if made.flavour == "bfl" and not made.at(call.state.now).ended)
    if settings.active_limit is not None and active >= settings.active_limit:
        raise Refused(call.wording.too_many("none", 1.0))
    made = await _make(call, body)
    return json_response({**_created(call, made, body), **made.billed}, status=settings.created_status or 200)


async def _make(call: Call, body: dict[str, Any]) -> Prediction:
    given = {name: value for name, value in body.items() if name not in OWN_FIELDS}
    fields = creation.webhook_fields(body, "webhook_url")
    secret = body.get("webhook_secret")
    name = call.path["model"]
    billed = credits_of(name, given) if call.route.flavour == "bfl_itself" else {}
    return await creation.create(
        call,
        BFL_MODELS[name],
        given,
        **fields,
        webhook_secret=secret if isinstance(secret, str) else None,
        billed=billed,
    )


def _created(call: Call, made: Prediction, body: dict[str, Any]) -> dict[str, Any]:
    if made.webhook is not None:
        # With a webhook the response has no polling_url.
        return {"id": made.id, "status": "Pending", "webhook_url": made.webhook}
    state = call.state
    itself = call.route.flavour == "bfl_itself"
    origin = (state.settings.polling_origin or state.gateway_url) if itself else state.foreign_url
    return {"id": made.id, "polling_url": f"{origin}/v1/get_result?id={made.id}"}


async def query_any(call: Call) -> web.StreamResponse:
    """Respond to ids of both styles (flux-query): a Replicate-path id gets a standard prediction object."""
    prediction = call.prediction()
    if prediction is None:
        return json_response(bfl_unknown(call.record.prediction_id or ""))
    prediction.gets += 1
    return json_response(View(call.state, prediction).shaped("bfl" if prediction.flavour == "bfl" else "prediction"))


async def query(call: Call) -> web.StreamResponse:
    """Respond as BFL does: what is unknown or expired is a 404 (seen by public code)."""
    prediction = call.prediction()
    shown = None if prediction is None or prediction.flavour != "bfl" else View(call.state, prediction).bfl()
    if prediction is None or shown is None or shown["status"] == "Task not found":
        return json_response(bfl_unknown(call.record.prediction_id or ""), status=404)
    prediction.gets += 1
    return json_response({**shown, **prediction.billed})


async def credits_left(call: Call) -> web.StreamResponse:
    """Respond with the credits that are left."""
    spent = sum(made.billed.get("cost") or 0.0 for made in call.state.predictions())
    return json_response({"credits": round(call.state.settings.balance / CREDIT_USD - spent, 6)})
