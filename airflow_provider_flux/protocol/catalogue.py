"""The FLUX models and what each accepts.

An input is checked here before any money is spent. The schemas mirror Replicate's; each names its sources.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from airflow_provider_flux.protocol.dialects import DEPLOYMENTS, is_version, unversioned
from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.run_times import SEEDS
from airflow_provider_flux.protocol.storable import find_unstorable

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

OWNER = "black-forest-labs"

MODELS = tuple(f"{OWNER}/{name}" for name in SEEDS)
"""The models of Replicate's whose input is checked."""

BFL_MODELS = (
    "flux-2-pro",
    "flux-2-max",
    "flux-2-flex",
    "flux-pro-1.1",
    "flux-pro-1.1-ultra",
    "flux-kontext-pro",
    "flux-kontext-max",
    "flux-dev",
)
"""The models of BFL's whose input is checked."""


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
    """Return the JSON Schema of a model's input, or None for a model that is not in the catalogue.

    A version of a model is taken to be like the latest, except that no input is refused on that account.
    """
    name = unversioned(model)
    if name not in (*MODELS, *BFL_MODELS):
        return None
    folder = resources.files(__package__) / "schemas"
    file = folder / "bfl" / f"{name}.json" if name in BFL_MODELS else folder / f"{name.rpartition('/')[2]}.json"
    schema: Mapping[str, JSON] = json.loads(file.read_text("utf-8"))
    return schema


def field_type(model: JSON, name: JSON) -> str | None:
    """Return the JSON type of an input field, such as ``string``; None if that is not known.

    A prompt is a text for every model.
    """
    schema = input_schema(model) if isinstance(model, str) else None
    field: Mapping[str, JSON] = (schema or {}).get("properties", {}).get(name, {})
    is_prompt = not field and isinstance(name, str) and "prompt" in name.lower()
    return "string" if is_prompt else field.get("type")


@functools.cache
def picture_fields(model: str) -> frozenset[str]:
    """Return the fields of a model's input that are pictures, or lists of pictures; none if the model is not known."""
    return frozenset(_picture_fields(input_schema(model) or {}))


def _picture_fields(schema: Mapping[str, JSON]) -> Iterator[str]:
    for name, field in schema.get("properties", {}).items():
        if "uri" in (field.get("format"), field.get("items", {}).get("format")):
            yield name


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
    for problem in find_unstorable(model, "model"):
        return problem
    name = model.removeprefix(DEPLOYMENTS)
    if is_version(name) or (_FULL_NAME.fullmatch(name) and ".." not in name.partition(":")[0].split("/")):
        return None
    names = [f"{OWNER}/{seed}" for seed in SEEDS] if "/" in model else [*BFL_MODELS, *SEEDS]
    likely = difflib.get_close_matches(model.strip().removeprefix("replicate/"), names, n=1)
    if model in BFL_MODELS or (_SHORT_NAME.fullmatch(model) and not (likely and _is_misspelt(model, likely[0]))):
        return None
    if likely and likely[0] in SEEDS and likely[0] not in BFL_MODELS:
        likely = [f"{OWNER}/{likely[0]}"]
    hint = f"; did you mean {likely[0]}?" if likely else ""
    return f"model {model!r} is not of the form owner/name, and no name of BFL's{hint}"


def _is_misspelt(name: str, likely: str) -> bool:
    """Tell whether a name is that of a known model, misspelt, and not that of a newer one."""
    alike = difflib.SequenceMatcher(None, name, likely).ratio() >= MISSPELT
    return alike and re.findall(r"[\d.]+", name) == re.findall(r"[\d.]+", likely)


MISSPELT = 0.85
"""How much alike two names are of which one is taken to be the other."""

_FULL_NAME = re.compile(r"[^\s/:]+/[^\s/:]+(:[0-9a-f]+)?")
_SHORT_NAME = re.compile(r"flux-[a-z0-9.-]+")
"""BFL's names all begin like that (its OpenAPI file)."""


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
    schema = input_schema(model) if against_schema and unversioned(model) == model else None
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
            unstorable = [*find_unstorable(name, "input: field name"), *find_unstorable(value, f"input.{name}")]
            problems += unstorable
            if not unstorable:
                json.dumps(value)
        except RecursionError:
            problems.append(f"input.{name}: it cannot be sent as JSON: it is nested too deeply, or holds itself")
        except (TypeError, ValueError) as error:
            problems.append(f"input.{name}: {_show(value)} cannot be sent as JSON ({error})")
    return tuple(problems)


def _schema_errors(schema: Mapping[str, JSON], input: Mapping[str, JSON]) -> tuple[str, ...]:
    from jsonschema import Draft202012Validator

    errors = sorted(Draft202012Validator(schema).iter_errors(dict(input)), key=lambda error: list(map(str, error.path)))
    of_wrong_type = {tuple(error.absolute_path) for error in errors if error.validator == "type"}
    # A value of the wrong type is none of the choices either, which says nothing more.
    told = (error for error in errors if error.validator != "enum" or tuple(error.absolute_path) not in of_wrong_type)
    return (*map(_explain, told), *_blank_prompt(schema, input))


def _blank_prompt(schema: Mapping[str, JSON], input: Mapping[str, JSON]) -> tuple[str, ...]:
    """Refuse a prompt without a word where there is no picture to work on either: it is an empty cell, and paid for."""
    prompt = input.get("prompt")
    if not isinstance(prompt, str) or prompt.strip():
        return ()
    has_picture = any(input.get(name) for name in _picture_fields(schema))
    return () if has_picture else (f"input.prompt: {prompt!r} is not allowed; it is empty",)


def _explain(error: ValidationError) -> str:
    if error.validator == "required":
        return f"input: {error.message}"
    field = "input." + ".".join(str(step) for step in error.absolute_path)
    return f"{field}: {_show(error.instance)} is not allowed; {_allowed(error)}"


def _allowed(error: ValidationError) -> str:
    """Say what a field allows. Where a range has two ends both are told, though only one was crossed."""
    field_schema: JSON = error.schema
    limit: JSON = error.validator_value
    if error.validator == "enum":
        choices = [str(choice) for choice in limit]
        likely = difflib.get_close_matches(str(error.instance).lower(), choices, n=1)
        hint = f" (did you mean {likely[0]}?)" if likely else ""
        return f"allowed: {_choices(limit)}{hint}"
    if error.validator in ("minimum", "maximum"):
        low, high = field_schema.get("minimum"), field_schema.get("maximum")
        if low is not None and high is not None:
            return f"allowed: {low} to {high}"
        return f"allowed: {error.validator} {limit}"
    if error.validator == "type":
        one_of = f", one of {_choices(field_schema['enum'])}" if "enum" in field_schema else ""
        return f"allowed: {limit}{one_of}{_meant(error.instance, limit, field_schema)}"
    return error.message


def _choices(choices: Sequence[JSON]) -> str:
    """List what may be given. Texts that look like numbers are shown as the texts that they are."""
    look_like_numbers = any(_number(choice) is not None for choice in choices if isinstance(choice, str))
    return ", ".join(json.dumps(choice) if look_like_numbers else str(choice) for choice in choices)


_FROM_TEMPLATE = "a template renders to text: set render_template_as_native_obj=True on the DAG to keep the type"
"""The usual cause of a number in quotes."""


def _meant(value: JSON, wanted: JSON, schema: Mapping[str, JSON]) -> str:
    """Say how a value of the wrong type was probably meant to be written."""
    if value is None:
        return " (leave the field out instead)"
    if wanted == "string" and isinstance(value, (bool, int, float)):
        same = [choice for choice in schema.get("enum", ()) if _number(choice) == value]
        return f" (the text {json.dumps(same[0] if same else str(value))} is meant, in quotes)"
    if wanted == "boolean" and value in (0, 1):
        return f" ({bool(value)} is meant)"
    if isinstance(value, str) and wanted in ("integer", "number", "boolean", "array"):
        number = _number(value)
        is_meant = wanted in ("integer", "number") and number is not None
        word = value.strip().lower() if wanted == "boolean" else ""
        plain = value.strip() if is_meant else {"true": "True", "false": "False"}.get(word, "")
        return f" ({f'{plain} is meant, without quotes; ' if plain else ''}{_FROM_TEMPLATE})"
    return ""


def _number(text: JSON) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


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
