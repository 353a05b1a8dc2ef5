"""Tasks that store their pictures, on real Airflow against the emulator."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, Asset, AssetAlias
from PIL import Image

from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import FluxInputError
from airflow_provider_flux.operators.flux import FluxPredictionOperator
from airflow_provider_flux.outputs import task_outputs
from airflow_provider_flux.outputs.storing import StoredPicture
from airflow_provider_flux.sensors.flux import FluxPredictionSensor
from tests.conftest import Connect
from tests.on_airflow.runs import FinishedRun, run

pytestmark = pytest.mark.usefixtures("airflow_db")

SCHNELL = "black-forest-labs/flux-schnell"
BOAT = {"prompt": "A paper boat floating on calm water at sunrise.", "output_format": "webp", "seed": 11}
WAITS = {"wait_for_completion": True, "deferrable": True, "wait_before_defer": 0, "poll_interval": 0.2}


@pytest.fixture(autouse=True)
def gateway(emulator: Emulator, connect: Connect) -> None:
    connect(emulator.url, gateway="deerapi", read_timeout=2, prices={SCHNELL: 0.003})


def make(folder: Path, **options: Any) -> FinishedRun:
    arguments: dict[str, Any] = {"model": SCHNELL, "input": BOAT, "output_path": f"file://{folder}", **WAITS, **options}
    with DAG("stores_pictures") as dag:
        FluxPredictionOperator(task_id="make", **arguments)
    return run(dag)


def test_a_task_stores_its_pictures_and_returns_their_paths(emulator: Emulator, tmp_path: Path) -> None:
    """pictures to store (`output_path`)"""
    finished = make(tmp_path, input={**BOAT, "num_outputs": 2}, output_sidecar=True)

    assert finished.state == "success"
    paths = finished.xcom("make")
    result = finished.xcom("make", "flux_result")
    assert [entry["path"] for entry in result["stored"]] == paths
    assert len(paths) == len(result["outputs"]) == 2
    for path, entry in zip(paths, result["stored"], strict=True):
        file = Path(path.removeprefix("file://"))
        assert hashlib.sha256(file.read_bytes()).hexdigest() == entry["sha256"]
        with Image.open(file) as image:
            assert (image.format, image.size) == ("WEBP", (entry["width"], entry["height"]))
    assert (result["seed"], result["cost_usd"]) == (11, 0.006)
    (sidecar,) = tmp_path.rglob("*.json")
    assert json.loads(sidecar.read_text())["prompt"] == BOAT["prompt"]
    assert emulator.posts == 1
    assert emulator.foreign_requests_with_authorization == 0


def test_a_sensor_stores_the_pictures_that_it_waited_for(emulator: Emulator, tmp_path: Path) -> None:
    with DAG("sensor_stores") as dag:
        made = FluxPredictionOperator(task_id="make", model=SCHNELL, input=BOAT)
        FluxPredictionSensor(
            task_id="ready",
            prediction_id=made.output,
            deferrable=True,
            poll_interval=0.2,
            output_path=str(tmp_path / "{{ dag.dag_id }}"),
        )

    finished = run(dag)

    assert finished.state == "success"
    (path,) = finished.xcom("ready")
    assert Path(path).is_relative_to(tmp_path / "sensor_stores")
    assert Path(path).stat().st_size > 0


def test_a_data_uri_is_stored_and_never_enters_xcom(emulator: Emulator, tmp_path: Path) -> None:
    """output: string, list, `data:` URI, null, shorter list than asked"""
    emulator.add_outcome("data_uri")

    finished = make(tmp_path)

    assert finished.state == "success"
    assert Path(finished.xcom("make")[0].removeprefix("file://")).exists()
    assert finished.xcom("make", "flux_result")["outputs"] == []
    assert "data:" not in json.dumps(finished.xcom("make", "flux_result"))


def test_a_download_that_fails_is_tried_again_without_another_prediction(emulator: Emulator, tmp_path: Path) -> None:
    emulator.add_fault("cut_body", on="file")

    finished = make(tmp_path)

    assert finished.state == "success"
    assert len(finished.xcom("make")) == 1
    assert emulator.posts == 1


def test_a_place_that_cannot_be_used_is_refused_before_anything_is_paid_for(emulator: Emulator) -> None:
    task = FluxPredictionOperator(
        task_id="make", model=SCHNELL, input=BOAT, output_path="nosuchscheme://bucket/x", **WAITS
    )

    with pytest.raises(FluxInputError, match="nosuchscheme"):
        task.execute({})  # type: ignore[typeddict-item]

    assert emulator.posts == 0


def test_storing_without_waiting_is_refused_when_the_dag_is_parsed() -> None:
    with pytest.raises(ValueError, match="wait_for_completion"):
        FluxPredictionOperator(task_id="make", model=SCHNELL, input=BOAT, output_path="/pictures")


def test_outlets_get_asset_events_for_what_was_stored(tmp_path: Path) -> None:
    finished = make(tmp_path, outlets=[AssetAlias("pictures"), Asset("file:///pictures-of-a-task")])

    assert finished.state == "success"
    (path,) = finished.xcom("make")
    events = {event.asset.uri: event.extra for event in finished.asset_events()}
    assert events[path]["prompt"] == BOAT["prompt"]
    assert events[path]["sha256"] == finished.xcom("make", "flux_result")["stored"][0]["sha256"]
    assert [entry["uri"] for entry in events["file:///pictures-of-a-task"]["pictures"]] == [path]


def test_what_cannot_be_stored_is_not_paid_for_again_where_no_record_is_kept(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_outputs, "PATIENCE", 0.5)
    emulator.add_fault("500", on="file", times=None)

    finished = make(tmp_path, durable=False, retries=2, retry_delay=timedelta(seconds=0))

    assert finished.state == "failed"
    assert finished.tries("make") == 1
    assert emulator.posts == 1


def test_openlineage_is_told_of_the_stored_files(tmp_path: Path) -> None:
    task = FluxPredictionOperator(task_id="make", model=SCHNELL, input=BOAT, output_path=str(tmp_path), **WAITS)
    task._storage.pictures.append(  # type: ignore[union-attr]
        StoredPicture(f"{tmp_path}/a_0.png", "", "0" * 64, 10, 8, 8, "png")
    )

    lineage = task.get_openlineage_facets_on_complete(None)

    assert [dataset.name for dataset in lineage.outputs] == [f"{tmp_path}/a_0.png"]
