"""A row made into what is submitted: its key, its model and its input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_provider_flux.batch.rows import Row
from airflow_provider_flux.exceptions import FluxInputError
from airflow_provider_flux.protocol.messages import JSON

if TYPE_CHECKING:
    from jinja2 import Environment

Template: TypeAlias = "JSON | Callable[[Row], JSON]"
"""Any JSON value, in whose texts ``{{ row.column }}`` stands for a column; or a function of the row."""

_ROW = "_flux_row"
"""Under this name the variables hold the row as it is, for functions."""

_Renderer: TypeAlias = Callable[[Mapping[str, Any]], JSON]


class Columns:
    """A row as templates see it: ``row.name`` and ``row["name"]``. No method hides a column of the same name."""

    __slots__ = ("_row",)

    def __init__(self, row: Row) -> None:
        self._row = row

    def __getattr__(self, name: str) -> Any:
        try:
            return self._row[name]
        except KeyError:
            raise AttributeError(name) from None

    def __getitem__(self, name: str) -> Any:
        return self._row[name]

    def __str__(self) -> str:
        return str(dict(self._row))


def _rendered(what: str, render: _Renderer, variables: Mapping[str, Any]) -> JSON:
    try:
        return render(variables)
    except Exception as error:
        raise FluxInputError(f"{what} cannot be made of the row: {type(error).__name__}: {error}") from error


class RowRenderer:
    """Renders rows. Each template is compiled once, and a column that does not exist is an error.

    :param environment: of the task.
    :param context: Airflow's context, for the rest of what a template may name.
    :param key: the column that tells rows apart, or a function of the row.
    :param prompt: the prompt; a short way to write ``input={"prompt": ...}``.
    """

    def __init__(
        self,
        environment: Environment,
        context: Mapping[str, Any],
        *,
        key: str | Callable[[Row], str],
        model: Template,
        prompt: Template | None,
        input: Template | None,
    ) -> None:
        from jinja2 import StrictUndefined

        # Elsewhere in Airflow a misspelt name becomes an empty text; here it would be paid for.
        self._environment = environment.overlay(undefined=StrictUndefined)
        self._context = dict(context)
        self._key = key
        self._model = self._compile(model)
        self._prompt = None if prompt is None else self._compile(prompt)
        self._input = self._compile(input if input is not None else {})

    def key(self, row: Row) -> str:
        """Return what tells a row apart; empty if it has nothing.

        :raises FluxInputError: if the row has no such column.
        """
        if callable(self._key):
            value = self._key(row)
        elif self._key in row:
            value = row[self._key]
        else:
            raise FluxInputError(f"there is no column {self._key!r}; there are {', '.join(map(repr, row))}")
        return "" if value is None else str(value).strip()

    def request(self, row: Row) -> tuple[str, dict[str, JSON]]:
        """Return the model and the input for a row.

        :raises FluxInputError: if they cannot be rendered, saying why.
        """
        variables = {**self._context, "row": Columns(row), _ROW: row}
        model = _rendered("model", self._model, variables)
        fields = _rendered("input", self._input, variables)
        if not isinstance(fields, Mapping):
            raise FluxInputError(f"input must be a mapping of field names to values, not {type(fields).__name__}")
        whole = dict(fields)
        if self._prompt is not None:
            prompt = _rendered("prompt", self._prompt, variables)
            if whole.get("prompt", prompt) != prompt:
                raise FluxInputError("prompt and input['prompt'] differ; give only one of them")
            whole["prompt"] = prompt
        return str(model), whole

    def _compile(self, template: Template) -> _Renderer:
        if callable(template):
            return lambda variables: template(variables[_ROW])
        if isinstance(template, str) and ("{{" in template or "{%" in template or "{#" in template):
            render: _Renderer = self._environment.from_string(template).render
            return render
        if isinstance(template, Mapping):
            fields = {name: self._compile(value) for name, value in template.items()}
            return lambda variables: {name: render(variables) for name, render in fields.items()}
        if isinstance(template, (list, tuple)):
            items = [self._compile(value) for value in template]
            return lambda variables: [render(variables) for render in items]
        return lambda _: template
