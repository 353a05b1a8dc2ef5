"""The least that must work on every version of Airflow and Python that is supported."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.operators.flux import FluxPredictionOperator
from airflow_provider_flux.sensors.flux import FluxPredictionSensor
from airflow_provider_flux.triggers.flux import FluxPredictionTrigger
from tests.conftest import Connect
from tests.inputs.pictures import picture
from tests.on_airflow.runs import run

SCHNELL = "black-forest-labs/flux-schnell"
KONTEXT = "black-forest-labs/flux-kontext-pro"
BOAT = {"prompt": "A paper boat floating on calm water at sunrise.", "aspect_ratio": "1:1"}
DEFERS: dict[str, Any] = {"deferrable": True, "wait_before_defer": 0, "poll_interval": 0.2}


@pytest.fixture(autouse=True)
def gateway(emulator: Emulator, connect: Connect) -> None:
    connect(emulator.url, gateway="deerapi", read_timeout=2)


def test_airflow_knows_the_provider() -> None:
    from airflow.providers_manager import ProvidersManager

    assert "airflow-provider-flux" in ProvidersManager().providers
    assert ProvidersManager().hooks["flux"] is not None


def test_the_hook_makes_one_prediction_and_waits_for_it(emulator: Emulator) -> None:
    hook = FluxHook()
    assert hook.test_connection()[0] is True
    made = hook.create_prediction(SCHNELL, BOAT)
    ended = hook.wait_for_prediction(made.id, deadline=time.time() + 20)
    assert ended is not None
    assert ended.outputs
    assert emulator.posts == 1


def test_the_trigger_fires_once() -> None:
    made = FluxHook().create_prediction(SCHNELL, BOAT)
    trigger = FluxPredictionTrigger(
        flux_conn_id="flux_default",
        prediction_id=made.id,
        model=SCHNELL,
        submitted_at=time.time(),
        deadline=time.time() + 20,
        poll_interval=0.1,
    )

    async def events() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    (event,) = asyncio.run(events())
    assert event["status"] == "succeeded"


def test_a_picture_from_a_folder_goes_in(emulator: Emulator, tmp_path: Path) -> None:
    content = picture()
    (tmp_path / "tea cup.png").write_bytes(content)
    for path in (str(tmp_path / "tea cup.png"), f"file://{tmp_path}/tea cup.png"):
        FluxHook().create_prediction(KONTEXT, {"prompt": "A tea cup", "input_image": path})
        assert emulator.predictions[-1].pictures[0].size == len(content)


@pytest.mark.usefixtures("airflow_db")
def test_a_run_with_every_part_of_the_provider_succeeds(emulator: Emulator) -> None:
    with DAG("smoke") as dag:
        made = FluxPredictionOperator(task_id="make", model=SCHNELL, input=BOAT)
        ready = FluxPredictionSensor(task_id="ready", prediction_id=made.output, deferrable=True, poll_interval=0.2)
        mapped = FluxPredictionOperator.partial(
            task_id="mapped", model=SCHNELL, wait_for_completion=True, **DEFERS
        ).expand(prompt=["A hat", "A coat"])

        @task
        def count(urls: list[str], pictures: list[list[str]]) -> int:
            return len(urls) + sum(map(len, pictures))

        count(ready.output, mapped.output)

    finished = run(dag)

    assert finished.state == "success"
    assert finished.xcom("count") == 3
    assert finished.link("ready")
    assert (emulator.posts, emulator.accepted, emulator.cancels) == (3, 3, 0)


@pytest.mark.usefixtures("airflow_db")
def test_refused_content_fails_without_a_second_post(emulator: Emulator) -> None:
    emulator.add_outcome("E005", times=None)
    with DAG("smoke_refused") as dag:
        FluxPredictionOperator(task_id="make", model=SCHNELL, input=BOAT, wait_for_completion=True, retries=2, **DEFERS)

    finished = run(dag)

    assert finished.state == "failed"
    assert emulator.posts == 1
