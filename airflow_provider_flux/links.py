"""The buttons that lead from a task to its prediction and to its pictures.

Airflow asks for a link on the worker each time the task leaves it, whatever the end. So both are there while the task
is deferred and after a failure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from airflow.configuration import conf
from airflow.sdk import BaseOperator, BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey

TASK_TAB = "flux-task"
"""Where Airflow's router finds the tab "FLUX" of a task instance."""


class FluxPredictionLink(BaseOperatorLink):
    """Link to the page of the prediction where the gateway has one, else to the tab that shows it."""

    @property
    def name(self) -> str:
        """The text on the button."""
        return "Prediction"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the page that the task last saw."""
        page: str | None = getattr(operator, "prediction_page", "")
        if page is None:
            # A task that was resumed and could not reach the gateway knows no page, but an earlier leg of it did.
            from airflow.sdk.execution_time.xcom import XCom

            page = XCom.get_value(ti_key=ti_key, key=self.xcom_key)
        return page or task_tab(ti_key)


class FluxPicturesLink(BaseOperatorLink):
    """Link to the tab of the task instance that shows its pictures."""

    @property
    def name(self) -> str:
        """The text on the button."""
        return "Pictures"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address of the tab, on the host that the UI itself is on."""
        return task_tab(ti_key)


def task_tab(ti_key: TaskInstanceKey) -> str:
    """Return the path of a task instance's tab "FLUX", below the base path of ``[api] base_url``."""
    base_path = urlsplit(conf.get("api", "base_url", fallback="/")).path.rstrip("/")
    dag_id, run_id, task_id = (quote(part, safe="") for part in (ti_key.dag_id, ti_key.run_id, ti_key.task_id))
    task = f"{base_path}/dags/{dag_id}/runs/{run_id}/tasks/{task_id}"
    mapped = f"/mapped/{ti_key.map_index}" if ti_key.map_index >= 0 else ""
    return f"{task}{mapped}/plugin/{TASK_TAB}"
