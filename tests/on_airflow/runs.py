"""Runs a DAG on real Airflow, in this process: scheduling, deferral, the trigger, XCom and all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from airflow.sdk import DAG


def run(dag: DAG, **conf: Any) -> FinishedRun:
    """Run a DAG to its end with ``dag.test()``."""
    _store(dag)
    return FinishedRun(dag.test(run_conf=conf or None))


def mark_as_success(dag: DAG) -> FinishedRun:
    """Let all tasks of a DAG have succeeded, without running them."""
    _store(dag)
    return FinishedRun(dag.test(mark_success_pattern=".*"))


class FinishedRun:
    """What is left of a run in Airflow's database."""

    def __init__(self, dag_run: Any) -> None:
        self._dag_run = dag_run

    @property
    def state(self) -> str:
        return str(getattr(self._dag_run.state, "value", self._dag_run.state))

    @property
    def run_id(self) -> str:
        return str(self._dag_run.run_id)

    def states(self, task_id: str) -> list[str]:
        """Return the states of a task's instances, by map index."""
        instances = [ti for ti in self._dag_run.get_task_instances() if ti.task_id == task_id]
        return [str(getattr(ti.state, "value", ti.state)) for ti in sorted(instances, key=lambda ti: ti.map_index)]

    def tries(self, task_id: str) -> int:
        (instance,) = [ti for ti in self._dag_run.get_task_instances() if ti.task_id == task_id]
        return int(instance.try_number)

    def xcom(self, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            row = session.scalar(
                select(XComModel).where(
                    XComModel.dag_id == self._dag_run.dag_id,
                    XComModel.run_id == self._dag_run.run_id,
                    XComModel.task_id == task_id,
                    XComModel.key == key,
                    XComModel.map_index == map_index,
                )
            )
            return None if row is None else XComModel.deserialize_value(row)

    def link(self, task_id: str, name: str = "Prediction") -> str | None:
        """Return where a button of a task leads, as the API server finds it out."""
        from airflow.models.serialized_dag import SerializedDagModel

        (instance,) = [ti for ti in self._dag_run.get_task_instances() if ti.task_id == task_id]
        stored: Any = SerializedDagModel.get(self._dag_run.dag_id)
        return stored.dag.get_task(task_id).get_extra_links(instance, name)  # type: ignore[no-any-return]

    def asset_events(self) -> list[Any]:
        """Return the asset events of this run, each with its asset."""
        from airflow.models.asset import AssetEvent
        from airflow.utils.session import create_session
        from sqlalchemy import select
        from sqlalchemy.orm import joinedload

        with create_session() as session:
            query = select(AssetEvent).options(joinedload(AssetEvent.asset))
            return list(session.scalars(query.where(AssetEvent.source_run_id == self._dag_run.run_id)))


def _store(dag: DAG) -> None:
    """Put the DAG into the database, which ``dag.test()`` needs from Airflow 3.1 on."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    options: dict[str, Any] = {}
    try:
        from airflow.dag_processing.dagbag import BundleDagBag as Bag
        from airflow.dag_processing.dagbag import sync_bag_to_db

        options = {"bundle_path": Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"]), "bundle_name": "dags-folder"}
    except ImportError:  # Airflow 3.1
        from airflow.models.dagbag import DagBag as Bag
        from airflow.models.dagbag import sync_bag_to_db

        options = {"include_examples": False}
    DagBundlesManager().sync_bundles_to_db()
    bag = Bag(dag_folder=os.devnull, **options)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
