"""``@task.flux`` on real Airflow, over the emulator."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task
from airflow.sdk.definitions.context import KNOWN_CONTEXT_KEYS

from airflow_provider_flux.decorators import flux_task
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.operators.flux import FluxPredictionOperator
from airflow_provider_flux.sensors.flux import FluxPredictionSensor
from airflow_provider_flux.tasks.end_from_trigger import _needs_a_worker
from tests.conftest import Connect
from tests.durable.task_instance import OperatorTaskInstance
from tests.inputs.pictures import picture
from tests.on_airflow.runs import FinishedRun, run

try:
    from airflow.sdk.exceptions import TaskDeferred
except ImportError:  # Airflow 3.1
    from airflow.exceptions import TaskDeferred

pytestmark = pytest.mark.usefixtures("airflow_db")

SCHNELL = "black-forest-labs/flux-schnell"
KEEPS_RECORDS = pytest.mark.skipif(
    "task_state_store" not in KNOWN_CONTEXT_KEYS,
    reason="this Airflow has no task state store; version 3.3 and later do",
)
DEFERS = {"wait_for_completion": True, "deferrable": True, "wait_before_defer": 0, "poll_interval": 0.2}


@pytest.fixture(autouse=True)
def gateway(emulator: Emulator, connect: Connect) -> None:
    emulator.settings(small_pictures=True)
    connect(emulator.url, gateway="deerapi", read_timeout=2)


def inputs(emulator: Emulator) -> list[dict[str, Any]]:
    return [dict(prediction.input) for prediction in emulator.predictions]


def test_the_prompt_that_a_function_returns_is_sent_with_the_rest_of_the_input(emulator: Emulator) -> None:
    with DAG("decorated_prompt") as dag:

        @task
        def colour() -> str:
            return "red"

        @task.flux(model=SCHNELL, input={"aspect_ratio": "4:3"})
        def lantern(colour: str, ds: str | None = None) -> str:
            return f"A {colour} paper lantern" if ds is None or ds else "no context"

        FluxPredictionSensor(task_id="ready", prediction_id=lantern(colour()), deferrable=True, poll_interval=0.2)

    finished = run(dag)

    assert finished.state == "success"
    assert inputs(emulator) == [{"prompt": "A red paper lantern", "aspect_ratio": "4:3"}]
    assert finished.xcom("lantern") == finished.xcom("lantern", "prediction_id")
    assert finished.link("lantern").endswith(finished.xcom("lantern"))
    assert emulator.posts == 1


def test_a_function_whose_annotation_says_dict_returns_the_input_and_the_task_its_urls(emulator: Emulator) -> None:
    with DAG("decorated_dict") as dag:

        @task.flux(model=SCHNELL, wait_for_completion=True)
        def lantern() -> dict[str, Any]:
            return {"prompt": "A red paper lantern", "seed": 7, "num_outputs": 2}

        lantern()

    finished = run(dag)

    assert finished.state == "success"
    assert inputs(emulator) == [{"prompt": "A red paper lantern", "seed": 7, "num_outputs": 2}]
    assert len(finished.xcom("lantern")) == 2
    assert finished.xcom("lantern", "prompt") is None
    assert emulator.posts == 1


def test_what_a_function_returns_is_not_rendered_as_a_template(emulator: Emulator) -> None:
    with DAG("decorated_braces") as dag:

        @task.flux(model=SCHNELL)
        def lantern() -> str:
            return "A lantern with {{ conn.flux_default.password }} on it"

        lantern()

    assert run(dag).state == "success"
    assert inputs(emulator) == [{"prompt": "A lantern with {{ conn.flux_default.password }} on it"}]


def test_a_task_that_defers_calls_its_function_once_and_still_tells_what_was_asked_for(
    emulator: Emulator, tmp_path: Path
) -> None:
    calls: list[str] = []
    with DAG("decorated_deferred") as dag:

        @task.flux(
            model=SCHNELL,
            input={"output_format": "png"},
            output_path=str(tmp_path),
            output_sidecar=True,
            end_from_trigger=False,
            **DEFERS,
        )
        def lantern(run_id: str) -> dict[str, Any]:
            calls.append(run_id)
            return {"prompt": "A red paper lantern", "seed": 7}

        lantern()

    finished = run(dag)

    assert finished.state == "success"
    assert len(calls) == 1
    result = finished.xcom("lantern", "flux_result")
    assert (result["prompt"], result["seed"], result["status"]) == ("A red paper lantern", 7, "succeeded")
    (path,) = finished.xcom("lantern")
    assert Path(path).suffix == ".png"
    (sidecar,) = tmp_path.rglob("*.json")
    assert '"A red paper lantern"' in sidecar.read_text("utf-8")
    assert emulator.posts == 1


def defer_and_resume(emulator: Emulator, instance: OperatorTaskInstance, on_a_worker: Callable[[], Any]) -> Any:
    """Return what a task returns that is deferred on one worker and resumes on another.

    :param on_a_worker: makes the operator, as each worker does for itself.
    """
    emulator.add_outcome("stuck")
    with pytest.raises(TaskDeferred) as deferred:
        on_a_worker().execute(instance._context())
    emulator.finish(emulator.predictions[0].id)
    event = deferred.value.trigger.pending.event("succeeded")  # type: ignore[attr-defined]
    return on_a_worker().execute_complete(instance._context(), event)


def test_a_worker_that_resumes_knows_what_was_asked_for_without_calling_the_function(emulator: Emulator) -> None:
    calls: list[str] = []

    def on_a_worker() -> Any:
        with DAG("decorated_resumed"):

            @task.flux(model=SCHNELL, input={"num_outputs": 2}, **DEFERS)
            def lantern() -> dict[str, Any]:
                calls.append("called")
                return {"prompt": "A red paper lantern", "seed": 7}

            return lantern().operator

    instance = OperatorTaskInstance({"task_id": "lantern", "model": SCHNELL})
    urls = defer_and_resume(emulator, instance, on_a_worker)

    assert calls == ["called"]
    assert len(urls) == 2
    result = instance.xcoms["flux_result"]
    assert (result["status"], result["prompt"], result["seed"]) == ("succeeded", "A red paper lantern", 7)
    assert emulator.posts == 1


def test_a_function_may_return_the_path_of_a_photo(emulator: Emulator, tmp_path: Path) -> None:
    (tmp_path / "tea.png").write_bytes(picture())
    with DAG("decorated_photo") as dag:

        @task.flux(model="black-forest-labs/flux-kontext-pro", **DEFERS)
        def restyle() -> dict[str, Any]:
            return {"prompt": "on a white background", "input_image": str(tmp_path / "tea.png")}

        restyle()

    finished = run(dag)

    assert finished.state == "success"
    assert [arrived.field for arrived in emulator.predictions[0].pictures] == ["input_image"]
    [given] = finished.xcom("restyle", "flux_result")["inputs"]
    assert given["path"] == str(tmp_path / "tea.png")
    assert emulator.posts == 1


@pytest.mark.parametrize(
    ("model", "field", "places"),
    [
        ("black-forest-labs/flux-kontext-pro", "input_image", ["input_image"]),
        ("black-forest-labs/flux-2-pro", "input_images", ["input_images.0", "input_images.1"]),
    ],
)
def test_a_task_that_resumes_tells_of_the_photos_that_its_function_returned(
    emulator: Emulator, tmp_path: Path, model: str, field: str, places: list[str]
) -> None:
    paths = [str(tmp_path / f"{at}.png") for at in range(len(places))]
    for path in paths:
        Path(path).write_bytes(picture())
    operators: list[Any] = []

    def on_a_worker() -> Any:
        with DAG("decorated_photos_resumed"):

            @task.flux(model=model, **DEFERS)
            def restyle() -> dict[str, Any]:
                return {"prompt": "on a white background", field: paths if len(paths) > 1 else paths[0]}

            operators.append(restyle().operator)
            return operators[-1]

    instance = OperatorTaskInstance({"task_id": "restyle", "model": model})
    defer_and_resume(emulator, instance, on_a_worker)

    inputs = instance.xcoms["flux_result"]["inputs"]
    assert [(given["field"], given["path"]) for given in inputs] == list(zip(places, paths, strict=True))
    assert operators[-1].overwrite_rtif_after_execution
    shown = {name: value for name, value in operators[-1].input.items() if name in {"prompt", field}}
    assert shown == {"prompt": "on a white background", field: paths if len(paths) > 1 else paths[0]}
    assert emulator.posts == 1


def test_so_does_one_of_a_model_whose_fields_nobody_knows(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_flux.decorators.picture_fields", lambda model: frozenset())
    path = str(tmp_path / "tea.png")
    Path(path).write_bytes(picture())

    def on_a_worker() -> Any:
        with DAG("decorated_input_files"):

            @task.flux(model="black-forest-labs/flux-kontext-pro", input_files={"input_image": path}, **DEFERS)
            def restyle() -> str:
                return "on a white background"

            return restyle().operator

    instance = OperatorTaskInstance({"task_id": "restyle", "model": "black-forest-labs/flux-kontext-pro"})
    defer_and_resume(emulator, instance, on_a_worker)

    [given] = instance.xcoms["flux_result"]["inputs"]
    assert (given["field"], given["path"]) == ("input_image", path)
    assert emulator.posts == 1


def test_each_row_is_one_mapped_task_and_one_post(emulator: Emulator) -> None:
    with DAG("decorated_mapped") as dag:

        @task
        def rows() -> list[dict[str, str]]:
            return [{"name": "lantern"}, {"name": "kite"}, {"name": "boat"}]

        @task.flux(model=SCHNELL, map_index_template="{{ task.op_kwargs['row']['name'] }}", **DEFERS)
        def picture(row: dict[str, str], style: str) -> str:
            return f"A paper {row['name']}, {style}"

        @task
        def count(pictures: list[list[str]]) -> int:
            return len({url for urls in pictures for url in urls})

        count(picture.partial(style="studio photo").expand(row=rows()))

    finished = run(dag)

    assert finished.states("picture") == ["success"] * 3
    assert finished.xcom("count") == 3
    assert {given["prompt"] for given in inputs(emulator)} == {
        f"A paper {name}, studio photo" for name in ("lantern", "kite", "boat")
    }
    assert [finished.xcom("picture", "flux_result", index)["prompt"] for index in range(3)] == [
        f"A paper {name}, studio photo" for name in ("lantern", "kite", "boat")
    ]
    assert emulator.posts == 3


@pytest.mark.parametrize("returned", [None, ["A lantern"], 7, b"A lantern"])
def test_a_wrong_return_is_an_error_that_names_the_function_and_nothing_is_sent(
    emulator: Emulator, returned: object
) -> None:
    with DAG("decorated_wrong") as dag:

        @task.flux(model=SCHNELL, task_id="make", retries=2, retry_delay=timedelta(seconds=0))
        def lantern() -> Any:
            return returned

        lantern()

    finished = run(dag)

    assert finished.state == "failed"
    assert finished.tries("make") == 1
    assert emulator.posts == 0
    told = _error_of(dag)
    assert "function lantern of task make must return the prompt (str) or the input (dict)" in told
    assert f"it returned {type(returned).__name__}" in told


def _error_of(dag: DAG) -> str:
    """Return the error that a decorated task raises before it asks for anything."""
    (operator,) = dag.tasks
    with pytest.raises(Exception, match="Nothing was sent") as caught:
        operator.execute({})
    return str(caught.value)


@KEEPS_RECORDS
def test_a_retry_goes_on_with_the_prediction_of_the_same_prompt(emulator: Emulator) -> None:
    calls: list[str] = []

    finished = _fail_once(calls, lambda call: "A red paper lantern")

    assert (finished.state, finished.tries("lantern"), len(calls)) == ("success", 2, 2)
    assert finished.xcom("lantern") == emulator.predictions[0].id
    assert (emulator.posts, emulator.cancels) == (1, 0)


@KEEPS_RECORDS
def test_a_retry_whose_function_returns_another_prompt_cancels_and_pays_again(emulator: Emulator) -> None:
    emulator.settings(run_time=30)
    calls: list[str] = []

    finished = _fail_once(calls, lambda call: f"A paper lantern, number {call}")

    assert (finished.state, finished.tries("lantern"), len(calls)) == ("success", 2, 2)
    assert finished.xcom("lantern") == emulator.predictions[1].id
    assert (emulator.posts, emulator.cancels) == (2, 1)


def _fail_once(calls: list[str], prompt: Callable[[int], str]) -> FinishedRun:
    """Run a decorated task whose first try fails once its prediction is made."""

    def fail_at_first(context: Any, result: Any) -> None:
        if len(calls) == 1:
            raise RuntimeError("the first try fails")

    with DAG("decorated_retry") as dag:

        @task.flux(model=SCHNELL, retries=1, retry_delay=timedelta(seconds=0), post_execute=fail_at_first)
        def lantern() -> str:
            calls.append(prompt(len(calls)))
            return calls[-1]

        lantern()

    return run(dag)


def test_a_decorated_task_ends_in_the_triggerer_wherever_the_operator_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_flux.tasks.end_from_trigger._is_listened_to", lambda: False)
    with DAG("decorated_ending"):

        @task.flux(model=SCHNELL, **DEFERS)
        def lantern() -> str:
            return "A lantern"

        operator = lantern().operator

    assert isinstance(operator, FluxPredictionOperator)
    assert not _needs_a_worker(operator, FluxPredictionOperator)


def test_airflow_finds_the_decorator_and_shows_its_name() -> None:
    assert task.flux is flux_task
    with DAG("decorated_name"):

        @task.flux(model=SCHNELL)
        def lantern(colour: str) -> str:
            return f"A {colour} lantern"

        assert lantern("red").operator.operator_name == "@task.flux"
        assert lantern.expand(colour=["red"]).operator.operator_name == "@task.flux"


def test_a_result_that_is_a_list_cannot_be_asked_to_be_taken_apart() -> None:
    with pytest.raises(TypeError, match="multiple_outputs"):

        @task.flux(model=SCHNELL, multiple_outputs=True)
        def lantern() -> str:
            return "A lantern"


def test_parsing_a_decorated_function_loads_no_http_library() -> None:
    code = (
        "import airflow.sdk, sys; before = set(sys.modules); import airflow_provider_flux.decorators; "
        "print(sorted({'requests', 'aiohttp', 'PIL', 'pyarrow', 'sqlite3'} & (set(sys.modules) - before)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip().splitlines()[-1] == "[]"
