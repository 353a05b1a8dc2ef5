"""Airflow's simple auth manager, which knows no rights to single DAGs, with one DAG hidden from one user."""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagDetails
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

HIDDEN_DAG_ID = "ui_hidden"
STRANGER = "stranger"


class HidingAuthManager(SimpleAuthManager):
    """Hides :data:`HIDDEN_DAG_ID` from :data:`STRANGER`."""

    def is_authorized_dag(self, *, user: Any, details: DagDetails | None = None, **request: Any) -> bool:
        hidden = user.username == STRANGER and details is not None and details.id == HIDDEN_DAG_ID
        return not hidden and super().is_authorized_dag(user=user, details=details, **request)
