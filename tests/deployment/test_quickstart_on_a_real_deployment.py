"""The quick start as a user sees it: a real Airflow, the emulator as gateway, everything read by REST."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests.deployment.conftest import API_KEY, DAG_ID, SENSORS, QuickstartRun

# The first test waits for the deployment, which takes a minute or, on a busy machine, several.
pytestmark = [pytest.mark.deployment, pytest.mark.timeout(900)]

OPERATOR_OF = {"lantern_ready": "make_lantern", "boat_ready": "make_boat"}


def xcom(quickstart: QuickstartRun, task_id: str, key: str = "return_value") -> Any:
    return quickstart.airflow.api.xcom(DAG_ID, quickstart.run_id, task_id, key)


def test_the_run_ends_in_success(quickstart: QuickstartRun) -> None:
    logs = [quickstart.airflow.api.logs(DAG_ID, quickstart.run_id, task_id) for task_id in quickstart.observed.states]

    assert quickstart.state == "success", "\n\n".join(logs)


@pytest.mark.parametrize("sensor", SENSORS)
def test_a_sensor_waits_in_the_triggerer(quickstart: QuickstartRun, sensor: str) -> None:
    assert "deferred" in quickstart.observed.states[sensor]
    assert list(quickstart.airflow.task_logs.glob(f"**/task_id={sensor}/attempt=1.log.trigger.*.log"))


@pytest.mark.parametrize("sensor", SENSORS)
def test_an_operator_returns_the_id_that_its_sensor_waits_for(quickstart: QuickstartRun, sensor: str) -> None:
    prediction_id = xcom(quickstart, OPERATOR_OF[sensor])

    assert re.fullmatch(r"[\w-]{8,}", prediction_id)
    assert xcom(quickstart, OPERATOR_OF[sensor], "prediction_id") == prediction_id
    assert xcom(quickstart, sensor, "prediction_id") == prediction_id
    assert xcom(quickstart, sensor, "flux_result")["id"] == prediction_id


@pytest.mark.parametrize("sensor", SENSORS)
def test_a_sensor_returns_the_list_of_output_urls(quickstart: QuickstartRun, sensor: str) -> None:
    urls = xcom(quickstart, sensor)

    assert len(urls) == 1
    assert urls[0].startswith("http")
    assert xcom(quickstart, sensor, "output_url") == urls[0]
    result = xcom(quickstart, sensor, "flux_result")
    assert result["status"] == "succeeded"
    assert result["outputs"] == urls


@pytest.mark.parametrize("sensor", SENSORS)
def test_the_link_to_the_prediction_is_there_while_waiting_and_after(quickstart: QuickstartRun, sensor: str) -> None:
    afterwards = quickstart.airflow.api.extra_links(DAG_ID, quickstart.run_id, sensor)

    assert quickstart.observed.links_while_deferred[sensor].get("Prediction")
    assert afterwards.get("Prediction") == quickstart.observed.links_while_deferred[sensor]["Prediction"]


@pytest.mark.parametrize(("sensor", "kind"), [("lantern_ready", "JPEG"), ("boat_ready", "WEBP")])
def test_the_url_leads_to_a_picture_of_the_format_asked_for(quickstart: QuickstartRun, sensor: str, kind: str) -> None:
    with requests.Session() as session:
        session.trust_env = False
        response = session.get(xcom(quickstart, sensor)[0], timeout=30)
    response.raise_for_status()

    with Image.open(io.BytesIO(response.content)) as picture:
        picture.load()
        assert (picture.format, picture.size) == (kind, (1024, 1024))


def test_each_picture_was_asked_for_once(quickstart: QuickstartRun) -> None:
    assert quickstart.counters["posts"] == 2
    assert quickstart.counters["accepted"] == 2
    assert quickstart.counters["cancels"] == 0


def test_the_example_with_one_task_ends_in_success(quickstart: QuickstartRun) -> None:
    api = quickstart.airflow.api

    run_id = api.trigger_dag("flux_wait_in_one_task")

    assert api.wait_for_run("flux_wait_in_one_task", run_id)["state"] == "success"


def test_the_mapped_example_puts_rows_and_pictures_together(quickstart: QuickstartRun) -> None:
    api = quickstart.airflow.api

    run_id = api.trigger_dag("flux_mapped_prompts")

    assert api.wait_for_run("flux_mapped_prompts", run_id)["state"] == "success"
    catalogue = api.xcom("flux_mapped_prompts", run_id, "catalogue")
    assert [row["sku"] for row in catalogue] == ["TEA-01", "CUP-07", "TRAY-3"]
    assert len({row["picture"] for row in catalogue}) == 3


def test_no_example_has_import_errors(quickstart: QuickstartRun) -> None:
    assert quickstart.airflow.api.import_errors() == {}


def test_the_key_is_sent_to_no_other_origin(quickstart: QuickstartRun) -> None:
    assert quickstart.emulator.state()["counters"]["foreign_requests_with_authorization"] == 0


@pytest.mark.parametrize("sensor", SENSORS)
def test_a_sensor_that_succeeds_ends_in_the_triggerer(quickstart: QuickstartRun, sensor: str) -> None:
    log = quickstart.airflow.api.logs(DAG_ID, quickstart.run_id, sensor)

    assert "the task ends here" in log
    prediction_id = xcom(quickstart, sensor, "prediction_id")
    assert log.count(f"Prediction {prediction_id}: waiting for it in the triggerer") == 1


@pytest.mark.parametrize("sensor", SENSORS)
def test_the_url_of_a_picture_is_in_no_log_of_airflow(quickstart: QuickstartRun, sensor: str) -> None:
    (url,) = xcom(quickstart, sensor)
    own_logs = [*quickstart.airflow.task_logs.glob(f"**/task_id={sensor}/*"), *quickstart.airflow.logs.glob("*")]

    assert any(xcom(quickstart, sensor, "prediction_id") in log.read_text() for log in own_logs)
    assert [log.name for log in own_logs if url in log.read_text()] == []


def test_the_key_is_in_no_log_and_not_in_the_database(quickstart: QuickstartRun) -> None:
    prediction_id = xcom(quickstart, "make_lantern").encode()
    files = list(_everything_written(quickstart))

    assert [str(path) for path in files if API_KEY.encode() in path.read_bytes()] == []
    # The search does find what was written:
    holding_the_id = {path.name for path in files if prediction_id in path.read_bytes()}
    assert holding_the_id & {"airflow.db", "airflow.db-wal"}
    assert {"attempt=1.log", "emulator.log"} <= holding_the_id


def _everything_written(quickstart: QuickstartRun) -> Iterator[Path]:
    yield quickstart.emulator.log
    for path in quickstart.airflow.home.rglob("*"):
        if path.is_file():
            yield path
