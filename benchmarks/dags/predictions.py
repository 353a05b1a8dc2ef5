"""The same predictions in three ways, each for as many rows as `BENCHMARK_ROWS` says and once for two, to warm up."""

from __future__ import annotations

import json
import os
from typing import Any

from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.sensors.http import HttpSensor
from airflow.sdk import dag, task_group

from airflow_provider_flux.operators.flux import FluxPredictionOperator

MODEL = "black-forest-labs/flux-1.1-pro"
POLL_INTERVAL = 5.0
WARM_UP = 2


def inputs(rows: int) -> list[dict[str, Any]]:
    return [{"prompt": f"A paper boat number {row} on calm water at sunrise.", "seed": row} for row in range(rows)]


def prediction_path(response: Any) -> str:
    return f"ready/{response.json()['id']}"


def provider(name: str, rows: int, **options: Any) -> None:
    @dag(dag_id=f"{name}_{rows}", schedule=None, max_active_tasks=32)
    def predictions() -> None:
        FluxPredictionOperator.partial(
            task_id="picture", model=MODEL, wait_for_completion=True, deferrable=True, **options
        ).expand(input=inputs(rows))

    predictions()


def http_sensor(rows: int) -> None:
    @task_group
    def picture(data: str) -> None:
        made = HttpOperator(
            task_id="make",
            endpoint=f"replicate/v1/models/{MODEL}/predictions",
            headers={"Content-Type": "application/json"},
            data=data,
            response_filter=prediction_path,
        )
        HttpSensor(
            task_id="wait",
            endpoint=made.output,  # type: ignore[arg-type]  # a template field takes the output of another task
            deferrable=True,
            poke_interval=POLL_INTERVAL,
        )

    @dag(dag_id=f"http_sensor_{rows}", schedule=None, max_active_tasks=32)
    def predictions() -> None:
        picture.expand(data=[json.dumps({"input": row}) for row in inputs(rows)])

    predictions()


for rows in (WARM_UP, int(os.environ["BENCHMARK_ROWS"])):
    provider("provider_resumed", rows, end_from_trigger=False)
    provider("provider_ended_in_triggerer", rows, end_from_trigger=True)
    http_sensor(rows)
