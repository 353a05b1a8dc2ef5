"""What the create routes of all flavours share: the checks of a body, the prediction made, and the wait for its end."""

from __future__ import annotations

import asyncio
import functools
import json
import re
from collections.abc import Mapping
from typing import Any

import jsonschema
from jsonschema.exceptions import ValidationError

from airflow_provider_flux.emulator.calls import Call
from airflow_provider_flux.emulator.input_pictures import take_in
from airflow_provider_flux.emulator.predictions import Prediction
from airflow_provider_flux.emulator.responses import Refused
from airflow_provider_flux.emulator.served_models import Model
from airflow_provider_flux.emulator.webhooks import WEBHOOKS
from airflow_provider_flux.protocol.catalogue import input_schema

WAIT_STEP = 0.05
DEFAULT_EVENTS = ("output", "completed")  # replicate.com/docs/topics/webhooks
# Replicate's OpenAPI file: the request root takes no other keys.
ROOT_KEYS = frozenset({"input", "webhook", "webhook_events_filter", "stream", "version"})
_WAIT = re.compile(r"^wait(?:=([1-9]|[1-9][0-9]|60))?$")
_TYPES = {"type": "invalid_type", "minimum": "number_gte", "maximum": "number_lte", "maxItems": "array_max_items"}
_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


def check(call: Call, model: Model, body: Mapping[str, Any], strict: bool) -> None:
    """Refuse a body as Replicate refuses it; ``strict`` also refuses keys at its root that nobody knows."""
    faults = [] if "input" in body else [_fault("required", "(root)", "input is required")]
    if strict:
        kind = "additional_property_not_allowed"
        unknown = [f"Additional property {name} is not allowed" for name in body if name not in ROOT_KEYS]
        faults += [_fault(kind, "(root)", text) for text in unknown]
    if not faults:
        errors = _validator(model).iter_errors(body["input"])
        faults = [_describe(error) for error in sorted(errors, key=lambda error: [*map(str, error.absolute_path)])]
    if faults:
        raise Refused(call.wording.refused_input(faults))


def bfl_faults(model: str, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List what is wrong with a BFL-style body for one of BFL's models, in FastAPI's shape."""
    return [
        {"loc": ["body", *error.absolute_path], "msg": error.message, "type": f"value_error.{error.validator}"}
        for error in jsonschema.Draft202012Validator(input_schema(model) or {}).iter_errors(dict(body))
    ]


def webhook_fields(body: Mapping[str, Any], name: str = "webhook") -> dict[str, Any]:
    """Return the prediction's webhook fields from a create body that holds the address under a name."""
    address = body.get(name)
    if not isinstance(address, str) or not address:
        return {}
    events = body.get("webhook_events_filter")
    listed = tuple(str(event) for event in events) if isinstance(events, list) and events else DEFAULT_EVENTS
    return {"webhook": address, "webhook_events": listed}


async def create(call: Call, model: Model, given: dict[str, Any], **more: Any) -> Prediction:
    """Make the prediction of a request that passed all checks, with further fields of the prediction."""
    # A request that has come whole is carried out, even if nobody waits for the response any more.
    return await asyncio.shield(_create(call, model, given, **more))


async def _create(call: Call, model: Model, given: dict[str, Any], **more: Any) -> Prediction:
    taken = await take_in(call, model, given)
    prediction = call.state.make_prediction(
        call.route.flavour.removesuffix("_itself"),
        model,
        taken.shown,
        error=taken.error,
        pictures=taken.pictures,
        **more,
    )
    call.state.ledger.count("accepted", call.record, accepted=True, prediction_id=prediction.id)
    call.request.app[WEBHOOKS].watch(prediction)
    return prediction


async def wait(call: Call, prediction: Prediction) -> bool | None:
    """Hold a create as ``Prefer`` asks (Replicate's OpenAPI file); tell whether it has ended, if asked."""
    match = _WAIT.match(call.request.headers.get("Prefer", "").strip())
    if match is None:
        return None
    loop = asyncio.get_running_loop()
    limit = loop.time() + min(float(match[1] or 60), 60)
    while prediction.at(call.state.now).ended is None:
        left = limit - loop.time()
        if left <= 0 or call.state.closing.is_set():
            return False
        await asyncio.sleep(min(WAIT_STEP, left))
    return True


@functools.cache
def _validator(model: Model) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(model.schema)


def _fault(kind: str, field: str, description: str) -> dict[str, str]:
    return {"type": kind, "field": field, "description": description}


def _describe(error: ValidationError) -> dict[str, str]:
    field = ".".join(["input", *map(str, error.absolute_path)])
    kind, wanted, given = str(error.validator), error.validator_value, error.instance
    text = error.message
    if kind == "enum" and isinstance(wanted, list):
        text = f"{field} must be one of the following: {', '.join(map(json.dumps, wanted))}"
    elif kind == "minimum":
        text = f"Must be greater than or equal to {wanted}"
    elif kind == "maximum":
        text = f"Must be less than or equal to {wanted}"
    elif kind == "type":
        text = f"Invalid type. Expected: {wanted}, given: {_JSON_TYPES.get(type(given), 'null')}"
    elif kind == "required" and isinstance(wanted, list) and isinstance(given, dict):
        text = f"{next(name for name in wanted if name not in given)} is required"
    return _fault(_TYPES.get(kind, kind), field, text)
