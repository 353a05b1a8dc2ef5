"""One picture of BFL itself, asked for and waited for in two tasks."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_flux.operators.flux import FluxPredictionOperator
from airflow_provider_flux.sensors.flux import FluxPredictionSensor

with DAG("bfl", schedule=None, catchup=False) as dag:
    made = FluxPredictionOperator(
        task_id="made", flux_conn_id="flux_bfl", model="flux-2-pro", prompt="A paper boat", webhook="auto"
    )
    FluxPredictionSensor(
        task_id="seen", flux_conn_id="flux_bfl", prediction_id=made.output, deferrable=True, poll_interval=1
    )
