"""A row as templates see it: what is missing or null in it is an error wherever it would be written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from jinja2 import StrictUndefined
from jinja2.utils import missing

from airflow_provider_flux.exceptions import FluxInputError
from airflow_provider_flux.protocol.wording import names, nearest
from airflow_provider_flux.tasks.templating import check_value, is_null, text_environment

if TYPE_CHECKING:
    from jinja2 import Environment


class Absent(StrictUndefined):
    """What is not there. A template may only ask whether it is defined, or give a default."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        if self._undefined_hint:
            return self._undefined_hint
        if isinstance(self._undefined_obj, Mapping):
            return no_such(f"no {self._undefined_name!r} in it", self._undefined_name, self._undefined_obj)
        if self._undefined_obj is missing:
            name = self._undefined_name
            return f"{name!r} is not defined; a column is written row.{name}"
        return super()._undefined_message

    def __getattr__(self, name: str) -> Any:
        # What is inside of what is not there is not there either, and may have a default.
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, name: Any) -> Any:
        return self

    def __repr__(self) -> str:
        # As part of a list that is written out.
        return str(self)


class Null(Absent):
    """What is there, and null. Besides, a template may ask for that: it is false, ``is none``, and equals none."""

    __slots__ = ()

    def __init__(self, name: str) -> None:
        super().__init__(
            hint=f"column {name!r} is null in this row; say in the template what to write then, such as "
            "{{ row.NAME or 'a cup' }}".replace("NAME", name)
        )

    def __bool__(self) -> bool:  # type: ignore[override]
        return False

    def __eq__(self, other: object) -> bool:  # type: ignore[override]
        return other is None or isinstance(other, Null)

    def __ne__(self, other: object) -> bool:  # type: ignore[override]
        return not self == other

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(None)


class Columns:
    """A row as templates see it: ``row.name`` and ``row["name"]``. No method hides a column of the same name."""

    __slots__ = ("_row",)

    def __init__(self, row: Mapping[str, Any]) -> None:
        self._row = row

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            # Python's and jinja's own questions.
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> Any:
        if name in self._row:
            return _seen(self._row[name], name)
        return Absent(hint=no_such(f"no column {name!r}", name, self._row))

    def __contains__(self, name: object) -> bool:
        return name in self._row

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)

    def __str__(self) -> str:
        return str(_seen(self._row, ""))


def no_such(what: str, name: object, known: Mapping[Any, Any]) -> str:
    """Say that something is missing, what there is instead, and which of that was probably meant."""
    return f"there is {what}; there are {names(known)}{nearest(name, known)}"


def row_environment(environment: Environment, *, as_text: bool) -> Environment:
    """Return an environment in which what is missing or null cannot be written.

    :param as_text: give text even in a DAG of native objects.
    """
    options: dict[str, Any] = {"undefined": Absent, "finalize": _check_written}
    own = text_environment(environment, **options) if as_text else environment.overlay(**options)
    own.tests = {**own.tests, "none": lambda value: value is None or isinstance(value, Null)}
    return own


def check_function(made: Any, row: Mapping[str, Any]) -> Any:
    """Refuse what a function has made of a row if it has written one of the row's nulls into a text.

    :raises FluxInputError: naming the column.
    """
    nulls = {name: str(value) for name, value in row.items() if is_null(value)}
    texts = list(_texts(made)) if nulls else []
    for name, word in nulls.items():
        written = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)")
        is_data = any(isinstance(value, str) and written.search(value) for value in row.values())
        if not is_data and any(written.search(text) for text in texts):
            raise FluxInputError(
                f"it has {word!r} in it, and column {name!r} is null in this row: let the function say what to write "
                f"then, such as row[{name!r}] or 'a cup'"
            )
    return made


def _texts(made: Any) -> Iterator[str]:
    if isinstance(made, str):
        yield made
    elif isinstance(made, Mapping):
        for value in made.values():
            yield from _texts(value)
    elif isinstance(made, (list, tuple)):
        for value in made:
            yield from _texts(value)


def _seen(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return {inner: _seen(item, f"{name}.{inner}" if name else str(inner)) for inner, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_seen(item, f"{name}[{place}]") for place, item in enumerate(value)]
    return Null(name) if is_null(value) else value


def _check_written(value: Any) -> Any:
    """Refuse nulls, also inside of a list that a template hands on as it is."""
    if isinstance(value, (list, tuple, Mapping)):
        for item in value.values() if isinstance(value, Mapping) else value:
            _check_written(item)
        return value
    if isinstance(value, Absent):
        str(value)
    return check_value(value)
