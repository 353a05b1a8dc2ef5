"""One DAG, asked of every gateway in every dialect: the same XComs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.emulator.served_models import MODELS
from airflow_provider_flux.operators.flux import FluxPredictionOperator
from airflow_provider_flux.sensors.flux import FluxPredictionSensor
from tests.conftest import Connect
from tests.on_airflow.runs import run

pytestmark = pytest.mark.usefixtures("airflow_db")

PRO = "black-forest-labs/flux-1.1-pro"
DEFERS: dict[str, Any] = {"deferrable": True, "wait_before_defer": 0, "poll_interval": 0.2}


@dataclass(frozen=True)
class Dialect:
    """A way to ask, and what it costs by list or at most."""

    gateway: str
    model: str
    cost_usd: float
    is_at_most: bool
    version: str | None = None


DIALECTS = {
    "DeerAPI": Dialect("deerapi", PRO, 0.04, True),
    "CometAPI": Dialect("cometapi", PRO, 0.04, True),
    "Replicate": Dialect("replicate", PRO, 0.04, False),
    "BFL's style at DeerAPI": Dialect("deerapi", "flux-pro-1.1", 0.04, True),
    "BFL itself": Dialect("bfl", "flux-2-pro", 0.03, False),
    "the generic create at CometAPI": Dialect("cometapi", PRO, 0.04, True, version=MODELS[PRO].version_id),
    "the generic create at Replicate": Dialect("replicate", PRO, 0.04, False, version=MODELS[PRO].version_id),
}


def pictures_dag(dialect: Dialect) -> DAG:
    asked: dict[str, Any] = {"model": dialect.model, "version": dialect.version, "prompt": "A paper boat"}
    with DAG("dialects", render_template_as_native_obj=True) as dag:
        waits = FluxPredictionOperator(task_id="waits", wait_for_completion=True, input={"seed": 7}, **asked, **DEFERS)
        made = FluxPredictionOperator(task_id="made", **asked)
        FluxPredictionSensor(task_id="seen", prediction_id=made.output, deferrable=True, poll_interval=0.2)

        @task
        def count(urls: list[str]) -> int:
            return len(urls)

        count(waits.output)
    return dag


@pytest.mark.parametrize("name", DIALECTS)
def test_one_dag_has_the_same_xcoms_in_every_dialect(name: str, emulator: Emulator, connect: Connect) -> None:
    """output: string, list, `data:` URI, null, shorter list than asked"""
    dialect = DIALECTS[name]
    connect(emulator.url, gateway=dialect.gateway, read_timeout=2)

    finished = run(pictures_dag(dialect))

    assert finished.state == "success"
    urls, result = finished.xcom("waits"), finished.xcom("waits", "flux_result")
    assert finished.xcom("count") == len(urls) == 1
    assert finished.xcom("waits", "output_url") == urls[0]
    assert finished.xcom("waits", "prediction_id") == result["id"]
    full = f"{dialect.model}:{dialect.version}" if dialect.version else dialect.model
    assert {key: result[key] for key in ("model", "gateway", "status", "prompt", "seed", "outputs", "passed_over")} == {
        "model": full,
        "gateway": dialect.gateway,
        "status": "succeeded",
        "prompt": "A paper boat",
        "seed": 7,
        "outputs": urls,
        "passed_over": [],
    }
    assert (result["cost_usd"], result["cost_is_at_most"]) == (dialect.cost_usd, dialect.is_at_most)
    assert result["metrics"]["predict_time"] > 0
    assert result["completed_at"]
    assert result["expires_at"]
    if dialect.gateway == "bfl":
        assert result["metrics"].items() >= {"cost": 3.0, "input_mp": 0.0, "output_mp": 1.0}.items()
    seen = finished.xcom("seen", "flux_result")
    assert finished.xcom("seen", "prediction_id") == finished.xcom("made") == seen["id"]
    assert seen["status"] == "succeeded"
    assert finished.xcom("seen") == seen["outputs"]
    assert set(seen) == set(result)
    assert (emulator.posts, emulator.accepted, emulator.cancels) == (2, 2, 0)
    assert emulator.foreign_requests_with_authorization == 0
    assert emulator.counters.unauthorized == 0


@pytest.mark.parametrize("waiting", [{}, DEFERS], ids=["plain", "deferred"])
def test_a_prediction_that_fails_in_the_triggerer_is_made_by_the_next_way(
    waiting: dict[str, Any], emulator: Emulator, connect: Connect
) -> None:
    """`failed`"""
    connect(emulator.url, gateway="deerapi", read_timeout=2)
    connect(emulator.url, conn_id="flux_bfl", gateway="bfl", read_timeout=2)
    emulator.add_outcome("PA", model="flux-2-max", times=None)
    emulator.add_outcome("E6716", model="flux-1.1-pro", times=None)
    with DAG("fallbacks") as dag:
        FluxPredictionOperator(
            task_id="make",
            model="black-forest-labs/flux-2-max",
            prompt="A paper boat",
            input={"aspect_ratio": "1:1"},
            fallbacks=[{"model": PRO}, {"flux_conn_id": "flux_bfl", "model": "flux-2-pro", "input": {"width": 1024}}],
            wait_for_completion=True,
            **waiting,
        )

    finished = run(dag)

    assert finished.state == "success"
    result = finished.xcom("make", "flux_result")
    assert (result["model"], result["gateway"], result["status"]) == ("flux-2-pro", "bfl", "succeeded")
    assert result["prompt"] == "A paper boat"
    assert [(way["model"], way["gateway"], way["reason"]) for way in result["passed_over"]] == [
        ("black-forest-labs/flux-2-max", "deerapi", "failed"),
        (PRO, "deerapi", "failed"),
    ]
    assert "PA" in result["passed_over"][0]["error"]
    assert finished.xcom("make", "prediction_id") == result["id"]
    assert (emulator.posts, emulator.accepted) == (3, 3)


def test_a_template_may_choose_the_fallback(emulator: Emulator, connect: Connect) -> None:
    connect(emulator.url, gateway="deerapi", read_timeout=2)
    emulator.add_fault("503_model_not_found", on="create", model="flux-2-pro")
    with DAG("templates", params={"other": PRO, "seed": 5}, render_template_as_native_obj=True) as dag:

        @task.flux(
            model="black-forest-labs/flux-2-pro",
            fallbacks=[{"model": "{{ params.other }}", "input": {"seed": "{{ params.seed }}"}}],
            wait_for_completion=True,
            poll_interval=0.1,
        )
        def make() -> dict[str, Any]:
            return {"prompt": "1984", "seed": 1}

        make()

    finished = run(dag)

    assert finished.state == "success"
    (made,) = emulator.predictions
    assert made.input == {"prompt": "1984", "seed": 5}
    assert finished.xcom("make", "flux_result")["model"] == PRO
