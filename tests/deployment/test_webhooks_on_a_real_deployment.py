"""A DAG that starts when a picture is done, and BFL itself: a real Airflow, with the emulator as both gateways."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from airflow_provider_flux.protocol.webhook_addresses import asset_uri, shared_secret, url_token
from deployment import AirflowDeployment
from local_emulator import LocalEmulator
from processes import LOOPBACK, free_ports

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
KEY = "sk-webhooks-4711"
FLOOD = 1000
CONSUMER = "flux_event_driven"
PATIENCE = 180.0  # seconds


@dataclass(frozen=True)
class Site:
    """Airflow and the gateways that call it."""

    airflow: AirflowDeployment
    emulator: LocalEmulator

    def events(self, conn_id: str) -> list[dict[str, Any]]:
        """Return what the events of a connection's predictions tell."""
        found = self.airflow.api.request("GET", "/assets", params={"uri_pattern": asset_uri(conn_id)})["assets"]
        ids = [asset["id"] for asset in found if asset["uri"].rstrip("/") == asset_uri(conn_id)]
        if not ids:
            return []
        told = self.airflow.api.request("GET", "/assets/events", params={"asset_id": ids[0], "limit": 100})
        return [event["extra"] for event in told["asset_events"]]

    def runs(self) -> list[dict[str, Any]]:
        runs: list[dict[str, Any]] = self.airflow.api.request("GET", f"/dags/{CONSUMER}/dagRuns")["dag_runs"]
        return runs


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("webhooks")
    dags = folder / "dags"
    shutil.copytree(Path(__file__).parent / "webhook_dags", dags)
    shutil.copy(ROOT / "example_dags" / "flux_event_driven.py", dags)
    (port,) = free_ports(1)
    with LocalEmulator(
        log=folder / "emulator.log", arguments=("--key", "", "--run-time", "6", "--log-requests")
    ) as emulator:
        login = {"airflow_user": "admin", "airflow_password": "admin"}
        address = {"webhook_base_url": f"http://{LOOPBACK}:{port}"}
        environment = {
            f"AIRFLOW_CONN_{conn_id.upper()}": json.dumps(
                {
                    "conn_type": "flux",
                    "host": emulator.url,
                    "password": KEY,
                    "extra": {"gateway": gateway, **address, **login},
                }
            )
            for conn_id, gateway in (("flux_default", "deerapi"), ("flux_bfl", "bfl"))
        }
        home = folder / "airflow"
        with AirflowDeployment(home=home, dags=dags, port=port, environment=environment, progress=print) as airflow:
            yield Site(airflow, emulator)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(1)


@pytest.fixture(scope="module")
def published(site: Site) -> list[str]:
    """Return the paths that the consumer has published of the two pictures that the example asks for."""
    site.airflow.api.wait_for_dag(CONSUMER)
    site.airflow.api.request("PATCH", f"/dags/{CONSUMER}", json={"is_paused": False})
    run_id = site.airflow.api.trigger_dag("flux_ask_for_pictures")
    assert site.airflow.api.wait_for_run("flux_ask_for_pictures", run_id)["state"] == "success"

    def paths() -> list[str]:
        done = [run["dag_run_id"] for run in site.runs() if run["state"] == "success"]
        return [path for run in done for path in site.airflow.api.xcom(CONSUMER, run, "publish")]

    wait_for(lambda: len(paths()) >= 2)
    return paths()


def test_a_dag_stores_and_publishes_the_pictures_of_another_one_as_soon_as_they_are_done(
    site: Site, published: list[str]
) -> None:
    assert len(published) == len(set(published)) == 2
    for path in published:
        with Image.open(path) as image:
            image.verify()
    counters = site.emulator.state()["counters"]
    assert (counters["posts"], counters["accepted"]) == (2, 2)


@pytest.mark.usefixtures("published")
def test_an_event_tells_what_a_result_tells(site: Site) -> None:
    told = site.events("flux_default")
    assert len(told) == len({event["id"] for event in told}) == 2
    for event in told:
        assert (event["status"], event["gateway"], event["flux_conn_id"]) == ("succeeded", "deerapi", "flux_default")
        assert event["outputs"]
        assert KEY not in json.dumps(event)


def test_a_flood_of_calls_makes_one_event_for_a_prediction(
    site: Site, published: list[str], record_property: Callable[[str, object], None]
) -> None:
    (known, _) = (event["id"] for event in site.events("flux_default"))
    runs = len(site.runs())
    url = f"{site.airflow.url}/flux/webhooks/flux_default"
    token = url_token(KEY, "flux_default")

    def call(number: int) -> tuple[int, float]:
        began = time.perf_counter()
        with requests.Session() as session:
            session.trust_env = False
            params = {"token": token if number % 2 else "a-stranger's"}
            answer = session.post(url, params=params, json={"id": known, "status": "succeeded", "output": []})
        return answer.status_code, time.perf_counter() - began

    gets = site.emulator.state()["counters"]["gets"]
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(call, range(FLOOD)))
    took = sorted(seconds for _, seconds in answers)
    record_property("seconds for an answer, median and 99th percentile", f"{took[FLOOD // 2]:.3f}, {took[990]:.3f}")

    assert [status for status, _ in answers] == [200 if number % 2 else 401 for number in range(FLOOD)]
    assert site.emulator.state()["counters"]["gets"] == gets
    assert len(site.events("flux_default")) == 2
    assert len(site.runs()) == runs


def test_bfl_itself_makes_a_picture_on_a_real_deployment(site: Site) -> None:
    run_id = site.airflow.api.trigger_dag("bfl")
    run = site.airflow.api.wait_for_run("bfl", run_id)
    logs = [site.airflow.api.logs("bfl", run_id, task_id) for task_id in ("made", "seen")]
    assert run["state"] == "success", "\n\n".join(logs)

    result = site.airflow.api.xcom("bfl", run_id, "seen", "flux_result")
    assert (result["gateway"], result["status"], len(result["outputs"])) == ("bfl", "succeeded", 1)
    assert result["outputs"] == site.airflow.api.xcom("bfl", run_id, "seen")
    assert result["metrics"].items() >= {"cost": 3.0, "output_mp": 1.0}.items()
    assert (result["cost_usd"], result["cost_is_at_most"]) == (0.03, False)


@pytest.mark.usefixtures("published")
def test_no_secret_is_in_any_log(site: Site) -> None:
    secrets = [
        KEY,
        *(make(KEY, conn_id) for make in (url_token, shared_secret) for conn_id in ("flux_default", "flux_bfl")),
    ]
    for path in site.airflow.log_files():
        text = path.read_text("utf-8", errors="replace")
        assert [secret for secret in secrets if secret in text] == [], path
