"""Fifty predictions, no two alike."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_flux.operators.flux import FluxPredictionOperator

with DAG("fifty_pictures", schedule=None, catchup=False):
    FluxPredictionOperator.partial(
        task_id="picture",
        model="black-forest-labs/flux-1.1-pro",
        wait_for_completion=True,
        deferrable=True,
        retries=2,
        retry_delay=timedelta(seconds=2),
    ).expand(prompt=[f"Lantern number {number} of fifty, studio photo" for number in range(1, 51)])
