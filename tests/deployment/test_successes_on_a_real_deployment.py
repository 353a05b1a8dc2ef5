"""A task that succeeds leaves the same behind, whether it ends in the triggerer or resumes on a worker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from airflow_api import AirflowApiError
from deployment import AirflowDeployment
from local_emulator import LocalEmulator

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(900)]

HERE = Path(__file__).parent
MODULES = HERE / "success_modules"
DAG_ID = "successes"
MARK = "went through the backend"

ENDS_IN_THE_TRIGGERER = {
    "plain": True,
    "callback": False,
    "callbacks": False,
    "post_execute": False,
    "overridden": False,
    "own_xcom": False,
    "outlets": False,
    "no_xcom": True,
    "email": True,
    "other_callbacks": True,
    "timeout": True,
    "named": True,
    "named_by_xcom": False,
    "function": True,
    "sensor": True,
}
"""Whether a task of ``auto`` ends there, by what Airflow has to do for it at a success."""

OTHER_TASKS = ("downstream", "set_up", "tear_down")


@dataclass(frozen=True)
class Finished:
    """A run that has succeeded, with each task in both ways."""

    airflow: AirflowDeployment
    run_id: str

    @cached_property
    def instances(self) -> list[dict[str, Any]]:
        return self.airflow.api.task_instances(DAG_ID, self.run_id)

    def left_by(self, case: str, way: str) -> list[dict[str, Any]]:
        """Return what the instances of a task have left behind, without what differs from run to run."""
        task_id = f"{case}.{way}"
        instances = [instance for instance in self.instances if instance["task_id"] == task_id]
        return [self._left_by(instance) for instance in sorted(instances, key=lambda each: each["map_index"])]

    def _left_by(self, instance: dict[str, Any]) -> dict[str, Any]:
        task_id, map_index = instance["task_id"], instance["map_index"]
        home = self.airflow.home
        return {
            "state": instance["state"],
            "try_number": instance["try_number"],
            "has_ended": instance["end_date"] is not None and instance["duration"] > 0,
            "name": instance["rendered_map_index"],
            "rendered": _shape(instance["rendered_fields"]),
            "xcoms": self._xcoms(task_id, map_index),
            "marks": sorted(path.name.partition("-")[0] for path in home.glob(f"*-{task_id}-{map_index}")),
            "has_record": self._has_record(task_id, map_index),
            "links": sorted(self.airflow.api.extra_links(DAG_ID, self.run_id, task_id, map_index)),
        }

    def _xcoms(self, task_id: str, map_index: int) -> dict[str, Any]:
        entries = self.airflow.api.xcom_entries(DAG_ID, self.run_id, task_id)
        keys = [entry["key"] for entry in entries if entry["map_index"] == map_index]
        return {key: _shape(self.airflow.api.xcom(DAG_ID, self.run_id, task_id, key, map_index)) for key in keys}

    def _has_record(self, task_id: str, map_index: int) -> bool:
        path = f"/dags/{DAG_ID}/dagRuns/{self.run_id}/taskInstances/{task_id}/state-store/flux_prediction"
        try:
            self.airflow.api.request("GET", path, params={"map_index": map_index})
        except AirflowApiError as error:
            if error.status != 404:
                raise
            return False
        return True

    def ended_in_the_triggerer(self, case: str) -> bool:
        """Tell whether the trigger has ended the task of ``auto``, as it writes into its log."""
        logs = self.airflow.task_logs.glob(f"dag_id={DAG_ID}/run_id={self.run_id}/task_id={case}.auto/**/*.trigger.*")
        return any("the task ends here" in log.read_text() for log in logs)

    def asset_events(self, way: str) -> int:
        listed = self.airflow.api.request("GET", "/assets/events", params={"source_run_id": self.run_id})
        return sum(event["source_task_id"] == f"outlets.{way}" for event in listed["asset_events"])


def _shape(value: Any) -> Any:
    """Return a value with the kinds of its parts in the place of what differs from one prediction to the next."""
    if isinstance(value, dict):
        return {name: part if name in ("status", "model", "prompt") else _shape(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_shape(part) for part in value]
    return type(value).__name__


@contextmanager
def finished(folder: Path, **settings: str) -> Iterator[Finished]:
    path = os.pathsep.join([str(MODULES), os.environ.get("PYTHONPATH", "")])
    with (
        LocalEmulator(log=folder / "emulator.log", arguments=("--run-time", "30", "--small-pictures")) as emulator,
        AirflowDeployment(
            home=folder / "airflow",
            dags=HERE / "success_dags",
            environment={**emulator.connection(), "PYTHONPATH": path, **settings},
            progress=print,
        ) as airflow,
    ):
        airflow.api.wait_for_dag(DAG_ID)
        run_id = airflow.api.trigger_dag(DAG_ID)
        run = airflow.api.wait_for_run(DAG_ID, run_id, on_change=lambda states: None)
        assert run["state"] == "success", airflow.api.task_states(DAG_ID, run_id)
        made = emulator.state()["counters"]
        assert made["posts"] == made["accepted"] == 2 * (len(ENDS_IN_THE_TRIGGERER) + 1)
        yield Finished(airflow, run_id)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """With an XCom backend, which does not keep a task from ending in the triggerer."""
    with finished(tmp_path_factory.mktemp("usual"), AIRFLOW__CORE__XCOM_BACKEND="marking_xcom.MarkingXCom") as run:
        yield run


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """With a listener, and records that Airflow clears: either keeps all tasks from ending in the triggerer."""
    settings = {"AIRFLOW__CORE__PLUGINS_FOLDER": str(MODULES), "AIRFLOW__STATE_STORE__CLEAR_ON_SUCCESS": "True"}
    with finished(tmp_path_factory.mktemp("watched"), **settings) as run:
        yield run


@pytest.mark.parametrize("case", [*ENDS_IN_THE_TRIGGERER, *OTHER_TASKS])
def test_both_ways_of_ending_leave_the_same_behind(usual: Finished, case: str) -> None:
    """success while deferred"""
    resumed, auto = usual.left_by(case, "resumed"), usual.left_by(case, "auto")

    for one, other in zip(auto, resumed, strict=True):
        assert {name: one[name] for name in one if one[name] != other[name]} == {}, other
    assert [left["state"] for left in auto] == ["success"] * (2 if case == "named" else 1)
    assert usual.ended_in_the_triggerer(case) is ENDS_IN_THE_TRIGGERER.get(case, False)


def test_what_the_cases_are_about_has_happened(usual: Finished) -> None:
    def marks(case: str) -> list[str]:
        return [mark for left in usual.left_by(case, "auto") for mark in left["marks"]]

    assert marks("callback") == ["callback"]
    assert marks("callbacks") == ["callback", "notifier"]
    assert marks("post_execute") == ["post_execute_1"]
    assert marks("overridden") == ["overridden"]
    assert marks("tear_down") == ["teardown"]
    assert marks("plain") == marks("other_callbacks") == []
    assert [usual.asset_events(way) for way in ("resumed", "auto")] == [1, 1]
    assert [left["name"] for left in usual.left_by("named", "auto")] == ["a cup", "a pot"]
    assert [left["name"] for left in usual.left_by("named_by_xcom", "auto")] == ["ended"]
    xcoms = {case: usual.left_by(case, "auto")[0]["xcoms"] for case in ("plain", "own_xcom", "no_xcom")}
    assert set(xcoms["plain"]) == {"prediction_id", "flux_result", "output_url", "return_value"}
    assert set(xcoms["plain"]["return_value"]) == {MARK}
    links = {"_link_FluxPredictionLink", "_link_FluxPicturesLink"}  # of a class that the plugin does not know
    assert set(xcoms["own_xcom"]) == {*xcoms["plain"], *links, "count"}
    assert set(xcoms["no_xcom"]) == set(xcoms["plain"]) - {"return_value"}


@pytest.mark.parametrize("case", ENDS_IN_THE_TRIGGERER)
def test_a_listener_is_told_and_records_are_cleared_both_ways(watched: Finished, case: str) -> None:
    for way in ("resumed", "auto"):
        for left in watched.left_by(case, way):
            assert "listener" in left["marks"]
            assert not left["has_record"]
    assert not watched.ended_in_the_triggerer(case)
