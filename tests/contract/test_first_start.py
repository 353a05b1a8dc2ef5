"""What sparing the look into the task state store relies on: only a task's first start finds the try number 1.

A task that is mistaken for one that begins for the first time would pay for its prediction again.
"""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_flux.operators.flux import FluxPredictionOperator
from tests.on_airflow.runs import mark_as_success

pytestmark = pytest.mark.usefixtures("airflow_db")


@pytest.fixture(scope="module")
def run_id() -> str:
    with DAG("first_start", schedule=None) as dag:
        FluxPredictionOperator(task_id="make", model="black-forest-labs/flux-schnell", prompt="tea")
    return mark_as_success(dag).run_id


@pytest.mark.parametrize(
    ("state", "tries_before", "tries_after"),
    [
        pytest.param(None, 0, 1, id="never begun"),
        pytest.param(None, 1, 2, id="cleared"),
        pytest.param("up_for_retry", 1, 2, id="failed, to be retried"),
        pytest.param("up_for_reschedule", 1, 1, id="rescheduled, which its reschedule count tells"),
    ],
)
def test_airflow_counts_a_try_whenever_it_schedules_a_task_anew(
    run_id: str, state: str | None, tries_before: int, tries_after: int
) -> None:
    from airflow.models.dagrun import DagRun
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        run: Any = session.scalar(select(DagRun).where(DagRun.run_id == run_id))
        run.dag = SerializedDagModel.get("first_start").dag  # type: ignore[union-attr]
        (task_instance,) = run.get_task_instances(session=session)
        task_instance.state, task_instance.try_number = state, tries_before
        task_instance.task = run.dag.get_task("make")
        session.flush()

        run.schedule_tis([task_instance], session=session)

        session.refresh(task_instance)
        assert (task_instance.state, task_instance.try_number) == ("scheduled", tries_after)


def test_the_record_of_a_run_that_is_deleted_goes_with_it(run_id: str) -> None:
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import delete, func, select

    task_state_store = pytest.importorskip(
        "airflow.models.task_state_store", reason="this Airflow has no task state store; Airflow 3.3 runs it"
    )
    model = task_state_store.TaskStateStoreModel
    of_run = model.run_id == run_id
    with create_session() as session:
        dag_run_id = session.scalar(select(DagRun.id).where(DagRun.run_id == run_id))
        names = {"dag_id": "first_start", "run_id": run_id, "task_id": "make", "key": "flux_prediction"}
        session.add(model(dag_run_id=dag_run_id, value="{}", **names))
        session.flush()
        assert session.scalar(select(func.count()).select_from(model).where(of_run)) == 1

        session.execute(delete(DagRun).where(DagRun.run_id == run_id))

        assert session.scalar(select(func.count()).select_from(model).where(of_run)) == 0
