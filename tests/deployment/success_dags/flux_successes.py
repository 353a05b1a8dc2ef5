"""What Airflow may do when a task has succeeded, each with two tasks: resumed on a worker, and ``auto``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.configuration import get_airflow_home
from airflow.sdk import DAG, Asset, Context, get_current_context, setup, task, teardown
from airflow.sdk.bases.notifier import BaseNotifier

from airflow_provider_flux.operators.flux import FluxPredictionOperator
from airflow_provider_flux.sensors.flux import FluxPredictionSensor

MODEL = "black-forest-labs/flux-1.1-pro"
WAYS: dict[str, Any] = {"resumed": False, "auto": "auto"}
WAITS: dict[str, Any] = {
    "wait_for_completion": True,
    "deferrable": True,
    "wait_before_defer": 0.5,
    "poll_interval": 0.5,
}


def leave(mark: str, context: Any) -> None:
    """Leave a mark that the test finds."""
    instance = context["ti"]
    Path(get_airflow_home(), f"{mark}-{instance.task_id}-{instance.map_index}").touch()


def tell(context: Context) -> None:
    leave("callback", context)


def tell_result(context: Context, result: Any) -> None:
    leave(f"post_execute_{len(result)}", context)


class Tell(BaseNotifier):
    def notify(self, context: Context) -> None:
        leave("notifier", context)


class PushesMore(FluxPredictionOperator):
    """Pushes an XCom of its own when its prediction has ended."""

    def execute_complete(self, context: Context, event: Any) -> Any:
        urls = super().execute_complete(context, event)
        context["ti"].xcom_push("count", len(urls))
        return urls


class RunsAfter(FluxPredictionOperator):
    def post_execute(self, context: Any, result: Any = None) -> None:
        leave("overridden", context)


def outlets(way: str) -> dict[str, Any]:
    return {"outlets": [Asset(f"pictures-{way}")]}


CASES: dict[str, tuple[type[FluxPredictionOperator], Callable[[str], dict[str, Any]]]] = {
    "plain": (FluxPredictionOperator, lambda way: {}),
    "callback": (FluxPredictionOperator, lambda way: {"on_success_callback": tell}),
    "callbacks": (FluxPredictionOperator, lambda way: {"on_success_callback": [tell, Tell()]}),
    "post_execute": (FluxPredictionOperator, lambda way: {"post_execute": tell_result}),
    "overridden": (RunsAfter, lambda way: {}),
    "own_xcom": (PushesMore, lambda way: {}),
    "outlets": (FluxPredictionOperator, outlets),
    "no_xcom": (FluxPredictionOperator, lambda way: {"do_xcom_push": False}),
    "email": (FluxPredictionOperator, lambda way: {"email": "a@example.com", "email_on_failure": True}),
    "other_callbacks": (FluxPredictionOperator, lambda way: {"on_failure_callback": tell, "on_retry_callback": tell}),
    "timeout": (FluxPredictionOperator, lambda way: {"execution_timeout": timedelta(minutes=5)}),
}

with DAG("successes", schedule=None, catchup=False, default_args={"retries": 1}):
    for way, choice in WAYS.items():
        for case, (operator, options) in CASES.items():
            operator(
                task_id=f"{case}.{way}", model=MODEL, prompt=case, end_from_trigger=choice, **WAITS, **options(way)
            )
        FluxPredictionOperator.partial(
            task_id=f"named.{way}",
            model=MODEL,
            end_from_trigger=choice,
            map_index_template="{{ task.prompt }}",
            **WAITS,
        ).expand(prompt=["a cup", "a pot"])
        FluxPredictionOperator.partial(
            task_id=f"named_by_xcom.{way}",
            model=MODEL,
            end_from_trigger=choice,
            map_index_template="{{ 'ended' if ti.xcom_pull(task_ids=ti.task_id, key='output_url') else 'begun' }}",
            **WAITS,
        ).expand(prompt=["a cup"])

        @task.flux(task_id=f"function.{way}", model=MODEL, end_from_trigger=choice, **WAITS)
        def function() -> str:
            return "a cup"

        @task(task_id=f"downstream.{way}")
        def count(urls: list[str]) -> int:
            return len(urls)

        @setup
        @task(task_id=f"set_up.{way}")
        def set_up() -> None:
            leave("setup", get_current_context())

        @teardown
        @task(task_id=f"tear_down.{way}")
        def tear_down() -> None:
            leave("teardown", get_current_context())

        counted = count(function())
        made = FluxPredictionOperator(task_id=f"made.{way}", model=MODEL, prompt="a cup")
        waited = FluxPredictionSensor(
            task_id=f"sensor.{way}",
            prediction_id=made.output,
            deferrable=True,
            poll_interval=0.5,
            end_from_trigger=choice,
        )
        set_up() >> made >> waited >> tear_down()
