"""What a row does not have is never written into a prompt, and a template that provides for it is rendered."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from jinja2.nativetypes import NativeEnvironment
from jinja2.sandbox import SandboxedEnvironment

from airflow_provider_flux.batch.rendering import RowRenderer
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import FluxError, FluxInputError
from tests.batch.task_instance import BatchTaskInstance
from tests.conftest import Connect


class NAType:
    """Stands for ``pandas.NA``, which is neither equal to anything nor true or false."""

    def __ne__(self, other: object) -> Any:
        return self

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


class NaT:
    """Stands for ``pandas.NaT``."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


NULLS = [None, math.nan, Decimal("NaN"), NAType(), NaT()]

WRITES_IT = [
    "A studio photo of {{ row.name }}",
    "A studio photo of {{ row['name'] }}",
    "A studio photo of {{ row.name|upper }}",
    "A studio photo of {{ row.name|string }}",
    "A studio photo of {{ row.name|trim|title }}",
    "A studio photo of {{ row.name|replace('a', 'b') }}",
    "A studio photo of {{ 'a ' ~ row.name }}",
    "A studio photo of {{ 'a ' + row.name }}",
    "A studio photo of {{ 'a %s' % row.name }}",
    "A studio photo of {{ 'a {}'.format(row.name) }}",
    "A studio photo of {{ '%s'|format(row.name) }}",
    "A studio photo of {{ [row.name] }}",
    "A studio photo of {{ [row.name, 'b']|join(', ') }}",
    "A studio photo of {{ {'a': row.name} }}",
    "A studio photo of {{ row }}",
    "A studio photo of {{ row.name|int }}",
    "A studio photo of {{ row.name|length }} things",
    "A studio photo of {{ row.name.strip() }}",
    "A studio photo of {{ row.name.first }}",
    "A studio photo of {% for letter in row.name %}{{ letter }}{% endfor %}",
    "A studio photo of {% set name = row.name %}{{ name }}",
    "A studio photo of {% if row.name == 'cup' %}a cup{% else %}{{ row.name }}{% endif %}",
    "A studio photo of {{ row.name if row.name is defined or true }}",
    "A studio photo of {{ row.deep.name }}",
    "A studio photo of {{ row.deep.name|upper }}",
    "A studio photo of {{ row.tags|join(', ') }}",
    "A studio photo of {{ row.tags[0] }}",
    "A studio photo of {{ none }}",
    "A studio photo of {{ params.nothing }}",
    "A studio photo of {{ row.blob }}",
    "A studio photo of {{ row.endless }}",
]

PROVIDES_FOR_IT = [
    "A photo of {{ row.name or 'a cup' }}",
    "A photo of {{ row.name|default('a cup') }}",
    "A photo of {{ row.name|default('a cup', true) }}",
    "A photo of {{ row.name|d('a cup') }}",
    "A photo of {{ 'a cup' if row.name is none else row.name }}",
    "A photo of {{ row.name if row.name is not none else 'a cup' }}",
    "A photo of {{ row.name if row.name else 'a cup' }}",
    "A photo of {% if row.name %}{{ row.name }}{% else %}a cup{% endif %}",
    "A photo of {% if not row.name %}a cup{% endif %}",
    "A photo of {{ 'a cup' if row.name == none else row.name }}",
    "A photo of {{ row.name if row.name != none else 'a cup' }}",
    "A photo of {{ row.name if row.name is defined else 'a cup' }}",
    "A photo of {{ 'a cup' if row.name in [none] else row.name }}",
    "A photo of {{ (row.name or 'a cup')|lower }}",
    "A photo of {{ row.name.first|default('a cup') }}",
    "A photo of {{ row.deep.name or 'a cup' }}",
    "A photo of {{ row.tags|reject('none')|join }}",
    "A photo of {{ row.tags|select|join }}",
    "A photo of {{ 'a cup' if 'name' in row and 'nmae' not in row }}",
    "A photo of {{ row.nmae|default('a cup') }}",
    "A photo of {{ row.nmae.deeper|default('a cup') }}",
    "A photo of {{ 'a cup' if row.nmae is not defined }}",
    "A photo of {{ row.name == 'teapot' and 'a teapot' or 'a cup' }}",
]


def renderer(template: Any, environment: Any = None, **options: Any) -> RowRenderer:
    given: dict[str, Any] = {"key": "sku", "model": "owner/name", "prompt": template, "input": None, **options}
    return RowRenderer(environment or SandboxedEnvironment(), {"params": {"nothing": None}}, **given)


def row(null: Any) -> dict[str, Any]:
    deep = {"name": null}
    return {"sku": "a", "name": null, "deep": deep, "tags": [null, "a cup"], "blob": b"x", "endless": math.inf}


@pytest.mark.parametrize("environment", [SandboxedEnvironment, NativeEnvironment])
@pytest.mark.parametrize("template", WRITES_IT)
def test_a_null_is_never_written(template: str, environment: Any) -> None:
    """a null or missing column in a template"""
    with pytest.raises(FluxInputError) as caught:
        renderer(template, environment()).request(row(None))
    assert "prompt cannot be made of the row" in str(caught.value)
    assert not any(word in str(caught.value) for word in ("Columns", "Undefined", "NoneType"))


@pytest.mark.parametrize("environment", [SandboxedEnvironment, NativeEnvironment])
@pytest.mark.parametrize("template", PROVIDES_FOR_IT)
def test_a_template_may_provide_for_it(template: str, environment: Any) -> None:
    """a null or missing column in a template"""
    assert renderer(template, environment()).request(row(None))[1] == {"prompt": "A photo of a cup"}


@pytest.mark.parametrize("null", NULLS)
def test_every_kind_of_null_is_one(null: Any) -> None:
    with pytest.raises(FluxInputError, match="column 'name' is null in this row"):
        renderer("{{ row.name }}").request(row(null))
    assert renderer("{{ row.name or 'a cup' }}").request(row(null))[1]["prompt"] == "a cup"
    assert renderer("a", key="name").key(row(null)) == ""


@pytest.mark.parametrize("word", ["None", "nan", "null", "NaN", "N/A", "0", ""])
def test_a_text_that_looks_like_a_null_is_a_text(word: str) -> None:
    assert renderer("A photo of {{ row.name }}.").request({"name": word})[1]["prompt"] == f"A photo of {word}."


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ row.nmae }}", "there is no column 'nmae'; there are 'sku', 'name', 'deep'"),
        ("{{ row.nmae }}", "did you mean name?"),
        ("{{ row['Name'] }}", "did you mean name?"),
        ("{{ row.deep.nmae }}", "there is no 'nmae' in it; there are 'name'; did you mean name?"),
        ("{{ name }}", "a column is written row.name"),
        ("{% if row.nmae %}x{% endif %}", "there is no column 'nmae'"),
    ],
)
def test_an_error_names_what_there_is(template: str, said: str) -> None:
    with pytest.raises(FluxInputError) as caught:
        renderer(template).request(row("a cup"))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "function",
    [
        lambda row: f"A photo of {row['name']}",
        lambda row: "A photo of {}".format(row["name"]),
        lambda row: "A photo of " + str(row["name"]) + ", red",
        lambda row: {"prompt": f"A photo of {row['name']}"},
        lambda row: {"prompt": "A photo", "images": [f"https://x/{row['name']}.png"]},
    ],
)
def test_a_function_that_writes_a_null_is_an_error_too(function: Any) -> None:
    for null in (None, math.nan):
        given = {"prompt": None, "input": function} if isinstance(function(row("x")), dict) else {"prompt": function}
        with pytest.raises(FluxInputError, match="column 'name' is null in this row"):
            renderer(given.pop("prompt"), **given).request(row(null))


@pytest.mark.parametrize(
    ("function", "given"),
    [
        (lambda row: f"A photo of {row['name'] or 'a cup'}", {"name": None}),
        (lambda row: f"A photo of {row['name']}", {"name": "None of these", "colour": None}),
        (lambda row: "A photo of Nonesuch", {"name": None}),
    ],
)
def test_a_function_may_provide_for_it(function: Any, given: dict[str, Any]) -> None:
    assert renderer(function).request(given)[1]["prompt"] == function(given)


@pytest.mark.parametrize(
    ("templates", "columns"),
    [
        ({"prompt": "{{ row.name }}"}, {"sku", "name"}),
        ({"prompt": "{{ row['two words'] }} {{ row.a.b }}"}, {"sku", "two words", "a"}),
        ({"prompt": "x", "input": {"seed": "{{ row.seed }}"}, "model": "{{ row.model }}"}, {"sku", "seed", "model"}),
        ({"prompt": "{{ row }}"}, None),
        ({"prompt": "{{ 'x' in row }}"}, None),
        ({"prompt": "{{ row[params.column] }}"}, None),
        ({"prompt": "{% include row.name %}"}, None),
        ({"prompt": str}, None),
        ({"prompt": "x", "key": str}, None),
    ],
)
def test_it_is_known_which_columns_are_used(templates: dict[str, Any], columns: set[str] | None) -> None:
    prompt = templates.pop("prompt")
    assert renderer(prompt, **templates).columns == columns


@pytest.mark.parametrize(
    ("value", "template", "expected"),
    [
        ("1984", "{{ row.name }}", "1984"),
        (1984, "{{ row.name }}", "1984"),
        ("0012", "{{ row.name }}", "0012"),
        ("1e5", "{{ row.name }}", "1e5"),
        ("True", "{{ row.name }}", "True"),
        ("[1, 2]", "{{ row.name }}", "[1, 2]"),
        ("None", "{{ row.name }}", "None"),
        ("'quoted'", "{{ row.name }}", "'quoted'"),
        ("1_000", "{{ row.name }}", "1_000"),
        ("1e5", "{% set it %}{{ row.name }}{% endset %}{{ it }}", "1e5"),
    ],
)
def test_a_prompt_is_a_text_in_a_dag_of_native_objects_too(value: Any, template: str, expected: str) -> None:
    assert renderer(template, NativeEnvironment()).request({"name": value})[1] == {"prompt": expected}


def test_a_dag_of_native_objects_keeps_the_types_of_other_fields() -> None:
    made = renderer(
        "x",
        NativeEnvironment(),
        model="black-forest-labs/flux-schnell",
        input={"seed": "{{ row.seed }}", "megapixels": "{{ row.size }}", "go_fast": "{{ row.fast }}"},
    ).request({"seed": "7", "size": 1, "fast": True})
    assert made[1] == {"prompt": "x", "seed": 7, "megapixels": "1", "go_fast": True}


def test_of_rows_with_nulls_only_the_good_ones_are_paid_for(
    emulator: Emulator, connect: Connect, tmp_path: Path
) -> None:
    """a null or missing column in a template"""
    emulator.settings(small_pictures=True)
    connect(emulator.url, gateway="deerapi")
    names = ["cup", None, math.nan, "   ", "", "None"]
    rows = [{"sku": f"s{number}", "name": name} for number, name in enumerate(names)]
    instance = BatchTaskInstance(tmp_path, rows=rows, prompt="{{ row.name }}")

    instance.execute()

    assert instance.statuses() == ["succeeded", "failed", "failed", "failed", "failed", "succeeded"]
    assert (emulator.posts, emulator.accepted) == (2, 2)
    assert [listed["prompt"] for listed in instance.manifest() if listed["status"] == "succeeded"] == ["cup", "None"]


def test_a_table_of_nulls_is_not_paid_for(emulator: Emulator, connect: Connect, tmp_path: Path) -> None:
    """a null or missing column in a template"""
    connect(emulator.url, gateway="deerapi")
    with pytest.raises(FluxError):
        BatchTaskInstance(tmp_path, rows=[{"sku": "a", "name": None}]).execute()
    assert emulator.posts == 0
