"""Who is served what under the auth manager of production deployments, FAB, with its rights to single DAGs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from uv import find_uv_bin

from airflow_api import AirflowApi
from deployment import AirflowDeployment
from tests.browser import made_up
from tests.browser.conftest import DAGS, ROOT, push

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

AIRFLOW = "3.3.2"
ENVIRONMENT = ROOT / ".venvs" / f"fab-{AIRFLOW}"
PYTHON = ENVIRONMENT / "bin" / "python"
AUTH_MANAGER = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"

USERS = """
from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

RIGHTS = ("Website", "DAG:ui_plain", "XComs", "Task Instances", "DAG Runs")

with get_application_builder() as builder:
    manager = builder.sm
    few = manager.add_role("Few")
    for resource in RIGHTS:
        manager.add_permission_to_role(few, manager.create_permission("can_read", resource))
    for name, role in (("admin", "Admin"), ("viewer", "Viewer"), ("few", "Few")):
        assert manager.add_user(name, name, name, f"{name}@example.com", manager.find_role(role), name)
"""


@pytest.fixture(scope="module")
def python() -> Path:
    """An environment with FAB, which Airflow itself does not need."""
    uv = find_uv_bin()
    if not PYTHON.exists():
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(ENVIRONMENT)], check=True)
    install = [uv, "pip", "install", "--quiet", "--python", str(PYTHON)]
    install += ["--constraints", str(ROOT / "constraints" / f"airflow-{AIRFLOW}.txt")]
    packages = [f"apache-airflow=={AIRFLOW}", "apache-airflow-providers-fab", "--editable", f"{ROOT}[emulator]"]
    done = subprocess.run([*install, *packages], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"apache-airflow-providers-fab cannot be installed: {done.stderr[-500:]}")
    return PYTHON


@pytest.fixture(scope="module")
def airflow(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowDeployment]:
    folder = tmp_path_factory.mktemp("fab")
    settings = {"AIRFLOW__CORE__AUTH_MANAGER": AUTH_MANAGER}
    with AirflowDeployment(home=folder, dags=DAGS, environment=settings, python=python, progress=print) as deployment:
        environment = {**os.environ, **deployment.environment}
        subprocess.run([str(python), "-c", USERS], env=environment, check=True, cwd=folder)
        yield deployment


@pytest.fixture(scope="module")
def query(airflow: AirflowDeployment, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A request for a picture that the run of a DAG has stored."""
    pictures = made_up.draw_pictures(tmp_path_factory.mktemp("pictures"))
    run_id = airflow.api.trigger_dag("ui_rows")
    airflow.api.wait_for_run("ui_rows", run_id)
    push(airflow.api, run_id, 0, made_up.result(0, pictures))
    task = {"dag_id": "ui_rows", "run_id": run_id, "task_id": "make_picture", "map_index": 0}
    return {**task, "sha256": pictures[0]["sha256"]}


def get(airflow: AirflowDeployment, user: str | None, path: str, **query: Any) -> requests.Response:
    headers = {}
    if user:
        api: AirflowApi = airflow.as_user(user)
        headers = {"Authorization": f"Bearer {api.token()}"}
        api.close()
    with requests.Session() as session:
        session.trust_env = False
        return session.get(f"{airflow.url}/flux/{path}", params=query, headers=headers, timeout=60)


@pytest.mark.parametrize("path", ["picture", "predictions", "batches", "state", "rows"])
def test_only_those_with_a_right_to_the_dag_are_served(
    airflow: AirflowDeployment, query: dict[str, Any], path: str
) -> None:
    found = 404 if path == "rows" else 200  # this task has no manifest
    assert get(airflow, None, path, **query).status_code == 401
    assert get(airflow, "few", path, **query).status_code == 403
    assert get(airflow, "viewer", path, **query).status_code == found


def test_a_user_with_a_right_to_one_dag_sees_that_one_only(airflow: AirflowDeployment, query: dict[str, Any]) -> None:
    assert get(airflow, "few", "predictions", dag_id="ui_plain").status_code == 200
    assert get(airflow, "few", "predictions", dag_id="~").json()["total"] == 0
    assert get(airflow, "viewer", "predictions", dag_id="~").json()["total"] == 1


def test_a_picture_comes_as_a_picture(airflow: AirflowDeployment, query: dict[str, Any]) -> None:
    answer = get(airflow, "viewer", "picture", **query, small=True)

    assert answer.headers["content-type"] == "image/webp"
    assert answer.content[8:12] == b"WEBP"
