"""What a task shows before it has pushed what became of its prediction, and where its buttons lead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_flux.operators.flux import FluxPredictionOperator
from airflow_provider_flux.plugin import reading
from tests.on_airflow.runs import FinishedRun, mark_as_success
from tests.plugin.conftest import Served, prediction

DAG_ID = "ui_unsettled"
PAGE = "https://replicate.com/p/pq7x1"
TASKS = 4


@pytest.fixture(scope="module")
def finished(served: Served) -> FinishedRun:
    with DAG(DAG_ID, schedule=None) as dag:
        for number in range(TASKS):
            FluxPredictionOperator(task_id=f"make_{number}", model="black-forest-labs/flux-schnell", prompt="tea")
    return mark_as_success(dag)


@pytest.fixture
def put(served: Served, finished: FinishedRun) -> Iterator[Any]:
    """Lets a task instance be in a state with a record, if any, and XComs."""

    def put_one(number: int, state: str, record: Any = None, **xcoms: Any) -> dict[str, Any]:
        task = {"dag_id": DAG_ID, "run_id": finished.run_id, "task_id": f"make_{number}", "map_index": -1}
        path = "/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}".format(**task)
        headers = {"Authorization": f"Bearer {served._token('admin')}"}
        for key, value in xcoms.items():
            body = {"key": key, "value": value, "map_index": -1}
            assert served.client.post(f"{path}/xcomEntries", json=body, headers=headers).status_code == 201
        if record is not None:
            body = {"value": record}
            assert served.client.put(f"{path}/state-store/flux_prediction", json=body, headers=headers).is_success
        set_state(finished, task["task_id"], state)
        return task

    if not reading.HAS_STATE_STORE:
        pytest.skip("this Airflow has no task state store; Airflow 3.3 runs it")
    yield put_one
    forget(finished)


def set_state(finished: FinishedRun, task_id: str, state: str) -> None:
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import update

    with create_session() as session:
        of_task = (TaskInstance.run_id == finished.run_id, TaskInstance.task_id == task_id)
        session.execute(update(TaskInstance).where(*of_task).values(state=state))


def forget(finished: FinishedRun) -> None:
    from airflow.models.task_state_store import TaskStateStoreModel
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    with create_session() as session:
        for model in (TaskStateStoreModel, XComModel):
            session.execute(delete(model).where(model.run_id == finished.run_id))
    for number in range(TASKS):
        set_state(finished, f"make_{number}", "success")


def record(**changes: Any) -> dict[str, Any]:
    return {"prediction_id": "pq7x1", "shown": prediction(status="starting", outputs=[], **changes)}


@pytest.mark.parametrize("state", ["running", "deferred", "queued", "failed", "up_for_retry"])
@pytest.mark.parametrize("scope", [{}, {"task_id": "make_1", "map_index": -1}], ids=["run", "task"])
def test_a_prediction_under_way_is_shown_as_its_record_has_it(
    served: Served, put: Any, state: str, scope: dict[str, Any]
) -> None:
    task = put(1, state, record())
    asked = {name: task[name] for name in ("dag_id", "run_id")} | scope

    answer = served.get("/flux/unsettled", **asked).json()

    assert [(each["id"], each["status"], each["task_id"]) for each in answer["predictions"]] == [
        ("pq7x1", "starting", "make_1")
    ]
    assert (answer["total"], answer["next"]) == (1, 1)


def test_over_all_dags_those_that_the_user_may_see_are_shown(served: Served, put: Any) -> None:
    put(1, "deferred", record())

    assert [each["dag_id"] for each in served.get("/flux/unsettled", dag_id="~").json()["predictions"]] == [DAG_ID]
    assert served.get("/flux/unsettled", dag_id="~", since="2999-01-01T00:00:00Z").json()["predictions"] == []
    assert served.get("/flux/unsettled", user=None, dag_id="~").status_code == 401


def test_a_task_that_has_succeeded_is_not_asked_for_its_record(served: Served, put: Any) -> None:
    task = put(1, "success", record())

    assert served.get("/flux/unsettled", dag_id=DAG_ID, run_id=task["run_id"]).json()["total"] == 0


@pytest.mark.parametrize("odd", [None, 7, "text", {}, {"shown": None}, {"shown": []}, {"shown": {"id": 1}}])
def test_a_record_that_shows_nothing_is_passed_over(served: Served, put: Any, odd: Any) -> None:
    task = put(2, "running", odd)

    answer = served.get("/flux/unsettled", dag_id=DAG_ID, run_id=task["run_id"]).json()

    assert (answer["total"], answer["predictions"]) == (1, [])


def test_without_a_state_store_nothing_is_asked_for(
    served: Served, finished: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "HAS_STATE_STORE", False)
    set_state(finished, "make_1", "running")

    answer = served.get("/flux/unsettled", dag_id=DAG_ID, run_id=finished.run_id).json()

    set_state(finished, "make_1", "success")
    assert answer == {"total": 0, "next": 0, "predictions": []}


def test_an_input_picture_of_a_prediction_under_way_is_served(served: Served, put: Any, stored: Any) -> None:
    path, sha256 = stored
    task = put(3, "running", record(inputs=[{"path": str(path), "sha256": sha256, "field": "input_image"}]))

    assert served.get("/flux/picture", **task, sha256=sha256).content == path.read_bytes()


@pytest.mark.parametrize(
    ("state", "told", "leads_to"),
    [
        ("deferred", {"record": record(page=PAGE)}, PAGE),
        ("success", {"flux_result": prediction(page=PAGE)}, PAGE),
        ("success", {"record": record(page="https://older.example"), "flux_result": prediction(page=PAGE)}, PAGE),
        ("success", {"_link_FluxPredictionLink": PAGE, "flux_result": prediction()}, PAGE),
        ("success", {"_link_FluxPredictionLink": "/dags/x/plugin/flux-task"}, None),
        ("deferred", {"record": record(page=None)}, None),
        ("success", {"flux_result": prediction(page="javascript:alert(1)")}, None),
        ("success", {"flux_result": "text"}, None),
        ("success", {"flux_result": [7]}, None),
        ("running", {}, None),
    ],
)
def test_the_button_leads_to_the_page_that_was_told_of_else_to_the_tab(
    served: Served, put: Any, state: str, told: dict[str, Any], leads_to: str | None
) -> None:
    task = put(0, state, **told)
    path = "/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/links".format(**task)

    links = served.get(path).json()["extra_links"]

    assert links["Pictures"].endswith("/tasks/make_0/plugin/flux-task")
    assert links["Prediction"] == (leads_to or links["Pictures"])
