"""Predictions by HttpOperator and HttpSensor, in a file of their own: a task's process imports the whole file."""

from __future__ import annotations

import json
from typing import Any

from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.sensors.http import HttpSensor
from airflow.sdk import dag, task_group
from rows import COUNTS, MODEL, inputs

POLL_INTERVAL = 5.0


def prediction_path(response: Any) -> str:
    return f"ready/{response.json()['id']}"


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


for rows in COUNTS:
    http_sensor(rows)
