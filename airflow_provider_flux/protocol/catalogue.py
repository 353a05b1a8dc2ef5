"""The FLUX models and what each accepts.

An input is checked here before any money is spent. The schemas mirror Replicate's; each names its sources.
"""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.run_times import SEEDS

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

OWNER = "black-forest-labs"

MODELS = tuple(f"{OWNER}/{name}" for name in SEEDS)
"""The models whose input is checked."""


@dataclass(frozen=True, slots=True)
class InputReport:
    """What is wrong with an input.

    :param errors: reasons not to send it.
    :param warnings: what the gateway will not do as the caller may think.
    """

    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@functools.cache
def input_schema(model: str) -> Mapping[str, JSON] | None:
    """Return the JSON Schema of a model's input, or None for a model that is not in the catalogue."""
    if model not in MODELS:
        return None
    file = resources.files(__package__) / "schemas" / f"{model.rpartition('/')[2]}.json"
    schema: Mapping[str, JSON] = json.loads(file.read_text("utf-8"))
    return schema


def expected_outputs(model: str, input: Mapping[str, JSON]) -> int | None:
    """Return how many outputs a finished run has; None if that is not known.

    :param input: the input as the gateway echoes it; empty if it does not.
    """
    schema = input_schema(model)
    if schema is None:
        return None
    if schema["$defs"]["output"]["type"] == "string":
        return 1
    asked = input.get("num_outputs", schema["properties"]["num_outputs"]["default"])
    return asked if input and isinstance(asked, int) else None


def check_model(model: str) -> str | None:
    """Return what is wrong with a model's name, or None."""
    if not isinstance(model, str):
        return f"model must be a text such as {MODELS[0]!r}, not {type(model).__name__}"
    owner, slash, name = model.partition("/")
    if owner and slash and name and "/" not in name and model == model.strip() and ".." not in (owner, name):
        return None
    likely = difflib.get_close_matches(model.strip().rpartition("/")[2], SEEDS, n=1)
    hint = f"; did you mean {OWNER}/{likely[0]}?" if likely else ""
    return f"model {model!r} is not of the form owner/name{hint}"


def check_input(model: str, input: Mapping[str, JSON], *, against_schema: bool = True) -> InputReport:
    """Check that an input can be sent, and that the model would accept it.

    :param model: ``owner/name``; a model that is not in the catalogue has no schema to check against.
    :param input: what would be sent.
    :param against_schema: check it against the model's schema too.
    """
    problem = check_model(model)
    if problem is not None:
        return InputReport((problem,))
    if not isinstance(input, Mapping):
        return InputReport((f"input must be a mapping of field names to values, not {type(input).__name__}",))
    unsendable = _unsendable_fields(input)
    schema = input_schema(model) if against_schema else None
    if unsendable or schema is None:
        return InputReport(unsendable)
    return InputReport(_schema_errors(schema, input), _unknown_fields(model, schema, input))


def _unsendable_fields(input: Mapping[str, JSON]) -> tuple[str, ...]:
    problems = []
    for name, value in input.items():
        if not isinstance(name, str):
            problems.append(f"input: field name {name!r} is not a text")
            continue
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            problems.append(f"input.{name}: {_show(value)} cannot be sent as JSON ({error})")
    return tuple(problems)


def _schema_errors(schema: Mapping[str, JSON], input: Mapping[str, JSON]) -> tuple[str, ...]:
    from jsonschema import Draft202012Validator

    errors = Draft202012Validator(schema).iter_errors(dict(input))
    return tuple(_explain(error) for error in sorted(errors, key=lambda error: list(map(str, error.path))))


def _explain(error: ValidationError) -> str:
    if error.validator == "required":
        return f"input: {error.message}"
    field = "input." + ".".join(str(step) for step in error.absolute_path)
    return f"{field}: {_show(error.instance)} is not allowed; {_allowed(error)}{_template_hint(error)}"


def _allowed(error: ValidationError) -> str:
    """Say what a field allows. Where a range has two ends both are told, though only one was crossed."""
    field_schema: JSON = error.schema
    limit: JSON = error.validator_value
    if error.validator == "enum":
        choices = [str(choice) for choice in limit]
        likely = difflib.get_close_matches(str(error.instance).lower(), choices, n=1)
        hint = f" (did you mean {likely[0]}?)" if likely else ""
        return f"allowed: {', '.join(choices)}{hint}"
    if error.validator in ("minimum", "maximum"):
        low, high = field_schema.get("minimum"), field_schema.get("maximum")
        if low is not None and high is not None:
            return f"allowed: {low} to {high}"
        return f"allowed: {error.validator} {limit}"
    if error.validator == "type":
        return f"allowed: {limit}"
    return error.message


def _template_hint(error: ValidationError) -> str:
    """A rendered template is a text unless the DAG says otherwise: the usual cause of a number in quotes."""
    if error.validator != "type" or not isinstance(error.instance, str):
        return ""
    if error.validator_value not in ("integer", "number", "boolean", "array"):
        return ""
    return " (a template renders to text: set render_template_as_native_obj=True on the DAG to keep the type)"


def _unknown_fields(
    model: str,
    schema: Mapping[str, JSON],
    input: Mapping[str, JSON],
) -> tuple[str, ...]:
    warnings = []
    for name in input:
        if name not in schema["properties"]:
            likely = difflib.get_close_matches(name, schema["properties"], n=1)
            hint = f"; did you mean {likely[0]}?" if likely else ""
            warnings.append(f"input.{name}: {model} has no such field and will ignore it{hint}")
    return tuple(warnings)


def _show(value: JSON) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
