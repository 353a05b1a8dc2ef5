"""A success that ends its task in the triggerer, and all that does not."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, Asset
from airflow.sdk.exceptions import TaskDeferred
from airflow.sdk.execution_time.xcom import XCom
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.operators.flux import FluxPredictionOperator
from airflow_provider_flux.sensors.flux import FluxPredictionSensor
from airflow_provider_flux.tasks.end_from_trigger import ends_from_trigger
from airflow_provider_flux.triggers.flux import FluxPredictionTrigger
from tests.conftest import Connect
from tests.durable.task_instance import OperatorTaskInstance

SCHNELL = "black-forest-labs/flux-schnell"
BOAT = {"prompt": "A paper boat floating on calm water at sunrise."}


@pytest.fixture(autouse=True)
def connection(emulator: Emulator, connect: Connect) -> None:
    connect(emulator.url, gateway="deerapi", read_timeout=0.5)


@pytest.fixture(autouse=True)
def pushed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The XComs that reached Airflow, which is not there; tests/deployment has a real one."""
    values: dict[str, Any] = {}

    def take(key: str, value: Any, **place: Any) -> None:
        assert (place["dag_id"], place["task_id"], place["run_id"], place["map_index"]) == ("d", "make", "r", 3)
        values[key] = value

    monkeypatch.setattr(XCom, "set", take)
    return values


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
    if in_a_triggerer:
        instance = SimpleNamespace(dag_id="d", task_id="make", run_id="r", map_index=3)
        trigger.task_instance = instance  # type: ignore[assignment]
    (event,) = [event async for event in trigger.run()]
    return event


async def test_a_success_ends_the_task_with_the_xcoms_that_a_worker_would_have_pushed(pushed: dict[str, Any]) -> None:
    """success while deferred"""
    event = await fire()

    assert isinstance(event, TaskSuccessEvent)
    result = pushed["flux_result"]
    assert (result["status"], result["model"], result["prompt"]) == ("succeeded", SCHNELL, BOAT["prompt"])
    assert pushed["return_value"] == result["outputs"]
    assert pushed["output_url"] == result["outputs"][0]


async def test_the_event_itself_holds_no_xcoms_since_airflow_would_encode_them_twice() -> None:
    """the key"""
    event = await fire()

    assert isinstance(event, TaskSuccessEvent)
    assert event.xcoms is None
    assert "http" not in repr(event)


async def test_a_task_whose_xcoms_cannot_be_pushed_resumes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no API server")

    monkeypatch.setattr(XCom, "set", refuse)

    event = await fire()

    assert event.payload["status"] == "succeeded"


async def test_a_task_without_a_return_value_gets_none(pushed: dict[str, Any]) -> None:
    event = await fire(push_return_value=False)

    assert isinstance(event, TaskSuccessEvent)
    assert set(pushed) == {"flux_result", "output_url"}


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
    from airflow.listeners.listener import get_listener_manager as get_core_listener_manager
    from airflow.sdk.listener import get_listener_manager

    class Plugin:
        from airflow.listeners import hookimpl

        @staticmethod
        @hookimpl
        def on_task_instance_success(previous_state: Any, task_instance: Any) -> None:
            raise NotImplementedError

    managers = get_listener_manager(), get_core_listener_manager()
    for manager in managers:
        manager.add_listener(Plugin)
    yield
    for manager in managers:
        manager.clear()


def operator(**options: Any) -> FluxPredictionOperator:
    return FluxPredictionOperator(task_id="make", model=SCHNELL, prompt="x", **options)


def with_default_callback() -> FluxPredictionOperator:
    with DAG("tells", default_args={"on_success_callback": print}):
        return operator()


def test_by_default_a_task_ends_in_the_triggerer_where_nothing_is_dropped() -> None:
    assert ends_from_trigger(operator(), "auto", FluxPredictionOperator)
    assert ends_from_trigger(
        operator(on_failure_callback=print, on_retry_callback=print), "auto", FluxPredictionOperator
    )
    assert ends_from_trigger(operator(map_index_template="{{ task.prompt }}"), "auto", FluxPredictionOperator)


@pytest.mark.parametrize(
    "task",
    [
        pytest.param(lambda: operator(outlets=[Asset("s3://bucket/pictures")]), id="outlets"),
        pytest.param(lambda: operator(on_success_callback=print), id="on_success_callback"),
        pytest.param(lambda: operator(on_success_callback=[print]), id="several on_success_callbacks"),
        pytest.param(with_default_callback, id="on_success_callback of default_args"),
        pytest.param(lambda: operator(post_execute=lambda context, result: None), id="post_execute"),
        pytest.param(lambda: _WithMoreToDo(task_id="make", model=SCHNELL, prompt="x"), id="derived class"),
        pytest.param(lambda: operator(map_index_template="{{ ti.xcom_pull(key='output_url') }}"), id="name by XCom"),
    ],
)
def test_by_default_a_task_resumes_where_something_would_be_dropped(task: Any) -> None:
    assert not ends_from_trigger(task(), "auto", FluxPredictionOperator)


def test_by_default_a_task_resumes_where_airflow_clears_what_it_has_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__STATE_STORE__CLEAR_ON_SUCCESS", "True")
    assert not ends_from_trigger(operator(), "auto", FluxPredictionOperator)


@pytest.mark.usefixtures("listener")
def test_by_default_a_task_resumes_where_a_listener_waits_for_its_success_on_the_worker() -> None:
    assert not ends_from_trigger(operator(), "auto", FluxPredictionOperator)


@pytest.mark.usefixtures("listener", "airflow_db")
@pytest.mark.parametrize(("choice", "is_taken"), [("auto", True), (False, True), (True, False)])
def test_where_there_is_a_listener_airflow_takes_every_dag_but_one_that_insists(choice: Any, is_taken: bool) -> None:
    from airflow.dag_processing.dagbag import DagBag

    with DAG("listened_to") as dag:
        operator(end_from_trigger=choice)
        FluxPredictionSensor(task_id="wait", prediction_id="x", end_from_trigger=choice)
    bag = DagBag(os.devnull, collect_dags=False)
    with nullcontext() if is_taken else pytest.raises(Exception, match="Listeners are not supported"):
        bag.bag_dag(dag)


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
    life = OperatorTaskInstance(
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
