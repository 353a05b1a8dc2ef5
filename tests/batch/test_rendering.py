"""What becomes of a row before it is sent."""

from __future__ import annotations

from typing import Any

import pytest
from jinja2.nativetypes import NativeEnvironment
from jinja2.sandbox import SandboxedEnvironment

from airflow_provider_flux.batch.rendering import RowRenderer
from airflow_provider_flux.exceptions import FluxInputError

ROW = {"sku": " a ", "name": "lamp", "items": 3, "two words": "x", "seed": 7, "none": None}


def renderer(environment: Any = None, **templates: Any) -> RowRenderer:
    given: dict[str, Any] = {"key": "sku", "model": "owner/name", "prompt": None, "input": None, **templates}
    return RowRenderer(environment or SandboxedEnvironment(), {"params": {"colour": "blue"}}, **given)


def test_templates_see_columns_and_airflows_context() -> None:
    made = renderer(
        model="owner/{{ row.name }}",
        prompt="{{ params.colour }} {{ row.name }} {{ row['two words'] }}",
        input={"nested": [{"{{ row.name }}": "{{ row.name }}"}], "number": 1, "plain": "{ no template }"},
    ).request(ROW)

    assert made == (
        "owner/lamp",
        {
            "nested": [{"{{ row.name }}": "lamp"}],
            "number": 1,
            "plain": "{ no template }",
            "prompt": "blue lamp x",
        },
    )


@pytest.mark.parametrize("name", ["items", "keys", "values", "get"])
def test_no_method_hides_a_column_of_the_same_name(name: str) -> None:
    assert renderer(prompt=f"{{{{ row.{name} }}}}").request({name: "column"})[1] == {"prompt": "column"}


def test_functions_get_the_row_as_it_is() -> None:
    made = renderer(
        key=lambda row: f"{row['sku'].strip()}-{row['seed']}",
        model=lambda row: "owner/other",
        prompt=lambda row: row["name"].upper(),
        input=lambda row: {"seed": row["seed"]},
    )

    assert made.key(ROW) == "a-7"
    assert made.request(ROW) == ("owner/other", {"seed": 7, "prompt": "LAMP"})


def test_a_native_environment_keeps_types() -> None:
    assert renderer(NativeEnvironment(), input={"seed": "{{ row.seed }}"}).request(ROW)[1] == {"seed": 7}
    assert renderer(input={"seed": "{{ row.seed }}"}).request(ROW)[1] == {"seed": "7"}


@pytest.mark.parametrize(
    ("templates", "said"),
    [
        ({"prompt": "{{ row.nmae }}"}, "nmae"),
        ({"prompt": "{{ row.name.__class__ }}"}, "SecurityError"),
        ({"prompt": lambda row: row["absent"]}, "prompt cannot be made of the row: KeyError"),
        ({"input": lambda row: "text"}, "input must be a mapping"),
        ({"input": {"prompt": "one"}, "prompt": "two"}, "prompt and input"),
    ],
)
def test_what_cannot_be_rendered_is_an_error(templates: dict[str, Any], said: str) -> None:
    with pytest.raises(FluxInputError, match=said):
        renderer(**templates).request(ROW)


def test_a_key_is_a_text_without_white_space_around_it() -> None:
    assert renderer().key(ROW) == "a"
    assert renderer(key="seed").key(ROW) == "7"
    assert renderer(key="none").key(ROW) == ""
    with pytest.raises(FluxInputError, match="no column 'id'; there are 'sku'"):
        renderer(key="id").key(ROW)
