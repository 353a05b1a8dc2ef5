"""``@task.flux`` and ``@task.flux_batch``: functions say what is to be made, and the operators make it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, task_decorator_factory

from airflow_provider_flux.batch.rows import is_table
from airflow_provider_flux.exceptions import FluxInputError
from airflow_provider_flux.operators.batch import FluxBatchOperator
from airflow_provider_flux.operators.flux import FluxPredictionOperator
from airflow_provider_flux.protocol.catalogue import picture_fields
from airflow_provider_flux.protocol.picture_inputs import pictures_of, with_pictures_at
from airflow_provider_flux.tasks.results import with_published_inputs

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_flux.protocol.prediction import Prediction


def flux_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Make a picture of what a function returns: ``@task.flux``.

    The function returns the prompt, or the input as a dict, which is added to the ``input`` given here. What it returns
    is sent as it is and not rendered as a template, so that no row of data can reach Airflow's variables. All else is
    as with :class:`~airflow_provider_flux.operators.flux.FluxPredictionOperator`, which the other arguments go to.

    The function should return the same whenever it is called with the same: a retry calls it again, and only a
    prediction made of just that input is gone on with. Any other is canceled, and a new one made and paid for. A task
    that comes back from the triggerer does not call it.

    :param python_callable: the function.
    :raises FluxInputError: when the task runs, if the function returns anything else. Nothing is sent.
    """
    return _decorator(python_callable, _FluxDecoratedOperator, kwargs)


def flux_batch_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Make pictures of the rows that a function returns: ``@task.flux_batch``.

    The function returns a list of mappings, the path of a table, or a part of one made by
    :func:`airflow_provider_flux.batch.rows.split_rows`. All else is as with
    :class:`~airflow_provider_flux.operators.batch.FluxBatchOperator`, which the other arguments go to. A retry calls
    the function again; only rows that have changed since are made anew.

    :param python_callable: the function.
    :raises FluxInputError: when the task runs, if the function returns anything else. Nothing is sent.
    """
    return _decorator(python_callable, _FluxBatchDecoratedOperator, kwargs)


def _decorator(
    python_callable: Callable[..., Any] | None, operator_class: type[DecoratedOperator], kwargs: dict[str, Any]
) -> TaskDecorator:
    return task_decorator_factory(
        python_callable,
        # Otherwise a function annotated as returning a dict would have the task's result, a list, taken apart as one.
        multiple_outputs=False,
        decorated_operator_class=operator_class,
        **kwargs,
    )


class _FluxDecoratedOperator(DecoratedOperator, FluxPredictionOperator):
    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *FluxPredictionOperator.template_fields)
    template_fields_renderers = {
        **DecoratedOperator.template_fields_renderers,
        **FluxPredictionOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.flux"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(python_callable=python_callable, op_args=op_args, op_kwargs=op_kwargs, **kwargs)

    def execute(self, context: Context) -> Any:
        """Call the function, and make the prediction that it asks for."""
        made = _call(self, context)
        if isinstance(made, str):
            made = {"prompt": made}
        elif not isinstance(made, Mapping):
            raise _wrong_return(self, made, "the prompt (str) or the input (dict)")
        self.input = {**self._whole_input(), **made}
        # People see in the UI what was asked for. Not from the class: a task that resumes has not called its function.
        self.overwrite_rtif_after_execution = True
        return super().execute(context)

    def _input_of(self, context: Context, prediction: Prediction) -> dict[str, Any]:
        """Return what the prediction was made of; a task that resumes knows it from the gateway's echo."""
        if self._input_read is not None:
            return {**prediction.input, **self._input_read}
        known = {**prediction.input, **self._whole_input(), **(self.input_files or {})}
        if picture_fields(self.model) or self.input_files:
            known = with_published_inputs(context, known, self._shown(context))
        # Airflow has rendered the fields again, without what the function has returned.
        self.input = with_pictures_at(known, {field: picture["path"] for field, picture in pictures_of(known)})
        self.overwrite_rtif_after_execution = True
        return known


class _FluxBatchDecoratedOperator(DecoratedOperator, FluxBatchOperator):
    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *FluxBatchOperator.template_fields)
    custom_operator_name = "@task.flux_batch"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(python_callable=python_callable, op_args=op_args, op_kwargs=op_kwargs, rows=(), **kwargs)

    def execute(self, context: Context) -> Any:
        """Call the function, and make pictures of its rows."""
        rows = _call(self, context)
        if not is_table(rows):
            raise _wrong_return(self, rows, "a list of rows, the path of a table, or a part made by split_rows")
        self.rows = rows
        return super().execute(context)


def _call(task: DecoratedOperator, context: Context) -> Any:
    try:
        from airflow.sdk.bases.decorator import determine_kwargs
    except ImportError:  # Airflow 3.1
        from airflow.utils.operator_helpers import determine_kwargs  # type: ignore[attr-defined]
    known: dict[str, Any] = {**context, **task.op_kwargs}
    return task.python_callable(*task.op_args, **determine_kwargs(task.python_callable, task.op_args, known))


def _wrong_return(task: DecoratedOperator, returned: Any, wanted: str) -> FluxInputError:
    return FluxInputError(
        f"The function {task.python_callable.__name__} of task {task.task_id} must return {wanted}; it returned "
        f"{type(returned).__name__}. Nothing was sent."
    )
