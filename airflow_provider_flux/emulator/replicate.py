"""Replicate's own routes under ``/v1``: the predictions API of its OpenAPI file."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from yarl import URL

from airflow_provider_flux.emulator import creation
from airflow_provider_flux.emulator.calls import Call
from airflow_provider_flux.emulator.predictions import Prediction
from airflow_provider_flux.emulator.responses import Refused, json_response, problem
from airflow_provider_flux.emulator.served_models import BY_NAME, MODELS, Model, by_version
from airflow_provider_flux.emulator.shapes import View, read_time
from airflow_provider_flux.emulator.webhooks import leads_here

PAGE_SIZE = 100
_DURATION = re.compile(r"^(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m)?(?:(?P<s>\d+)s)?$|^(?P<bare>\d+)$")  # 1h30m45s, or seconds
_UNITS = {"h": 3600, "m": 60, "s": 1, "bare": 1}


async def create_by_model(call: Call) -> web.StreamResponse:
    return await _create(call, _named_model(call), call.json_object())


async def create_legacy(call: Call) -> web.StreamResponse:
    body = call.json_object()
    model = by_version(str(body.get("version", "")))
    if model is None:
        text = "Invalid version or not permitted"
        raise Refused(problem(422, text, title=text))
    version = str(body["version"]).rpartition(":")[2]
    return await _create(call, model, body, version=version if version == model.version_id else None)


async def create_by_deployment(call: Call) -> web.StreamResponse:
    """Create by a deployment; each model has one of its name, whoever owns it."""
    model = BY_NAME.get(call.path["name"])
    if model is None:
        raise Refused(call.wording.error(404))
    return await _create(call, model, call.json_object(), deployment=f"{call.path['owner']}/{call.path['name']}")


async def _create(call: Call, model: Model, body: dict[str, Any], **fields: Any) -> web.StreamResponse:
    state, settings = call.state, call.state.settings
    creation.check(call, model, body, strict=True)
    more = {**_webhook(body), **_deadline(call), **fields}
    prediction = await creation.create(call, model, body["input"], **more)
    headers = {"Location": f"{state.gateway_url}/v1/predictions/{prediction.id}"}
    ended = await creation.wait(call, prediction)
    if ended is not None:
        headers["Preference-Applied"] = call.request.headers["Prefer"]
    now = prediction.created if ended is None else state.now
    body = View(state, prediction, now, settings.early_output(ended)).prediction()
    status = 202 if ended is False else 201
    return json_response(body, status=settings.created_status or status, headers=headers)


def _webhook(body: Mapping[str, Any]) -> dict[str, Any]:
    fields = creation.webhook_fields(body)
    address = fields.get("webhook", "")
    if address and not address.startswith("https://") and not leads_here(address):
        raise Refused(problem(422, "- webhook: must be an HTTPS URL\n", "Input validation failed"))
    return fields


def _deadline(call: Call) -> dict[str, Any]:
    text = call.request.headers.get("Cancel-After")
    if text is None:
        return {}
    match, least = _DURATION.match(text.strip()), call.state.settings.min_cancel_after
    parts = match.groupdict(default="0") if match else {}
    seconds = sum(int(parts[unit]) * length for unit, length in _UNITS.items() if unit in parts)
    if not text.strip() or match is None or seconds < least:
        raise Refused(problem(422, f"Cancel-After must be a duration of at least {least:g} seconds"))
    return {"deadline": call.state.now + seconds}


async def query(call: Call) -> web.StreamResponse:
    prediction = _known(call)
    prediction.gets += 1
    return json_response(View(call.state, prediction).prediction())


async def cancel(call: Call) -> web.StreamResponse:
    """Cancel and respond with the prediction; one that has ended stays as it is."""
    prediction = _known(call)
    if call.state.settings.cancel != "ignored":
        call.state.cancel(prediction, "replicate")
    return json_response(View(call.state, prediction).prediction())


def _known(call: Call) -> Prediction:
    prediction = call.prediction()
    if prediction is None or prediction.flavour == "bfl":
        raise Refused(call.wording.error(404))
    return prediction


async def list_page(call: Call) -> web.StreamResponse:
    """List predictions, newest first, 100 a page."""
    query = call.request.query
    try:
        after = read_time(query.get("created_after", "1970-01-01"))
        before = read_time(query.get("created_before", "9999-12-31"))
        edge = _read_cursor(query["cursor"]) if "cursor" in query else None
    except ValueError as error:
        raise Refused(problem(400, f"Invalid query: {error}")) from error
    made = [] if query.get("source") == "web" else reversed(call.state.predictions())
    shown = [each for each in made if after <= each.created < before and each.flavour != "bfl"]
    start = 0 if edge is None else sum(prediction.number >= edge for prediction in shown)
    page = shown[start : start + PAGE_SIZE]
    previous = shown[max(start - PAGE_SIZE, 0)].number + 1 if start else None
    following = page[-1].number if len(shown) > start + PAGE_SIZE else None
    return json_response(
        {
            "previous": _page_address(call, previous),
            "next": _page_address(call, following),
            "results": [View(call.state, prediction).prediction() for prediction in page],
        }
    )


def _read_cursor(text: str) -> int:
    try:
        return int(base64.urlsafe_b64decode(text.encode()).decode().removeprefix("n="))
    except (binascii.Error, UnicodeError) as error:
        raise ValueError("bad cursor") from error


def _page_address(call: Call, edge: int | None) -> str | None:
    if edge is None:
        return None
    kept = {name: value for name, value in call.request.query.items() if name != "cursor"}
    kept["cursor"] = base64.urlsafe_b64encode(f"n={edge}".encode()).decode()
    return str(URL(f"{call.state.gateway_url}/v1/predictions").with_query(kept))


async def account(call: Call) -> web.StreamResponse:
    """Respond with the account; it names the stand-in."""
    return json_response({"type": "user", "username": "local-stand-in", "name": "Local stand-in"})


async def webhook_secret(call: Call) -> web.StreamResponse:
    """Respond with the secret that webhook calls are signed with."""
    return json_response({"key": call.state.webhook_secret})


async def describe_model(call: Call) -> web.StreamResponse:
    """Respond with a model and its schemas."""
    model = _named_model(call)
    full = model.schema
    given = {name: full[name] for name in ("type", "title", "required", "properties")}
    schemas = {"Input": given, "Output": {"title": "Output", **full["$defs"]["output"]}}
    openapi = {
        "openapi": "3.1.0",
        "info": {"title": "Cog", "version": "0.1.0"},
        "paths": {},
        "components": {"schemas": schemas},
    }
    return json_response(
        {
            "url": f"{call.state.gateway_url}/{model.full_name}",
            "owner": call.path["owner"],
            "name": model.name,
            "description": "Local stand-in: draws a picture with the prompt on it; no model runs.",
            "visibility": "public",
            "is_official": True,
            "run_count": 0,
            "default_example": None,
            "latest_version": {
                "id": model.version_id,
                "created_at": "2026-01-01T00:00:00.000Z",
                "openapi_schema": openapi,
            },
        }
    )


def _named_model(call: Call) -> Model:
    model = MODELS.get(f"{call.path['owner']}/{call.path['name']}")
    if model is None:
        raise Refused(call.wording.error(404))
    return model
