"""Whole DAG runs on real Airflow against the emulator."""

from __future__ import annotations

import urllib.request
from datetime import timedelta
from io import BytesIO
from typing import Any

import pytest
from airflow.sdk import DAG, task
from PIL import Image

from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.operators.flux import FluxPredictionOperator
from airflow_provider_flux.sensors.flux import FluxPredictionSensor
from tests.conftest import KEY, Connect
from tests.on_airflow.runs import run

pytestmark = pytest.mark.usefixtures("airflow_db")

SCHNELL = "black-forest-labs/flux-schnell"
PRO = "black-forest-labs/flux-1.1-pro"
LANTERN = {
    "prompt": "A red paper lantern on a wooden table, studio photo",
    "aspect_ratio": "1:1",
    "output_format": "jpg",
}
BOAT = {
    "prompt": "A paper boat floating on calm water at sunrise.",
    "aspect_ratio": "1:1",
    "output_format": "webp",
    "output_quality": 80,
}
DEFERS = {"deferrable": True, "wait_before_defer": 0, "poll_interval": 0.2}


@pytest.fixture(autouse=True)
def gateway(emulator: Emulator, connect: Connect) -> None:
    connect(emulator.url, gateway="deerapi", read_timeout=2)


def picture(url: str) -> Image.Image:
    with urllib.request.urlopen(url) as answer:
        return Image.open(BytesIO(answer.read()))


def test_the_two_seed_requests_lead_to_pictures_of_the_asked_format_and_shape(emulator: Emulator) -> None:
    """output: string, list, `data:` URI, null, shorter list than asked"""
    emulator.settings(small_pictures=False)
    with DAG("seed_requests") as dag:
        for name, model, given in (("lantern", PRO, LANTERN), ("boat", SCHNELL, BOAT)):
            made = FluxPredictionOperator(task_id=f"make_{name}", model=model, input=given)
            FluxPredictionSensor(task_id=f"{name}_ready", prediction_id=made.output, deferrable=True, poll_interval=0.2)

    finished = run(dag)

    assert finished.state == "success"
    for name, kind in (("lantern", "JPEG"), ("boat", "WEBP")):
        prediction_id = finished.xcom(f"make_{name}")
        urls = finished.xcom(f"{name}_ready")
        assert finished.xcom(f"make_{name}", "prediction_id") == prediction_id
        assert finished.xcom(f"{name}_ready", "prediction_id") == prediction_id
        assert finished.xcom(f"{name}_ready", "output_url") == urls[0]
        assert finished.xcom(f"{name}_ready", "flux_result")["status"] == "succeeded"
        assert finished.link(f"{name}_ready").endswith(f"/p/{prediction_id}")
        image = picture(urls[0])
        assert (image.format, image.size) == (kind, (1024, 1024))
    assert (emulator.posts, emulator.accepted, emulator.cancels) == (2, 2, 0)
    assert emulator.foreign_requests_with_authorization == 0


@pytest.mark.parametrize("waiting", [{}, DEFERS, {"deferrable": True}], ids=["plain", "deferred", "short wait"])
def test_one_task_makes_waits_and_hands_on_the_urls(emulator: Emulator, waiting: dict[str, Any]) -> None:
    """`succeeded`"""
    with DAG("one_task") as dag:

        @task
        def count(urls: list[str]) -> int:
            return len(urls)

        made = FluxPredictionOperator(
            task_id="make", model=SCHNELL, input={**BOAT, "num_outputs": 3}, wait_for_completion=True, **waiting
        )
        count(made.output)

    finished = run(dag)

    assert finished.state == "success"
    assert finished.xcom("count") == 3
    assert len(finished.xcom("make")) == 3
    result = finished.xcom("make", "flux_result")
    assert result["model"] == SCHNELL
    assert result["prompt"] == BOAT["prompt"]
    assert result["outputs"] == finished.xcom("make")
    assert result["metrics"]["predict_time"] > 0
    assert emulator.posts == 1


def test_mapped_prompts_each_cost_one_post(emulator: Emulator) -> None:
    with DAG("mapped", params={"colour": "blue"}) as dag:

        @task
        def rows() -> list[dict[str, Any]]:
            return [
                {"prompt": f"A {animal}", "num_outputs": 1 + n % 2} for n, animal in enumerate(["cat", "dog", "owl"])
            ]

        made = FluxPredictionOperator.partial(task_id="make", model=SCHNELL, wait_for_completion=True, **DEFERS).expand(
            input=rows()
        )
        by_prompt = FluxPredictionOperator.partial(task_id="by_prompt", model=SCHNELL).expand(
            prompt=["{{ params.colour }} hat", "red hat"]
        )
        FluxPredictionSensor.partial(task_id="ready", deferrable=True, poll_interval=0.2).expand(
            prediction_id=by_prompt.output
        )
        FluxPredictionOperator.partial(task_id="by_kwargs").expand_kwargs(
            [{"model": SCHNELL, "prompt": "A"}, {"model": PRO, "input": {"prompt": "B"}}]
        )

        @task
        def flatten(pictures: list[list[str]]) -> int:
            return sum(len(urls) for urls in pictures)

        flatten(made.output)

    finished = run(dag)

    assert finished.state == "success"
    assert finished.states("make") == ["success"] * 3
    assert finished.xcom("flatten") == 4
    assert (emulator.posts, emulator.accepted, emulator.cancels) == (7, 7, 0)
    assert "blue hat" in [prediction.input["prompt"] for prediction in emulator.predictions]


@pytest.mark.parametrize("outcome", ["E005", "NSFW"])
@pytest.mark.parametrize("waiting", [{}, DEFERS], ids=["plain", "deferred"])
def test_refused_content_is_never_tried_again(emulator: Emulator, outcome: str, waiting: dict[str, Any]) -> None:
    """`failed`"""
    emulator.add_outcome(outcome, times=None)
    with DAG("refused") as dag:
        FluxPredictionOperator(
            task_id="make",
            model=SCHNELL,
            input=BOAT,
            wait_for_completion=True,
            retries=3,
            retry_delay=timedelta(0),
            **waiting,
        )

    finished = run(dag)

    assert finished.state == "failed"
    assert emulator.posts == 1
    assert finished.xcom("make", "flux_result")["error"]


@pytest.mark.parametrize("outcome", ["E003", "E004", "E6716", "E8765", "E9828", "PA"])
def test_a_passing_failure_is_tried_again_with_a_new_prediction(emulator: Emulator, outcome: str) -> None:
    """`failed`"""
    emulator.add_outcome(outcome, times=1)
    with DAG("passing") as dag:
        FluxPredictionOperator(
            task_id="make", model=SCHNELL, input=BOAT, wait_for_completion=True, retries=1, retry_delay=timedelta(0)
        )

    finished = run(dag)

    assert finished.state == "success"
    assert (emulator.posts, emulator.accepted) == (2, 2)


@pytest.mark.parametrize("outcome", ["canceled", "aborted"])
@pytest.mark.parametrize("waiting", [{}, DEFERS], ids=["plain", "deferred"])
def test_a_canceled_or_aborted_prediction_ends_the_wait(
    emulator: Emulator, outcome: str, waiting: dict[str, Any]
) -> None:
    """`canceled`, `aborted`"""
    emulator.add_outcome(outcome)
    with DAG("ended") as dag:
        FluxPredictionOperator(task_id="make", model=SCHNELL, input=BOAT, wait_for_completion=True, **waiting)

    finished = run(dag)

    assert finished.state == "failed"
    assert finished.xcom("make", "flux_result")["status"] == outcome


@pytest.mark.parametrize("waiting", [{}, DEFERS], ids=["plain", "deferred"])
def test_at_the_deadline_the_prediction_is_canceled_and_the_task_fails(
    emulator: Emulator, waiting: dict[str, Any]
) -> None:
    """deadline (`timeout`, also `execution_timeout`)"""
    emulator.add_outcome("stuck")
    with DAG("late") as dag:
        FluxPredictionOperator(
            task_id="make", model=SCHNELL, input=BOAT, wait_for_completion=True, timeout=1.5, **waiting
        )

    finished = run(dag)

    assert finished.state == "failed"
    assert emulator.cancels == 1
    assert emulator.predictions[0].status == "canceled"


def test_execution_timeout_counts_while_the_task_is_deferred(emulator: Emulator) -> None:
    """deadline (`timeout`, also `execution_timeout`)"""
    emulator.add_outcome("stuck")
    with DAG("late_too") as dag:
        FluxPredictionOperator(
            task_id="make",
            model=SCHNELL,
            input=BOAT,
            wait_for_completion=True,
            execution_timeout=timedelta(seconds=2),
            **DEFERS,
        )

    finished = run(dag)

    assert finished.state == "failed"
    assert (emulator.posts, emulator.cancels) == (1, 1)


@pytest.mark.parametrize("options", [{}, {"mode": "reschedule"}, {"deferrable": True, "poll_interval": 0.2}])
@pytest.mark.parametrize(
    ("manner", "state"), [({}, "failed"), ({"soft_fail": True}, "skipped"), ({"never_fail": True}, "skipped")]
)
def test_a_sensor_of_a_failed_prediction_fails_or_skips_as_sensors_do(
    emulator: Emulator, options: dict[str, Any], manner: dict[str, Any], state: str
) -> None:
    emulator.add_outcome("E6716")
    with DAG("sensed") as dag:
        made = FluxPredictionOperator(task_id="make", model=SCHNELL, input=BOAT)
        FluxPredictionSensor(
            task_id="ready", prediction_id=made.output, poke_interval=0.2, retries=2, **options, **manner
        )

    finished = run(dag)

    assert finished.states("ready") == [state]
    assert (emulator.posts, emulator.cancels) == (1, 0)


@pytest.mark.parametrize("options", [{}, {"deferrable": True, "poll_interval": 0.2}], ids=["poke", "deferred"])
@pytest.mark.parametrize(("manner", "state"), [({}, "failed"), ({"soft_fail": True}, "skipped")])
def test_a_sensor_that_times_out_leaves_the_prediction_alone(
    emulator: Emulator, options: dict[str, Any], manner: dict[str, Any], state: str
) -> None:
    emulator.add_outcome("stuck")
    with DAG("timed_out") as dag:
        made = FluxPredictionOperator(task_id="make", model=SCHNELL, input=BOAT)
        FluxPredictionSensor(
            task_id="ready", prediction_id=made.output, poke_interval=0.2, timeout=1.5, **options, **manner
        )

    finished = run(dag)

    assert finished.states("ready") == [state]
    assert (emulator.posts, emulator.cancels) == (1, 0)


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_a_sensor_that_does_not_defer_hands_on_the_urls(emulator: Emulator, mode: str) -> None:
    emulator.add_fault("502", on="get", times=2)
    with DAG("poked") as dag:
        made = FluxPredictionOperator(task_id="make", model=PRO, input=LANTERN)
        FluxPredictionSensor(task_id="ready", prediction_id=made.output, poke_interval=0.2, mode=mode)

    finished = run(dag)

    assert finished.state == "success"
    assert len(finished.xcom("ready")) == 1


def test_no_key_reaches_the_output_of_a_failing_run(emulator: Emulator, capfd: pytest.CaptureFixture[str]) -> None:
    """the key"""
    emulator.add_fault("401", on="create")
    with DAG("refused_key") as dag:
        FluxPredictionOperator(task_id="make", model=SCHNELL, input=BOAT)

    finished = run(dag)

    told = "".join(capfd.readouterr())
    assert finished.state == "failed"
    assert "401" in told
    assert KEY not in told
