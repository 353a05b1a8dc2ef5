"""What the tab and the page read: known fields, few requests, each answer asked for once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_flux.plugin import records
from airflow_provider_flux.plugin.rest import AirflowRest
from tests.plugin.conftest import Served, prediction

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELD = st.sampled_from(["id", "key", "status", "outputs", "stored", "metrics", "seed", "recent", "total", "path"])
ANY_RESULT = st.dictionaries(FIELD, ANY_JSON | st.lists(st.dictionaries(FIELD, ANY_JSON)))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Airflow's REST API was asked for."""
    paths: list[str] = []
    get = AirflowRest.get

    async def remember(self: AirflowRest, path: str, **parameters: Any) -> dict[str, Any]:
        paths.append(path)
        return await get(self, path, **parameters)

    monkeypatch.setattr(AirflowRest, "get", remember)
    return paths


@given(ANY_RESULT | ANY_JSON)
def test_nothing_that_a_task_pushes_breaks_the_reading(value: Any) -> None:
    for read in (records.prediction, records.row, records.batch):
        json.dumps(read(value), allow_nan=False)


def test_a_result_of_an_older_version_is_shown_as_far_as_it_goes(served: Served) -> None:
    task = served.record(flux_result={"id": "old", "status": "succeeded", "outputs": ["https://x.test/a.png"]})

    (shown,) = served.get("/flux/predictions", **task).json()["predictions"]

    assert shown["outputs"] == ["https://x.test/a.png"]
    assert shown["stored"] == []


def test_addresses_that_are_none_of_the_web_are_left_out(served: Served) -> None:
    outputs = ["javascript:alert(1)", "data:text/html,<script>", "file:///etc/passwd", "https://x.test/a.png", 7]
    task = served.record(flux_result=prediction(outputs=outputs))

    (shown,) = served.get("/flux/predictions", **task).json()["predictions"]

    assert shown["outputs"] == ["https://x.test/a.png"]


def test_an_answer_is_data_and_never_a_page(served: Served) -> None:
    task = served.record(flux_result=prediction(prompt="<script>alert(1)</script>"))

    answer = served.get("/flux/predictions", **task)

    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_prediction_that_has_ended_is_asked_for_once(served: Served, asked: list[str]) -> None:
    task = served.record(flux_result=prediction(id="ended"))
    served.get("/flux/predictions", **task)
    first = len(asked)

    served.get("/flux/predictions", **task)

    assert (first, len(asked)) == (2, 3)


def test_a_prediction_that_goes_on_is_asked_for_again(served: Served, asked: list[str]) -> None:
    task = served.record(flux_result=prediction(id="going-on", status="processing"))
    served.get("/flux/predictions", **task)

    served.get("/flux/predictions", **task)

    assert len(asked) == 4


def test_no_more_are_remembered_than_the_bound(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_flux.plugin import reading

    monkeypatch.setattr(reading, "ENDED_KEPT", 1)
    monkeypatch.setattr(reading, "_ended", {})
    for name in ("one", "other"):
        served.get("/flux/predictions", **served.record(flux_result=prediction(id=name)))

    assert [record["id"] for record in reading._ended.values()] == ["other"]


def test_a_page_holds_as_many_as_are_asked_for(served: Served) -> None:
    for _ in range(3):
        served.record(flux_result=prediction())

    page = served.get("/flux/predictions", **served.scope(), limit=2).json()

    assert (len(page["predictions"]), page["next"]) == (2, 2)
    assert page["total"] >= 3
    assert served.get("/flux/predictions", **served.scope(), limit=101).status_code == 422


def test_runs_from_before_the_period_are_left_out(served: Served) -> None:
    served.record(flux_result=prediction())

    def total(since: str) -> int:
        return int(served.get("/flux/predictions", dag_id="~", since=since).json()["total"])

    assert total("2100-01-01T00:00:00Z") == 0
    assert total("2000-01-01T00:00:00Z") > 0
    assert served.get("/flux/predictions", dag_id="~", since="yesterday").status_code == 422


def test_the_state_of_a_run_and_of_a_task_instance_is_told(served: Served) -> None:
    run = served.get("/flux/state", **served.scope()).json()
    task = served.get("/flux/state", **served.task(0)).json()

    assert run == {"state": "success", "ended": True}
    assert task == {"state": "success", "ended": True, "operator": "Row"}


def test_what_airflow_refuses_is_refused_in_its_words(served: Served) -> None:
    answer = served.get("/flux/state", dag_id=served.scope()["dag_id"], run_id="no such run")

    assert answer.status_code == 404
    assert "no such run" in answer.json()["detail"]


def test_the_figures_of_a_batch_are_read(served: Served) -> None:
    figures = {"total": 10, "done": 10, "failed": 1, "spent_usd": 0.03, "manifest_path": "/x/manifest.jsonl"}
    task = served.record(flux_batch=figures)

    (batch,) = served.get("/flux/batches", **task).json()["batches"]

    assert {name: batch[name] for name in figures} == figures
    assert batch["ended"] is True


def test_live_figures_come_from_the_task_state_store(served: Served) -> None:
    task = served.record()
    path = "/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/state-store/flux_batch".format(**task)
    figures = {"total": 10, "done": 4, "recent": [{"key": "a", "status": "succeeded", "prompt": "a cup"}]}
    headers = {"Authorization": f"Bearer {served._token('admin')}"}
    parameters = {"map_index": task["map_index"]}
    answer = served.client.put(path, params=parameters, json={"value": figures}, headers=headers)
    if answer.status_code == 404:
        pytest.skip("this Airflow has no task state store")
    assert answer.status_code < 300, answer.text

    (batch,) = served.get("/flux/batches", **task).json()["batches"]

    assert (batch["done"], batch["recent"][0]["prompt"]) == (4, "a cup")
