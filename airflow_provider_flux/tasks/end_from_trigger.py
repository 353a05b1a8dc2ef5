"""Whether a task that has succeeded may end in the triggerer, without a second start on a worker.

A worker start is what costs in Airflow (0.17 s of CPU measured), and a task that resumes can be failed by the scheduler
when its trigger fires too soon. But Airflow runs some things on the worker only, and drops them for a task that ends in
the triggerer.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from airflow.configuration import conf

EndFromTrigger: TypeAlias = "bool | Literal['auto']"
_CHOICES = (True, False, "auto")


def check_end_from_trigger(choice: EndFromTrigger) -> None:
    """Refuse a choice that is none.

    :raises ValueError: when the DAG is parsed.
    """
    if choice not in _CHOICES:
        raise ValueError(f"end_from_trigger must be True, False or 'auto', not {choice!r}")


def ends_from_trigger(task: Any, choice: EndFromTrigger, own_class: type[Any]) -> bool:
    """Tell whether a success of a task that is about to be deferred is to end it in the triggerer.

    :param task: an operator or a sensor of this package.
    :param choice: as the DAG's author gave it. ``auto`` ends there unless something would be dropped. Pictures are only
        ever stored on a worker.
    :param own_class: the class of this package; one derived from it may do more when it resumes.
    """
    return not _needs_a_worker(task, own_class) if choice == "auto" else bool(choice) and not task.output_path


def _needs_a_worker(task: Any, own_class: type[Any]) -> bool:
    return bool(
        task.outlets
        # Airflow's DAG processor refuses one of a task that ends in the triggerer: it takes those of failures only.
        or task.on_success_callback
        or task.output_path
        or not _is_named_before_its_end(task.map_index_template)
        or task._post_execute_hook is not None
        or type(task).post_execute is not own_class.post_execute
        or type(task).execute_complete is not own_class.execute_complete
        or _is_listened_to()
        # What a task has stored is removed when a worker says that it has succeeded (Airflow 3.3).
        or conf.getboolean("state_store", "clear_on_success", fallback=False)
    )


def _is_named_before_its_end(map_index_template: str | None) -> bool:
    """Whether a mapped task has the name that its template gives it, before a worker renders that again at its end.

    Airflow 3.1 renders it only then. A template that reads XComs may find other ones by then.
    """
    if not map_index_template:
        return True
    from airflow.sdk.execution_time import comms

    return hasattr(comms, "SetRenderedMapIndex") and "xcom" not in map_index_template


def _is_listened_to() -> bool:
    """Whether a listener of this Airflow is told on the worker that a task has succeeded (OpenLineage is one)."""
    try:
        from airflow.sdk.listener import get_listener_manager
    except ImportError:  # Airflow 3.1
        from airflow.listeners.listener import get_listener_manager  # type: ignore[assignment]
    return bool(get_listener_manager().hook.on_task_instance_success.get_hookimpls())
