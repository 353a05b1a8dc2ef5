"""The button that leads from a task to its prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperator, BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey


class FluxPredictionLink(BaseOperatorLink):
    """Link to the page of the prediction, where the gateway has one.

    Airflow asks for it on the worker each time the task leaves it, so it is there while the task is deferred.
    """

    @property
    def name(self) -> str:
        """The text on the button."""
        return "Prediction"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the page that the task last saw; empty if there is none."""
        page: str | None = getattr(operator, "prediction_page", "")
        if page is not None:
            return page
        # A task that was resumed and could not reach the gateway knows no page, but an earlier leg of it did.
        from airflow.sdk.execution_time.xcom import XCom

        return XCom.get_value(ti_key=ti_key, key=self.xcom_key) or ""
