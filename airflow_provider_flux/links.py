"""The buttons that lead from a task to its prediction and to its pictures.

Airflow would have a task push each of its links whenever it leaves a worker: two calls to Airflow's API at each leg. So
the plugin works them out when somebody looks at the task (:mod:`airflow_provider_flux.plugin.buttons`), and also has
what a running task shows. It knows tasks by the names of their classes; those of derived classes push as ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow.configuration import conf
from airflow.sdk import BaseOperator, BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey

TASK_TAB = "flux-task"
"""Where Airflow's router finds the tab "FLUX" of a task instance."""

PREDICTION_OPERATORS = (
    ("airflow_provider_flux.operators.flux", "FluxPredictionOperator"),
    ("airflow_provider_flux.decorators", "_FluxDecoratedOperator"),
)
SENSORS = (("airflow_provider_flux.sensors.flux", "FluxPredictionSensor"),)
BATCH_OPERATORS = (
    ("airflow_provider_flux.operators.batch", "FluxBatchOperator"),
    ("airflow_provider_flux.decorators", "_FluxBatchDecoratedOperator"),
)
"""Module and name of the classes that the plugin knows."""


def leave_to_plugin(task: BaseOperator) -> None:
    """Take the links from a task that the plugin knows, so that it pushes none."""
    if is_known_to_plugin(type(task)):
        task.operator_extra_links = ()


def is_known_to_plugin(operator_class: type[Any]) -> bool:
    """Tell whether the plugin shows the tasks of a class without their help."""
    name = (operator_class.__module__, operator_class.__name__)
    return name in (*PREDICTION_OPERATORS, *SENSORS, *BATCH_OPERATORS)


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
