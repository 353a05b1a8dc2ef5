"""The same rows as one batch and as mapped tasks, for as many rows as `BENCHMARK_ROWS` says and once for two."""

from __future__ import annotations

import os

from airflow.sdk import dag

from airflow_provider_flux.operators.batch import FluxBatchOperator
from airflow_provider_flux.operators.flux import FluxPredictionOperator

MODEL = "black-forest-labs/flux-1.1-pro"
MAX_IN_FLIGHT = 100
WARM_UP = 2
PICTURES = os.environ["BENCHMARK_PICTURES"]


def inputs(rows: int) -> list[dict[str, str]]:
    return [{"prompt": f"A paper boat number {row} on calm water at sunrise."} for row in range(rows)]


def mapped(rows: int) -> None:
    @dag(dag_id=f"mapped_{rows}", schedule=None, max_active_tasks=32)
    def pictures() -> None:
        FluxPredictionOperator.partial(
            task_id="picture",
            model=MODEL,
            wait_for_completion=True,
            deferrable=True,
            output_path=f"{PICTURES}/mapped",
        ).expand(input=inputs(rows))

    pictures()


def batch(rows: int) -> None:
    @dag(dag_id=f"batch_{rows}", schedule=None)
    def pictures() -> None:
        FluxBatchOperator(
            task_id="pictures",
            rows=inputs(rows),
            key="prompt",
            model=MODEL,
            prompt="{{ row.prompt }}",
            output_path=f"{PICTURES}/batch-{rows}",
            max_in_flight=MAX_IN_FLIGHT,
        )

    pictures()


for rows in (WARM_UP, int(os.environ["BENCHMARK_ROWS"])):
    mapped(rows)
    batch(rows)
