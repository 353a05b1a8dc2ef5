"""Predictions of which the gateway tells what no database holds, and inputs that none could hold."""

from __future__ import annotations

import os

from airflow.sdk import DAG

from airflow_provider_flux.operators.batch import FluxBatchOperator
from airflow_provider_flux.operators.flux import FluxPredictionOperator

FOLDER = os.environ.get("ODD_VALUES_FOLDER", "/nowhere")
PRO = "black-forest-labs/flux-1.1-pro"
WAITS = {"model": PRO, "wait_for_completion": True, "poll_interval": 1}

with DAG("odd_values", schedule=None, catchup=False):
    FluxPredictionOperator(task_id="on_the_worker", prompt="cat", deferrable=False, **WAITS)
    FluxPredictionOperator(task_id="in_the_triggerer", prompt="cat", deferrable=True, wait_before_defer=0, **WAITS)
    FluxPredictionOperator(
        task_id="resumed", prompt="cat", deferrable=True, wait_before_defer=0, end_from_trigger=False, **WAITS
    )
    FluxBatchOperator(
        task_id="batch",
        rows=f"{FOLDER}/table.jsonl",
        key="sku",
        model=PRO,
        prompt=lambda row: row["name"],
        output_path=f"{FOLDER}/pictures",
        poll_interval=1,
    )
