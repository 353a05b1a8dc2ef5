"""A row made into what is submitted: its key, its model and its input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_provider_flux.batch.rows import Row
from airflow_provider_flux.exceptions import FluxInputError
from airflow_provider_flux.protocol.catalogue import field_type
from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.tasks.arguments import whole_input
from airflow_provider_flux.tasks.templating import is_null, is_template

if TYPE_CHECKING:
    from jinja2 import Environment, nodes

Template: TypeAlias = "JSON | Callable[[Row], JSON]"
"""Any JSON value, in whose texts ``{{ row.column }}`` stands for a column; or a function of the row."""

_ROW = "_flux_row"
"""Under this name the variables hold the row as it is, for functions."""

_Renderer: TypeAlias = Callable[[Mapping[str, Any]], JSON]


class RowRenderer:
    """Renders rows. Each template is compiled once, and a column that does not exist, or is null, is an error.

    :param environment: of the task.
    :param context: Airflow's context, for the rest of what a template may name.
    :param key: the column that tells rows apart, or a function of the row.
    :param prompt: the prompt; a short way to write ``input={"prompt": ...}``.
    :param input_files: paths of pictures by the names of their fields.
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
        input_files: Template | None = None,
    ) -> None:
        from airflow_provider_flux.batch.columns import row_environment

        # Elsewhere in Airflow a null becomes the text "None"; here it would be paid for.
        self._as_text = row_environment(environment, as_text=True)
        self._as_given = row_environment(environment, as_text=False)
        self._context = dict(context)
        self._key = key
        self._columns: set[str] | None = None if callable(key) else {key}
        self._model = self._compile("model", model, is_text=True)
        self._prompt = None if prompt is None else self._compile("prompt", prompt, is_text=True)
        self._input = self._compile_input(model, input if input is not None else {})
        self._input_files = None if input_files is None else self._compile("input_files", input_files, is_text=False)

    @property
    def columns(self) -> frozenset[str] | None:
        """The columns that are read; None if that cannot be told, as of a function."""
        return None if self._columns is None else frozenset(self._columns)

    def key(self, row: Row) -> str:
        """Return what tells a row apart; empty if it has nothing.

        :raises FluxInputError: if the row has no such column.
        """
        from airflow_provider_flux.batch.columns import check_function, no_such

        if callable(self._key):
            value = check_function(self._key(row), row)
        elif self._key in row:
            value = row[self._key]
        else:
            raise FluxInputError(no_such(f"no column {self._key!r}", self._key, row))
        return "" if is_null(value) else _told("key", lambda _: str(value).strip(), {})

    def request(self, row: Row) -> tuple[str, dict[str, JSON]]:
        """Return the model and the input for a row.

        :raises FluxInputError: if they cannot be rendered, saying why.
        """
        variables = self._variables(row)
        model = self._model(variables)
        fields = self._input(variables)
        prompt = None if self._prompt is None else self._prompt(variables)
        return str(model).strip(), whole_input(prompt, fields, prompt_is_given=self._prompt is not None)

    def input_files(self, row: Row) -> Mapping[str, JSON]:
        """Return the paths of a row's pictures in fields that are not known to be pictures.

        :raises FluxInputError: if they cannot be rendered, saying why.
        """
        if self._input_files is None:
            return {}
        files = self._input_files(self._variables(row))
        if not isinstance(files, Mapping):
            raise FluxInputError(f"input_files must be a mapping of field names to paths, not {type(files).__name__}.")
        return files

    def _variables(self, row: Row) -> dict[str, Any]:
        from airflow_provider_flux.batch.columns import Columns

        return {**self._context, "row": Columns(row), _ROW: row}

    def _compile_input(self, model: Template, input: Template) -> _Renderer:
        if not isinstance(input, Mapping):
            return self._compile("input", input, is_text=False)
        fields = {
            name: self._compile(f"input.{name}", value, is_text=field_type(model, name) == "string")
            for name, value in input.items()
        }
        return lambda variables: {name: render(variables) for name, render in fields.items()}

    def _compile(self, what: str, template: Template, *, is_text: bool) -> _Renderer:
        """Compile a template.

        :param what: what it makes, for errors.
        :param is_text: whether that is a text by its nature, whatever Python makes of it.
        """
        if callable(template):
            return self._compile_function(what, template)
        if isinstance(template, str) and is_template(template):
            environment = self._as_text if is_text else self._as_given
            self._note_columns(environment.parse(template))
            render: _Renderer = environment.from_string(template).render
            return lambda variables: _told(what, render, variables)
        if isinstance(template, Mapping):
            fields = {name: self._compile(f"{what}.{name}", value, is_text=False) for name, value in template.items()}
            return lambda variables: {name: render(variables) for name, render in fields.items()}
        if isinstance(template, (list, tuple)):
            items = [self._compile(f"{what}.{at}", value, is_text=False) for at, value in enumerate(template)]
            return lambda variables: [render(variables) for render in items]
        return lambda _: template

    def _compile_function(self, what: str, function: Callable[[Row], JSON]) -> _Renderer:
        from airflow_provider_flux.batch.columns import check_function

        self._columns = None

        def call(variables: Mapping[str, Any]) -> JSON:
            return check_function(function(variables[_ROW]), variables[_ROW])

        return lambda variables: _told(what, call, variables)

    def _note_columns(self, template: nodes.Template) -> None:
        """Take note of the columns that a template reads; of all if it does more with a row than to read them."""
        from jinja2 import nodes

        reads = [
            node for node in template.find_all((nodes.Getattr, nodes.Getitem)) if _is_row(getattr(node, "node", None))
        ]
        found = {_name_read(node) for node in reads}
        rows = sum(_is_row(node) for node in template.find_all(nodes.Name))
        others = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
        is_told = rows == len(reads) and None not in found and next(template.find_all(others), None) is None
        self._columns = self._columns | {str(name) for name in found} if is_told and self._columns is not None else None


def _is_row(node: Any) -> bool:
    return getattr(node, "name", None) == "row"


def _name_read(node: Any) -> str | None:
    name = getattr(node, "attr", None) or getattr(getattr(node, "arg", None), "value", None)
    return name if isinstance(name, str) else None


def _told(what: str, render: _Renderer, variables: Mapping[str, Any]) -> JSON:
    from jinja2 import UndefinedError

    try:
        return render(variables)
    except Exception as error:
        plain = isinstance(error, (FluxInputError, UndefinedError))
        told = str(error) if plain else f"{type(error).__name__}: {error}"
        raise FluxInputError(f"{what} cannot be made of the row: {told}") from error
