"""Checks of a create request's body, refused as Replicate refuses them."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

import jsonschema
from jsonschema.exceptions import ValidationError

from airflow_provider_flux.emulator.errors import problem_body
from airflow_provider_flux.emulator.served_models import Model, schema

# Replicate's OpenAPI file: the request root takes no other keys.
ROOT_KEYS = frozenset({"input", "webhook", "webhook_events_filter", "stream", "version"})
_TYPES = {
    "enum": "enum",
    "required": "required",
    "type": "invalid_type",
    "minimum": "number_gte",
    "maximum": "number_lte",
    "maxItems": "array_max_items",
}
_BFL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["prompt"],
    "properties": {
        "prompt": {"type": "string"},
        "width": {"type": "integer", "minimum": 256, "maximum": 2048, "multipleOf": 32},
        "height": {"type": "integer", "minimum": 256, "maximum": 2048, "multipleOf": 32},
        "steps": {"type": "integer", "minimum": 1, "maximum": 50},
        "seed": {"type": "integer"},
        "guidance": {"type": "number", "minimum": 1.5, "maximum": 10},
        "safety_tolerance": {"type": "integer", "minimum": 0, "maximum": 6},
        "output_format": {"enum": ["jpeg", "png"]},
    },
}


@functools.cache
def _validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema(name))


_BFL_VALIDATOR = jsonschema.Draft202012Validator(_BFL_SCHEMA)


def _field(kind: str, field: str, description: str) -> dict[str, str]:
    return {"type": kind, "field": field, "description": description}


def _describe(error: ValidationError) -> dict[str, str]:
    field = ".".join(["input", *(str(part) for part in error.absolute_path)])
    texts = {
        "enum": f"{field} must be one of the following: {', '.join(map(json.dumps, _listed(error)))}",
        "minimum": f"Must be greater than or equal to {error.validator_value}",
        "maximum": f"Must be less than or equal to {error.validator_value}",
        "type": f"Invalid type. Expected: {error.validator_value}, given: {_json_type(error.instance)}",
        "required": f"{_missing(error)} is required",
    }
    validator = str(error.validator)
    return _field(_TYPES.get(validator, validator), field, texts.get(validator, error.message))


def _listed(error: ValidationError) -> list[Any]:
    value = error.validator_value
    return list(value) if isinstance(value, list) and error.validator == "enum" else []


def _missing(error: ValidationError) -> str:
    names, given = error.validator_value, error.instance
    if error.validator != "required" or not isinstance(names, list) or not isinstance(given, dict):
        return ""
    return next((str(name) for name in names if name not in given), "")


def _json_type(value: object) -> str:
    names = ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (list, "array"), (dict, "object"))
    return next((name for kind, name in names if isinstance(value, kind)), "null")


def input_faults(model: Model, given: object) -> list[dict[str, str]]:
    """List what is wrong with an input.

    :param model: the model that shall run.
    :param given: the value of ``input``.
    """
    errors = sorted(_validator(model.name).iter_errors(given), key=lambda error: list(map(str, error.absolute_path)))
    return [_describe(error) for error in errors]


def root_faults(body: Mapping[str, Any], strict: bool) -> list[dict[str, str]]:
    """List what is wrong with a request's root.

    :param body: the request's body.
    :param strict: whether unknown keys are refused.
    """
    faults = [] if "input" in body else [_field("required", "(root)", "input is required")]
    if strict:
        unknown = [name for name in body if name not in ROOT_KEYS]
        kind = "additional_property_not_allowed"
        faults += [_field(kind, "(root)", f"Additional property {name} is not allowed") for name in unknown]
    return faults


def refusal(faults: list[dict[str, str]]) -> dict[str, Any]:
    """Build the body of Replicate's 422.

    :param faults: what is wrong, from :func:`input_faults` or :func:`root_faults`.
    """
    lines = "".join(f"- {fault['field']}: {fault['description']}\n" for fault in faults)
    return problem_body(422, lines, "Input validation failed", invalid_fields=faults)


def bfl_faults(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List what is wrong with a BFL-style body, in FastAPI's shape.

    :param body: the request's body.
    """
    return [
        {"loc": ["body", *error.absolute_path], "msg": error.message, "type": f"value_error.{error.validator}"}
        for error in _BFL_VALIDATOR.iter_errors(dict(body))
    ]
