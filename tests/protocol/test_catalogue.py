"""What is checked before any money is spent."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from airflow_provider_flux.protocol.catalogue import (
    BFL_MODELS,
    MODELS,
    check_input,
    check_model,
    expected_outputs,
    input_schema,
)
from tests.protocol.recorded import COMETAPI_CREATE, DEERAPI_CREATE

SCHNELL = "black-forest-labs/flux-schnell"
DEV = "black-forest-labs/flux-dev"
FLEX = "black-forest-labs/flux-2-flex"


def test_the_catalogue_holds_the_eleven_flux_models() -> None:
    assert len(MODELS) == len(set(MODELS)) == 11
    assert all(model.startswith("black-forest-labs/flux-") for model in MODELS)


@pytest.mark.parametrize("model", MODELS)
def test_each_schema_is_valid_and_needs_nothing_but_a_prompt(model: str) -> None:
    schema = input_schema(model)
    assert schema is not None
    Draft202012Validator.check_schema(schema)
    assert schema["required"] == ["prompt"]


@pytest.mark.parametrize("model", MODELS)
def test_the_defaults_of_a_model_pass_its_own_check(model: str) -> None:
    schema = input_schema(model)
    assert schema is not None
    defaults = {name: field["default"] for name, field in schema["properties"].items() if "default" in field}
    assert defaults
    report = check_input(model, {"prompt": "a cat", **defaults})
    assert (report.errors, report.warnings) == ((), ())


@pytest.mark.parametrize("model", [model for model in MODELS if model not in (SCHNELL, DEV)])
@pytest.mark.parametrize("input", [{}, {"prompt": "a cat"}, {"prompt": "a cat", "num_outputs": 3}])
def test_a_model_that_makes_one_picture_is_done_with_one(model: str, input: dict[str, Any]) -> None:
    """output: string, list, `data:` URI, null, shorter list than asked"""
    assert expected_outputs(model, input) == 1


@pytest.mark.parametrize("model", [SCHNELL, DEV])
@pytest.mark.parametrize(
    ("input", "count"),
    [
        ({"prompt": "a cat"}, 1),
        ({"num_outputs": 1}, 1),
        ({"prompt": "a cat", "num_outputs": 4}, 4),
        ({}, None),
        ({"num_outputs": "4"}, None),
        ({"num_outputs": None}, None),
        ({"num_outputs": 2.0}, None),
    ],
)
def test_a_model_that_makes_a_list_is_done_with_what_the_echoed_input_asked_for(
    model: str, input: dict[str, Any], count: int | None
) -> None:
    """output: string, list, `data:` URI, null, shorter list than asked"""
    assert expected_outputs(model, input) == count


@pytest.mark.parametrize("model", ["", "flux-schnell", "stability-ai/sdxl", "black-forest-labs/flux-next"])
def test_nobody_knows_how_many_pictures_another_model_makes(model: str) -> None:
    """output: string, list, `data:` URI, null, shorter list than asked"""
    assert expected_outputs(model, {"prompt": "a cat", "num_outputs": 1}) is None


@pytest.mark.parametrize("sample", [COMETAPI_CREATE, DEERAPI_CREATE])
def test_the_documented_inputs_pass(sample: dict[str, Any]) -> None:
    report = check_input(sample["model"], sample["input"])
    assert (report.errors, report.warnings) == ((), ())


@pytest.mark.parametrize(
    ("model", "field", "value", "allowed"),
    [
        (SCHNELL, "num_outputs", 5, "1 to 4"),
        (SCHNELL, "num_outputs", 0, "1 to 4"),
        (SCHNELL, "num_outputs", True, "integer"),
        (SCHNELL, "output_format", "jpeg", "webp, jpg, png (did you mean jpg?)"),
        (SCHNELL, "aspect_ratio", "16/9", "16:9"),
        (SCHNELL, "megapixels", 1, "string"),
        (SCHNELL, "seed", None, "integer"),
        (SCHNELL, "prompt", 5, "string"),
        (DEV, "guidance", 10.5, "0 to 10"),
        (DEV, "prompt_strength", -0.1, "0 to 1"),
        ("black-forest-labs/flux-1.1-pro-ultra", "output_format", "webp", "jpg, png"),
        ("black-forest-labs/flux-kontext-pro", "output_format", "webp", "jpg, png"),
        ("black-forest-labs/flux-1.1-pro", "width", 2000, "256 to 1440"),
        (FLEX, "guidance", 1.0, "1.5 to 10"),
        (FLEX, "safety_tolerance", 6, "1 to 5"),
    ],
)
def test_an_error_names_the_field_its_value_and_what_is_allowed(
    model: str, field: str, value: object, allowed: str
) -> None:
    """bad input for a known model"""
    errors = check_input(model, {"prompt": "a cat", field: value}).errors
    assert errors
    assert any(error.startswith(f"input.{field}: {value!r} is not allowed") and allowed in error for error in errors)


def test_a_missing_prompt_is_named() -> None:
    """bad input for a known model"""
    (error,) = check_input(SCHNELL, {"seed": 1}).errors
    assert "prompt" in error
    assert "required" in error


def test_every_mistake_is_told_at_once() -> None:
    """bad input for a known model"""
    errors = check_input(SCHNELL, {"seed": "x", "num_outputs": 9, "output_format": "gif"}).errors
    assert len(errors) == 4


def test_too_many_pictures_are_refused_by_the_place_in_the_list_or_the_list() -> None:
    too_many = ["https://pictures.example/1.png"] * 11
    (error,) = check_input(FLEX, {"prompt": "a cat", "input_images": too_many}).errors
    assert error.startswith("input.input_images: ")
    (error,) = check_input(FLEX, {"prompt": "a cat", "input_images": ["https://pictures.example/1.png", 2]}).errors
    assert error.startswith("input.input_images.1: 2 is not allowed")


@pytest.mark.parametrize(("field", "text"), [("num_outputs", "2"), ("go_fast", "True"), ("seed", "{{ params.seed }}")])
def test_a_text_where_a_template_was_meant_to_give_a_number_gets_a_hint(field: str, text: str) -> None:
    """bad input for a known model"""
    (error,) = check_input(SCHNELL, {"prompt": "a cat", field: text}).errors
    assert "render_template_as_native_obj=True" in error


def test_no_such_hint_where_a_text_is_due() -> None:
    (error,) = check_input(SCHNELL, {"prompt": 5}).errors
    assert "render_template" not in error


@pytest.mark.parametrize(
    ("name", "nearest"), [("aspect_ration", "aspect_ratio"), ("num_output", "num_outputs"), ("Seed", "seed")]
)
def test_a_field_that_the_model_ignores_is_a_warning_with_the_nearest_known_name(name: str, nearest: str) -> None:
    report = check_input(SCHNELL, {"prompt": "a cat", name: 1})
    assert report.errors == ()
    (warning,) = report.warnings
    assert warning.startswith(f"input.{name}: ")
    assert warning.endswith(f"did you mean {nearest}?")


def test_a_field_like_no_other_is_a_warning_without_a_guess() -> None:
    (warning,) = check_input(SCHNELL, {"prompt": "a cat", "zzz": 1}).warnings
    assert "did you mean" not in warning


def test_a_long_value_is_cut_in_an_error() -> None:
    (error,) = check_input(SCHNELL, {"prompt": "a cat", "output_format": "x" * 10_000}).errors
    assert len(error) < 300


@pytest.mark.parametrize("input", [{}, {"prompt": 5}, {"anything": [1, None, {"deep": True}]}])
def test_a_model_that_is_not_in_the_catalogue_is_not_checked(input: dict[str, Any]) -> None:
    report = check_input("someone/some-model", input)
    assert (report.errors, report.warnings) == ((), ())
    assert input_schema("someone/some-model") is None


@pytest.mark.parametrize("model", [SCHNELL, "someone/some-model"])
@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", math.nan, math.inf, {"deep": [object()]}])
def test_a_value_that_json_cannot_carry_is_named_for_every_model(model: str, value: object) -> None:
    """bad input for a known model: and for any other, since it would fail while it is sent."""
    (error,) = check_input(model, {"prompt": "a cat", "extra": value}).errors
    assert error.startswith("input.extra: ")
    assert "cannot be sent as JSON" in error


def test_a_value_that_contains_itself_is_refused() -> None:
    circle: list[object] = []
    circle.append(circle)
    (error,) = check_input(SCHNELL, {"prompt": "a cat", "extra": circle}).errors
    assert "cannot be sent as JSON" in error


def test_a_field_name_that_is_no_text_is_refused() -> None:
    (error,) = check_input(SCHNELL, {"prompt": "a cat", 5: 1}).errors  # type: ignore[dict-item]
    assert error.startswith("input: field name 5")


@pytest.mark.parametrize("input", ["a cat", None, ["a cat"], 5])
def test_an_input_that_is_no_mapping_is_refused(input: Any) -> None:
    (error,) = check_input(SCHNELL, input).errors
    assert error.startswith("input must be a mapping")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(model=st.sampled_from(MODELS), data=st.data())
def test_checking_never_raises(model: str, data: st.DataObject) -> None:
    schema = input_schema(model)
    assert schema is not None
    names = st.sampled_from(sorted(schema["properties"])) | st.text()
    report = check_input(model, data.draw(st.dictionaries(names, JSON_VALUES, max_size=4)))
    assert all(isinstance(line, str) and line.startswith("input") for line in (*report.errors, *report.warnings))


VERSION = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "model",
    [
        *MODELS,
        *("someone/some-model", "black-forest-labs/flux-3", "a/b:0123", f"a/b:{VERSION}", VERSION),
        *("deployments/someone/mine", *BFL_MODELS, "flux-2-klein-9b", "flux-2-pro-preview", "flux-2.1-pro"),
    ],
)
def test_every_way_to_write_a_model_is_one(model: str) -> None:
    assert check_model(model) is None


@pytest.mark.parametrize(
    ("model", "nearest"),
    [
        ("flux-schnell", "black-forest-labs/flux-schnell"),
        ("flux-shnell", "black-forest-labs/flux-schnell"),
        (" black-forest-labs/flux-dev", "black-forest-labs/flux-dev"),
        ("flux-2-por", "flux-2-pro"),
        ("flux-1.1-pro", "black-forest-labs/flux-1.1-pro"),
        ("replicate/black-forest-labs/flux-2-pro", "black-forest-labs/flux-2-pro"),
    ],
)
def test_a_malformed_model_gets_the_nearest_known_one(model: str, nearest: str) -> None:
    """bad input for a known model"""
    problem = check_model(model)
    assert problem is not None
    assert repr(model) in problem
    assert problem.endswith(f"did you mean {nearest}?")


@pytest.mark.parametrize(
    "model",
    ["", "/", "owner/", "/name", "a/b/c", "../predictions", "owner/..", "zzz", "deployments/a", "a/b:xyz", VERSION[1:]],
)
def test_a_malformed_model_like_no_other_is_refused_without_a_guess(model: str) -> None:
    problem = check_model(model)
    assert problem is not None
    assert "did you mean" not in problem


@pytest.mark.parametrize("model", [None, 5, ["black-forest-labs/flux-dev"]])
def test_a_model_that_is_no_text_is_refused(model: Any) -> None:
    assert "must be a text" in (check_model(model) or "")
