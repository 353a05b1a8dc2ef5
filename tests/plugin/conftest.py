"""The API server's own application, in this process: its real login, permissions, routes and database."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from fastapi.testclient import TestClient
from httpx import Response
from PIL import Image

from airflow_provider_flux.plugin import picture_files
from tests.conftest import HOME
from tests.on_airflow.runs import mark_as_success

DAG_ID = "ui_shown"
HIDDEN_DAG_ID = "ui_hidden"
"""Which the user "stranger" may not see (tests/plugin/auth.py)."""

INSTANCES = 120

os.environ.update(
    AIRFLOW__CORE__AUTH_MANAGER="tests.plugin.auth.HidingAuthManager",
    AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE=str(HOME / "passwords.json"),
    AIRFLOW__API_AUTH__JWT_SECRET="a-secret-of-the-tests-that-is-long-enough-for-hmac-with-sha-512-000000",
    AIRFLOW__API__SECRET_KEY="another-secret-of-the-tests",
)


class Row(EmptyOperator):
    """Does nothing; the tests push its XComs."""

    def __init__(self, *, number: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.number = number


class Served:
    """The application as different users see it, and task instances that have recorded something.

    :param runs: DAG id to run id.
    """

    def __init__(self, client: TestClient, runs: dict[str, str]) -> None:
        self.client = client
        self.runs = runs
        self._instances = count()

    def get(self, path: str, *, user: str | None = "viewer", **parameters: Any) -> Response:
        headers = {"Authorization": f"Bearer {self._token(user)}"} if user else {}
        return self.client.get(path, params=parameters, headers=headers)

    def scope(self, dag_id: str = DAG_ID) -> dict[str, str]:
        return {"dag_id": dag_id, "run_id": self.runs[dag_id]}

    def task(self, map_index: int, dag_id: str = DAG_ID) -> dict[str, Any]:
        return {**self.scope(dag_id), "task_id": "make_picture", "map_index": map_index}

    def record(self, *, dag_id: str = DAG_ID, **xcoms: Any) -> dict[str, Any]:
        """Push XComs for a task instance that has none yet, as a task author can, and return which one it is."""
        task = self.task(next(self._instances), dag_id)
        path = f"/api/v2/dags/{dag_id}/dagRuns/{quote(task['run_id'])}/taskInstances/make_picture/xcomEntries"
        for key, value in xcoms.items():
            body = {"key": key, "value": value, "map_index": task["map_index"]}
            answer = self.client.post(path, json=body, headers={"Authorization": f"Bearer {self._token('admin')}"})
            assert answer.status_code == 201, answer.text
        return task

    def record_file(self, path: str, sha256: str, **more: Any) -> dict[str, Any]:
        """Record a stored file, and return the query for it."""
        stored = {"path": path, "sha256": sha256, **more}
        return {**self.record(flux_result=prediction(stored=[stored])), "sha256": sha256}

    @staticmethod
    def _token(user: str) -> str:
        from airflow.api_fastapi.app import get_auth_manager
        from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

        role = {"admin": "admin", "nobody": None}.get(user, "viewer")
        return get_auth_manager().generate_jwt(SimpleAuthManagerUser(username=user, role=role))


def prediction(**changes: Any) -> dict[str, Any]:
    """Return a ``flux_result`` of a success."""
    return {
        "id": "pq7x1",
        "model": "black-forest-labs/flux-schnell",
        "status": "succeeded",
        "outputs": ["https://replicate.delivery/a/out-0.webp"],
        "prompt": "a teapot",
        "metrics": {"predict_time": 1.25},
        "created_at": "2026-11-22T10:00:00+00:00",
        "completed_at": "2026-11-22T10:00:02+00:00",
        **changes,
    }


def picture_bytes(kind: str = "PNG", size: tuple[int, int] = (640, 480)) -> bytes:
    """Return a picture file."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, kind)
    return file.getvalue()


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="session")
def served(airflow_db: None) -> Iterator[Served]:
    from airflow.api_fastapi.app import cached_app, purge_cached_app

    runs = {}
    for dag_id, number in ((DAG_ID, INSTANCES), (HIDDEN_DAG_ID, 3)):
        with DAG(dag_id, schedule=None) as dag:
            Row.partial(task_id="make_picture").expand(number=list(range(number)))
        finished = mark_as_success(dag)
        assert finished.state == "success"
        runs[dag_id] = finished.run_id
    purge_cached_app()
    yield Served(TestClient(cached_app()), runs)
    purge_cached_app()


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, str]:
    """A picture that is stored, and its sha256."""
    content = picture_bytes()
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    return path, sha256_of(content)


@pytest.fixture(autouse=True)
def no_thumbnail_is_kept() -> None:
    picture_files.thumbnail.cache_clear()
    picture_files.manifest.cache_clear()
