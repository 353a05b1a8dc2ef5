"""Airflow's templates, rendered so that a text stays the text that was written.

With ``render_template_as_native_obj=True`` Airflow reads what a template gives as Python: the prompt "1984" becomes a
number, "0012" stays a text, "1e5" becomes 100000.0. Fields that are texts by their nature are therefore rendered as
text whatever the DAG says, and numbers in ``input`` keep their types.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_flux.exceptions import FluxInputError
from airflow_provider_flux.protocol.catalogue import field_type

if TYPE_CHECKING:
    from jinja2 import Environment


def is_null(value: Any) -> bool:
    """Tell whether a value stands for "no value": None, NaN, and what pandas and numpy write for it."""
    if value is None:
        return True
    if isinstance(value, (str, bytes, int, Mapping, list, tuple)):
        return False
    try:
        # NaN, NaT and Decimal("NaN") are the only values that do not equal themselves.
        return bool(value != value)  # noqa: PLR0124
    except Exception:  # noqa: BLE001 (an array, or a value that cannot be compared at all)
        return type(value).__name__ == "NAType"


def is_template(text: str) -> bool:
    """Tell whether there is anything to render in a text."""
    return "{{" in text or "{%" in text or "{#" in text


def check_value(value: Any) -> Any:
    """Refuse what a template must not write into a text: it would be paid for as "None" or "nan".

    :raises FluxInputError: saying what it is.
    """
    if is_null(value):
        raise FluxInputError(
            "a value in its template is null; say in the template what to write then, such as {{ … or 'a cup' }}"
        )
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise FluxInputError("a value in its template is infinite")
    if isinstance(value, (bytes, bytearray)):
        raise FluxInputError("a value in its template is bytes, not a text")
    return value


def text_environment(environment: Environment, **options: Any) -> Environment:
    """Return an environment like another one that gives text, even if the other gives Python's objects.

    :param options: what else is different.
    """
    from jinja2 import Template
    from jinja2.compiler import CodeGenerator

    own = environment.overlay(**{"finalize": check_value, **options})
    # What jinja2.nativetypes sets on its own class.
    own.code_generator_class, own.template_class = CodeGenerator, Template
    own.concat = "".join  # type: ignore[method-assign]
    return own


class TextTemplates:
    """Renders the template fields of an operator. Comes before Airflow's own base class.

    :cvar text_fields: the template fields that are texts by their nature.
    """

    text_fields: Collection[str] = ("model", "version", "prompt", "flux_conn_id", "prediction_id")
    _is_text = False
    _leaves_plain_texts = False

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Any, jinja_env: Environment, seen_oids: set[int]
    ) -> None:
        from jinja2.nativetypes import NativeEnvironment

        is_native = isinstance(jinja_env, NativeEnvironment)
        for name in template_fields:
            value = getattr(parent, name)
            if parent is self and name in self.text_fields:
                self._set(name, self._rendered(value, context, jinja_env, seen_oids, about=name))
            elif parent is self and name == "input" and isinstance(value, Mapping):
                self._set(name, self._rendered_input(value, context, jinja_env, seen_oids, is_native=is_native))
            else:
                self._leaves_plain_texts = is_native
                try:
                    super()._do_render_template_fields(parent, [name], context, jinja_env, seen_oids)  # type: ignore[misc]
                finally:
                    self._leaves_plain_texts = False

    def render_template(
        self, content: Any, context: Any, jinja_env: Environment | None = None, seen_oids: set[int] | None = None
    ) -> Any:
        """Render a value; in a DAG of native objects, a text without a template in it stays a text."""
        if isinstance(content, str):
            # Of an enum, its value and not its name.
            content = str.__str__(content)
        if self._leaves_plain_texts and isinstance(content, str) and not is_template(content):
            return content
        return super().render_template(content, context, jinja_env, seen_oids)  # type: ignore[misc]

    def _render(self, template: Any, context: Any, dag: Any = None) -> Any:
        return template.render(context) if self._is_text else super()._render(template, context, dag)  # type: ignore[misc]

    def _set(self, name: str, value: Any) -> None:
        setattr(self, name, value)

    def _rendered(self, value: Any, context: Any, jinja_env: Environment, seen_oids: set[int], *, about: str) -> Any:
        """Render one value as text."""
        self._is_text = True
        try:
            if callable(value):
                # What Airflow calls in place of rendering it.
                return value(context=context, jinja_env=jinja_env)
            return self._named(about, self.render_template, value, context, text_environment(jinja_env), seen_oids)
        finally:
            self._is_text = False

    def _rendered_input(
        self, input: Mapping[Any, Any], context: Any, jinja_env: Environment, seen_oids: set[int], *, is_native: bool
    ) -> dict[Any, Any]:
        """Render each field of an input as its model wants it: as text, or as Python's objects if the DAG says so."""
        model, rendered = getattr(self, "model", ""), {}
        for name, value in input.items():
            wanted = field_type(model, name)
            if wanted == "string" or not is_native:
                rendered[name] = self._rendered(value, context, jinja_env, seen_oids, about=f"input.{name}")
                continue
            # A number in quotes is a number to Airflow's native DAGs; where no schema asks for one it stays a text.
            self._leaves_plain_texts = wanted is None
            try:
                rendered[name] = self.render_template(value, context, jinja_env, seen_oids)
            finally:
                self._leaves_plain_texts = False
        return rendered

    @staticmethod
    def _named(about: str, render: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return render(*arguments)
        except FluxInputError as error:
            raise FluxInputError(f"{about}: {error}. Nothing was sent.") from error
