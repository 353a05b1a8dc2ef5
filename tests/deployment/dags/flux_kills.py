"""DAGs of one prediction each, which ends only when the test says so. The prompt tells the test whose it is."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.configuration import get_airflow_home
from airflow.sdk import DAG

from airflow_provider_flux.operators.flux import FluxPredictionOperator

FIVE_MINUTES = 300.0


def tell(context: Any) -> None:
    Path(get_airflow_home(), f"told-of-{context['run_id']}").touch()


def picture_dag(
    dag_id: str, *, wait_before_defer: float, dagrun_timeout: timedelta | None = None, **options: Any
) -> DAG:
    with DAG(dag_id, schedule=None, catchup=False, dagrun_timeout=dagrun_timeout) as dag:
        FluxPredictionOperator(
            task_id="picture",
            model="black-forest-labs/flux-1.1-pro",
            prompt="{{ run_id }}",
            wait_for_completion=True,
            deferrable=True,
            wait_before_defer=wait_before_defer,
            poll_interval=1.0,
            retries=2,
            retry_delay=timedelta(seconds=1),
            **options,
        )
    return dag


waits_in_the_triggerer = picture_dag("waits_in_the_triggerer", wait_before_defer=1.0)
waits_on_the_worker = picture_dag("waits_on_the_worker", wait_before_defer=FIVE_MINUTES)
has_little_time = picture_dag("has_little_time", wait_before_defer=1.0, dagrun_timeout=timedelta(seconds=90))
tells_of_success = picture_dag("tells_of_success", wait_before_defer=1.0, on_success_callback=tell)
