"""Eighty rows of a table in four parts, each a task."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG, task

from airflow_provider_flux.batch.rows import split_rows
from airflow_provider_flux.operators.batch import FluxBatchOperator

FOLDER = os.environ.get("SPLIT_TABLE_FOLDER", "/nowhere")
PARTS = 4

with DAG("split_table", schedule=None, catchup=False):
    made = FluxBatchOperator.partial(
        task_id="make_pictures",
        key="sku",
        model="black-forest-labs/flux-1.1-pro",
        prompt="{{ row.name }}, studio photo",
        output_path=f"{FOLDER}/pictures",
        max_in_flight=4,
        retries=2,
        retry_delay=timedelta(seconds=2),
    ).expand(rows=split_rows(f"{FOLDER}/table.jsonl", PARTS))

    @task
    def merge() -> dict:
        from airflow_provider_flux.batch.manifest import merge_manifests

        return merge_manifests(f"{FOLDER}/pictures/manifest.jsonl", PARTS)

    made >> merge()
