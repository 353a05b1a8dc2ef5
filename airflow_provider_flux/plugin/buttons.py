"""The buttons of a task, worked out by the API server when somebody looks at it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_flux.links import (
    BATCH_OPERATORS,
    PREDICTION_OPERATORS,
    SENSORS,
    FluxPicturesLink,
    FluxPredictionLink,
    task_tab,
)

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey
    from sqlalchemy.orm import Session


def _named(*names: tuple[str, str]) -> list[Any]:
    """Return stand-ins for classes: Airflow compares names, and the classes need not be imported for that."""
    return [type(name, (), {"__module__": module}) for module, name in names]


class PicturesButton(FluxPicturesLink):
    """Leads to the tab of the task instance that shows its pictures."""

    operators = _named(*PREDICTION_OPERATORS, *SENSORS, *BATCH_OPERATORS)


class PredictionButton(FluxPredictionLink):
    """Leads to the page of the prediction where the gateway has one, else to the tab that shows it."""

    operators = _named(*PREDICTION_OPERATORS, *SENSORS)

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the page that the task has told of last."""
        from airflow.utils.session import create_session

        with create_session() as session:
            pages = (_web_page(told) for told in self._told(session, ti_key))
            return next(filter(None, pages), None) or task_tab(ti_key)

    def _told(self, session: Session, ti_key: TaskInstanceKey) -> Iterator[Any]:
        from airflow_provider_flux.tasks.results import RESULT_KEY

        yield _xcom(session, ti_key, FluxPredictionLink().xcom_key)
        result = _xcom(session, ti_key, RESULT_KEY) or _shown(session, ti_key)
        yield result.get("page") if isinstance(result, Mapping) else None


def _web_page(address: object) -> str | None:
    """Return an address that a button may lead to: anyone who writes a DAG can push any XCom."""
    return address if isinstance(address, str) and address.lower().startswith(("https://", "http://")) else None


def _xcom(session: Session, ti_key: TaskInstanceKey, key: str) -> Any:
    from airflow.models.xcom import XComModel

    query = XComModel.get_many(
        key=key, run_id=ti_key.run_id, dag_ids=ti_key.dag_id, task_ids=ti_key.task_id, map_indexes=ti_key.map_index
    )
    return _value(session.scalars(query.with_only_columns(XComModel.value)).first())


def _shown(session: Session, ti_key: TaskInstanceKey) -> Any:
    try:
        from airflow.models.task_state_store import TaskStateStoreModel
    except ImportError:  # Airflow 3.1 and 3.2
        return None
    from sqlalchemy import select

    from airflow_provider_flux.tasks.state_store import RECORD_KEY, SHOWN

    record = _value(
        session.scalar(
            select(TaskStateStoreModel.value).filter_by(
                dag_id=ti_key.dag_id,
                run_id=ti_key.run_id,
                task_id=ti_key.task_id,
                map_index=ti_key.map_index,
                key=RECORD_KEY,
            )
        )
    )
    return record.get(SHOWN) if isinstance(record, Mapping) else None


def _value(stored: Any) -> Any:
    """Read a value; databases hand JSON on as text or as what it means."""
    try:
        return json.loads(stored) if isinstance(stored, str) else stored
    except ValueError:
        return stored
