"""Predictions by this provider, ended on a worker and in the triggerer; a task's process imports the whole file."""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag
from rows import COUNTS, MODEL, inputs

from airflow_provider_flux.operators.flux import FluxPredictionOperator


def provider(name: str, rows: int, **options: Any) -> None:
    @dag(dag_id=f"{name}_{rows}", schedule=None, max_active_tasks=32)
    def predictions() -> None:
        FluxPredictionOperator.partial(
            task_id="picture", model=MODEL, wait_for_completion=True, deferrable=True, **options
        ).expand(input=inputs(rows))

    predictions()


for rows in COUNTS:
    provider("provider_resumed", rows, end_from_trigger=False)
    provider("provider_ended_in_triggerer", rows, end_from_trigger=True)
