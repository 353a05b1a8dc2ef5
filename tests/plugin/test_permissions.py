"""Nothing is served without a login and the right to read that DAG's XComs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.plugin.conftest import DAG_ID, HIDDEN_DAG_ID, Served, prediction

PATHS = ("state", "predictions", "batches", "rows", "picture")


@pytest.fixture
def query(served: Served, stored: tuple[Path, str]) -> dict[str, Any]:
    """A request for what a task instance has recorded."""
    path, sha256 = stored
    return served.record_file(str(path), sha256)


@pytest.mark.parametrize("path", PATHS)
def test_without_a_login_nothing_is_served(served: Served, query: dict[str, Any], path: str) -> None:
    assert served.get(f"/flux/{path}", user=None, **query).status_code == 401


@pytest.mark.parametrize("path", PATHS)
def test_a_user_without_a_role_is_served_nothing(served: Served, query: dict[str, Any], path: str) -> None:
    assert served.get(f"/flux/{path}", user="nobody", **query).status_code == 403


@pytest.mark.parametrize("path", PATHS)
def test_a_request_that_names_no_dag_is_refused(served: Served, query: dict[str, Any], path: str) -> None:
    del query["dag_id"]

    assert served.get(f"/flux/{path}", **query).status_code == 422


@pytest.mark.parametrize("path", ["state", "predictions", "batches", "picture"])
def test_a_viewer_is_served(served: Served, query: dict[str, Any], path: str) -> None:
    assert served.get(f"/flux/{path}", **query).status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_a_dag_that_a_user_may_not_see_is_not_served(served: Served, path: str) -> None:
    query = {**served.task(0, HIDDEN_DAG_ID), "sha256": 64 * "0"}

    assert served.get(f"/flux/{path}", user="stranger", **query).status_code == 403
    assert served.get(f"/flux/{path}", user="viewer", **query).status_code in (200, 404)


def test_over_all_dags_a_user_gets_those_that_the_user_may_see(served: Served) -> None:
    served.record(flux_result=prediction(id="for-all"))
    hidden = served.task(1, HIDDEN_DAG_ID)
    path = f"/api/v2/dags/{HIDDEN_DAG_ID}/dagRuns/{hidden['run_id']}/taskInstances/make_picture/xcomEntries"
    token = served._token("admin")
    body = {"key": "flux_result", "value": prediction(id="for-few"), "map_index": 1}
    answer = served.client.post(path, json=body, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code in (201, 409)

    def seen_by(user: str) -> set[str]:
        seen: set[str] = set()
        page = {"next": 0, "total": 1}
        while page["next"] < page["total"]:
            page = served.get("/flux/predictions", user=user, dag_id="~", offset=page["next"]).json()
            seen |= {entry["dag_id"] for entry in page["predictions"]}
        return seen

    # Other tests of the same session have left predictions of their own.
    assert DAG_ID in seen_by("stranger")
    assert HIDDEN_DAG_ID not in seen_by("stranger")
    assert {DAG_ID, HIDDEN_DAG_ID} <= seen_by("viewer")


@pytest.mark.parametrize("wildcard", ["dag_id", "run_id", "task_id"])
def test_a_picture_is_asked_of_one_task_instance(served: Served, query: dict[str, Any], wildcard: str) -> None:
    assert served.get("/flux/picture", **{**query, wildcard: "~"}).status_code == 422


def test_a_picture_of_another_task_instance_is_not_served(served: Served, query: dict[str, Any]) -> None:
    other = served.record(flux_result=prediction(id="other"))

    assert served.get("/flux/picture", **other, sha256=query["sha256"]).status_code == 404


def test_the_session_cookie_is_a_login_too(served: Served, query: dict[str, Any]) -> None:
    served.client.cookies.set("_token", served._token("viewer"))
    try:
        assert served.get("/flux/picture", user=None, **query).status_code == 200
    finally:
        served.client.cookies.clear()


def test_static_files_need_no_login_and_hold_no_data(served: Served) -> None:
    answer = served.get("/flux/static/flux.js", user=None)

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/javascript")
    assert served.get("/flux/static/../app.py", user=None).status_code == 404
    assert served.get("/flux/static/%2e%2e/app.py", user=None).status_code == 404
