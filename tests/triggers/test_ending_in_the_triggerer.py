"""A success that ends its task in the triggerer, and all that does not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import TaskDeferred
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.ending import ends_from_trigger
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.operators.flux import FluxPredictionOperator
from airflow_provider_flux.sensors.flux import FluxPredictionSensor
from airflow_provider_flux.triggers.flux import FluxPredictionTrigger
from tests.conftest import Connect
from tests.durable.tries import TaskLife

SCHNELL = "black-forest-labs/flux-schnell"
BOAT = {"prompt": "A paper boat floating on calm water at sunrise."}


@pytest.fixture(autouse=True)
def connection(emulator: Emulator, connect: Connect) -> None:
    connect(emulator.url, gateway="deerapi", read_timeout=0.5)


async def fire(*, in_a_triggerer: bool = True, **options: Any) -> TriggerEvent:
    now = time.time()
    arguments: dict[str, Any] = {
        "flux_conn_id": "flux_default",
        "prediction_id": FluxHook().create_prediction(SCHNELL, BOAT).id,
        "model": SCHNELL,
        "submitted_at": now,
        "deadline": now + 20,
        "poll_interval": 0.05,
        "end_task": True,
    }
    trigger = FluxPredictionTrigger(**{**arguments, **options})
    trigger.task_instance = SimpleNamespace(task_id="make") if in_a_triggerer else None  # type: ignore[assignment]
    (event,) = [event async for event in trigger.run()]
    return event


async def test_a_success_ends_the_task_with_the_xcoms_that_a_worker_would_have_pushed() -> None:
    event = await fire()

    assert isinstance(event, TaskSuccessEvent)
    assert event.xcoms is not None
    result = event.xcoms["flux_result"]
    assert isinstance(result, dict)
    assert (result["status"], result["model"], result["prompt"]) == ("succeeded", SCHNELL, BOAT["prompt"])
    assert event.xcoms["return_value"] == result["outputs"]
    assert event.xcoms["output_url"] == result["outputs"][0]  # type: ignore[index,call-overload]


async def test_what_the_triggerer_logs_of_an_event_that_ends_a_task_holds_no_url(emulator: Emulator) -> None:
    """the key"""
    event = await fire()

    assert "http" not in repr(event)
    assert "http" not in str(event.payload)


async def test_a_task_without_a_return_value_gets_none() -> None:
    event = await fire(push_return_value=False)

    assert isinstance(event, TaskSuccessEvent)
    assert set(event.xcoms or {}) == {"flux_result", "output_url"}


@pytest.mark.parametrize("outcome", ["E005", "canceled", "aborted", "data_uri"])
async def test_anything_but_a_success_with_urls_resumes_the_task(emulator: Emulator, outcome: str) -> None:
    emulator.add_outcome(outcome)

    event = await fire()

    assert not isinstance(event, TaskSuccessEvent)
    assert event.payload["prediction_id"]


async def test_the_deadline_resumes_the_task(emulator: Emulator) -> None:
    emulator.settings(speed=0.1)

    event = await fire(deadline=time.time() + 0.5)

    assert event.payload["status"] == "timed_out"


async def test_outside_of_a_triggerer_the_task_always_resumes() -> None:
    event = await fire(in_a_triggerer=False)

    assert event.payload["status"] == "succeeded"


class _WithMoreToDo(FluxPredictionOperator):
    def execute_complete(self, context: Any, event: Any) -> Any:
        return super().execute_complete(context, event)


@pytest.fixture
def listener() -> Iterator[None]:
    from airflow.sdk.listener import get_listener_manager

    class Plugin:
        from airflow.listeners import hookimpl

        @staticmethod
        @hookimpl
        def on_task_instance_success(previous_state: Any, task_instance: Any) -> None:
            raise NotImplementedError

    get_listener_manager().add_listener(Plugin)
    yield
    get_listener_manager().clear()


def operator(**options: Any) -> FluxPredictionOperator:
    return FluxPredictionOperator(task_id="make", model=SCHNELL, prompt="x", **options)


def test_by_default_a_task_ends_in_the_triggerer_where_nothing_is_dropped() -> None:
    assert ends_from_trigger(operator(), "auto", FluxPredictionOperator)
    assert ends_from_trigger(operator(map_index_template="{{ task.prompt }}"), "auto", FluxPredictionOperator)


@pytest.mark.parametrize(
    "task",
    [
        pytest.param(lambda: operator(outlets=[Asset("s3://bucket/pictures")]), id="outlets"),
        pytest.param(lambda: operator(post_execute=lambda context, result: None), id="post_execute"),
        pytest.param(lambda: _WithMoreToDo(task_id="make", model=SCHNELL, prompt="x"), id="derived class"),
    ],
)
def test_by_default_a_task_resumes_where_something_would_be_dropped(task: Any) -> None:
    assert not ends_from_trigger(task(), "auto", FluxPredictionOperator)


@pytest.mark.usefixtures("listener")
def test_by_default_a_task_resumes_where_a_listener_waits_for_its_success_on_the_worker() -> None:
    assert not ends_from_trigger(operator(), "auto", FluxPredictionOperator)


@pytest.mark.parametrize("choice", [True, False])
def test_the_author_of_a_dag_has_the_last_word(choice: bool) -> None:
    task = operator(outlets=[Asset("s3://bucket/pictures")])

    assert ends_from_trigger(task, choice, FluxPredictionOperator) is choice


@pytest.mark.parametrize("choice", [None, "always", 2])
def test_any_other_choice_is_refused_when_the_dag_is_parsed(choice: Any) -> None:
    with pytest.raises(ValueError, match="end_from_trigger"):
        operator(end_from_trigger=choice)
    with pytest.raises(ValueError, match="end_from_trigger"):
        FluxPredictionSensor(task_id="wait", prediction_id="x", end_from_trigger=choice)


@pytest.mark.parametrize(("choice", "ends"), [("auto", True), (False, False)])
def test_the_choice_reaches_the_trigger_and_costs_one_post(emulator: Emulator, choice: Any, ends: bool) -> None:
    emulator.settings(speed=0.1)
    life = TaskLife(
        {
            "task_id": "make",
            "model": SCHNELL,
            "input": BOAT,
            "wait_for_completion": True,
            "deferrable": True,
            "wait_before_defer": 0,
            "end_from_trigger": choice,
        }
    )

    with pytest.raises(TaskDeferred) as deferred:
        life.execute()

    assert deferred.value.trigger.serialize()[1]["end_task"] is ends
    assert emulator.posts == 1
