"""What happens to a prediction when its task, its run or a part of Airflow is ended: real processes, real signals.

Each scenario has a DAG run of its own; all are started together, so that they need not wait for each other. Their
predictions go on until the test ends them.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from airflow_api import AirflowApiError
from airflow_provider_flux.emulator import Emulator, PredictionSnapshot, RequestRecord
from deployment import AirflowDeployment
from local_emulator import flux_connection

# The first test waits for the deployment, which takes a minute or, on a busy machine, several.
pytestmark = [pytest.mark.kills, pytest.mark.timeout(900)]

TASK = "picture"
KEY = "emulator-key-of-the-kill-tests"
LATEST_CANCEL = 20.0
"""Seconds. Five are promised; a busy machine is given more."""
FIRST_CANCEL = 60.0
"""Seconds for the first kill in a triggerer's life, in which Airflow starts what tells the state of a task."""
PATIENCE = 180.0
TERMINAL = ("succeeded", "canceled", "failed", "aborted")

DAG_OF = {
    "run out of time": "has_little_time",
    "task marked failed": "waits_in_the_triggerer",
    "task marked success": "waits_in_the_triggerer",
    "run marked failed": "waits_in_the_triggerer",
    "task cleared": "waits_in_the_triggerer",
    "marked failed on the worker": "waits_on_the_worker",
    "task killed on the worker": "waits_on_the_worker",
    "success told": "tells_of_success",
    "triggerer killed": "waits_in_the_triggerer",
    "triggerer restarted": "waits_in_the_triggerer",
    "triggerer stalled": "waits_in_the_triggerer",
}


@dataclass(frozen=True)
class Run:
    """One DAG run of one task, and what the gateway knows of it."""

    airflow: AirflowDeployment
    gateway: Emulator
    dag_id: str
    run_id: str

    @property
    def predictions(self) -> list[PredictionSnapshot]:
        """Every prediction that was made for the run, oldest first."""
        return [prediction for prediction in self.gateway.predictions if prediction.input["prompt"] == self.run_id]

    @property
    def cancels(self) -> list[RequestRecord]:
        """Every attempt to cancel one of them."""
        ids = {prediction.id for prediction in self.predictions}
        return [
            request for request in self.gateway.requests if request.kind == "cancel" and request.prediction_id in ids
        ]

    @property
    def task(self) -> dict[str, Any]:
        """The task instance."""
        [instance] = self.airflow.api.task_instances(self.dag_id, self.run_id)
        return instance

    @property
    def triggerer(self) -> dict[str, Any] | None:
        """The job in whose hands the deferred task is: each start of a triggerer has an `id`."""
        job: dict[str, Any] | None = self.task["triggerer_job"]
        return job

    def is_given_up_by(self, triggerer: dict[str, Any]) -> bool:
        """Tell whether a triggerer has ended its part, as it writes into the log of the task."""
        return "trigger completed" in self._log_of(triggerer)

    def wait_until_deferred(self) -> dict[str, Any]:
        """Wait until a triggerer waits for the only prediction; return which one.

        To be given the task is not enough: one that has not asked for it yet can cancel nothing.
        """

        def begun() -> dict[str, Any] | None:
            assert self._is_alive()
            triggerer = self.triggerer
            return (
                triggerer if triggerer and f"Prediction {self.predictions[0].id}" in self._log_of(triggerer) else None
            )

        wait_until(begun, "a triggerer waits for the prediction")
        assert [prediction.status in TERMINAL for prediction in self.predictions] == [False]
        triggerer = self.triggerer
        assert triggerer
        return triggerer

    def _log_of(self, triggerer: dict[str, Any]) -> str:
        run_logs = self.airflow.task_logs / f"dag_id={self.dag_id}" / f"run_id={self.run_id}"
        return "".join(log.read_text() for log in run_logs.glob(f"**/*.trigger.{triggerer['id']}.log"))

    def wait_until_the_worker_waits(self) -> None:
        """Wait until the prediction is made and its id is known to Airflow."""

        def known() -> bool:
            assert self._is_alive()
            with suppress(AirflowApiError):
                return bool(self.airflow.api.xcom(self.dag_id, self.run_id, TASK, "prediction_id"))
            return False

        wait_until(known, "the id of the prediction is known")
        assert self.task["state"] == "running"

    def _is_alive(self) -> bool:
        assert self.task["state"] not in ("failed", "up_for_retry", "success"), self.log
        return True

    def mark(self, state: Any) -> float:
        """Mark the task, as a person does; return when."""
        moment = time.time()
        self.airflow.api.patch_task_instance(self.dag_id, self.run_id, TASK, state)
        return moment

    def canceled_after(self, moment: float) -> float:
        """Wait until the only prediction is canceled; return how many seconds after `moment` that was."""
        wait_until(lambda: self.predictions[0].status == "canceled", "the prediction is canceled", FIRST_CANCEL + 10)
        [prediction] = self.predictions
        assert prediction.ended is not None
        return prediction.ended - moment

    def finish(self) -> None:
        """Let every prediction be over that is not yet."""
        for prediction in self.predictions:
            if prediction.status not in TERMINAL:
                self.gateway.finish(prediction.id)

    def ends_well(self) -> bool:
        """Let the prediction succeed, and tell whether the run does so too and has its URL."""
        self.finish()
        run = self.airflow.api.wait_for_run(self.dag_id, self.run_id, timeout=PATIENCE)
        return run["state"] == "success" and len(self.airflow.api.xcom(self.dag_id, self.run_id, TASK)) == 1

    @property
    def log(self) -> str:
        """The logs of all tries, for the message of a test that fails."""
        return self.airflow.api.logs(self.dag_id, self.run_id, TASK)


@dataclass(frozen=True)
class Scenarios:
    """The deployment with all runs; what is measured is printed at the end."""

    airflow: AirflowDeployment
    gateway: Emulator
    runs: dict[str, Run]
    measured: dict[str, str] = field(default_factory=dict)

    def note_cancel(self, scenario: str, seconds: float) -> None:
        self.measured[scenario] = f"canceled after {seconds:.1f} s"


def wait_until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.2)


@pytest.fixture(scope="session")
def scenarios(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Scenarios]:
    home = tmp_path_factory.mktemp("kills") / "airflow"
    environment = {
        "AIRFLOW__CORE__PARALLELISM": "6",
        # Another triggerer takes over when one has not been heard of for so long (30 s by default).
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
    }
    with Emulator(key=KEY) as gateway:
        gateway.add_outcome("stuck", times=None)
        environment |= flux_connection(gateway.url, KEY)
        dags = Path(__file__).parent / "dags"
        with AirflowDeployment(home=home, dags=dags, environment=environment, progress=print) as airflow:
            runs = {
                scenario: Run(airflow, gateway, dag_id, airflow.api.trigger_dag(dag_id))
                for scenario, dag_id in DAG_OF.items()
            }
            found = Scenarios(airflow, gateway, runs)
            yield found
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    terminal = pytestconfig.get_terminal_writer()
    with capture.global_and_fixture_disabled():
        terminal.line()
        for scenario, line in found.measured.items():
            terminal.line(f"{scenario:<30} {line}")


@pytest.mark.parametrize(("scenario", "state"), [("task marked failed", "failed"), ("task marked success", "success")])
def test_marking_a_deferred_task_cancels_its_prediction(scenarios: Scenarios, scenario: str, state: str) -> None:
    run = scenarios.runs[scenario]
    run.wait_until_deferred()

    seconds = run.canceled_after(run.mark(state))

    scenarios.note_cancel(scenario, seconds)
    assert seconds < (FIRST_CANCEL if scenario == "task marked failed" else LATEST_CANCEL)
    assert run.task["state"] == state


def test_marking_a_run_failed_cancels_the_prediction_of_its_deferred_task(scenarios: Scenarios) -> None:
    run = scenarios.runs["run marked failed"]
    run.wait_until_deferred()

    moment = time.time()
    run.airflow.api.patch_dag_run(run.dag_id, run.run_id, "failed")
    seconds = run.canceled_after(moment)

    scenarios.note_cancel("run marked failed", seconds)
    assert seconds < LATEST_CANCEL


def test_marking_a_task_failed_while_it_waits_on_the_worker_cancels_its_prediction(scenarios: Scenarios) -> None:
    run = scenarios.runs["marked failed on the worker"]
    run.wait_until_the_worker_waits()

    seconds = run.canceled_after(run.mark("failed"))

    scenarios.note_cancel("marked failed on the worker", seconds)
    assert seconds < LATEST_CANCEL, run.log
    assert run.task["state"] == "failed"


def test_a_retry_goes_on_with_the_prediction_of_a_task_that_was_killed(scenarios: Scenarios) -> None:
    run = scenarios.runs["task killed on the worker"]
    run.wait_until_the_worker_waits()
    pid = run.task["pid"]
    assert os.getsid(pid) == run.airflow.pid("scheduler-1")  # it is the task's own process and nobody else's

    os.kill(pid, signal.SIGKILL)
    killed_at = time.time()
    wait_until(lambda: run.task["try_number"] == 2 and run.task["state"] == "running", "the task runs again")
    scenarios.measured["task killed on the worker"] = f"runs again after {time.time() - killed_at:.1f} s"

    assert run.ends_well(), run.log
    assert len(run.predictions) == 1
    assert run.cancels == []


def test_clearing_a_deferred_task_never_leaves_two_predictions_alive(scenarios: Scenarios) -> None:
    run = scenarios.runs["task cleared"]
    run.wait_until_deferred()

    run.airflow.api.clear(run.dag_id, run.run_id, TASK)
    wait_until(lambda: run.task["try_number"] == 2 and run.task["state"] == "deferred", "the second try waits")
    deadline = time.monotonic() + PATIENCE
    while run.airflow.api.dag_run(run.dag_id, run.run_id)["state"] == "running" and time.monotonic() < deadline:
        run.finish()  # again and again: the second try may make a new one yet
        time.sleep(1)

    assert run.ends_well(), run.log
    made = run.predictions
    scenarios.measured["task cleared"] = f"{len(made)} predictions: " + ", ".join(one.status for one in made)
    assert len(made) <= 2
    for first, second in pairwise(made):
        assert first.ended is not None
        assert first.ended <= second.created


def test_a_run_that_is_out_of_time_cancels_the_prediction_of_its_deferred_task(scenarios: Scenarios) -> None:
    run = scenarios.runs["run out of time"]

    ended = run.airflow.api.wait_for_run(run.dag_id, run.run_id, timeout=PATIENCE)
    seconds = run.canceled_after(datetime.fromisoformat(ended["end_date"]).timestamp())

    scenarios.note_cancel("run out of time", seconds)
    assert (ended["state"], run.task["state"]) == ("failed", "skipped")
    assert seconds < LATEST_CANCEL


def test_a_callback_for_success_runs_though_the_task_has_waited_in_the_triggerer(scenarios: Scenarios) -> None:
    run = scenarios.runs["success told"]
    run.wait_until_deferred()

    assert run.ends_well(), run.log
    told = run.airflow.home / f"told-of-{run.run_id}"
    wait_until(told.exists, "the callback has run")
    assert len(run.predictions) == 1


def test_a_triggerer_that_is_killed_cancels_nothing(scenarios: Scenarios) -> None:
    run = scenarios.runs["triggerer killed"]
    before = run.wait_until_deferred()

    run.airflow.kill("triggerer-1", signal.SIGKILL)
    run.airflow.start("triggerer-1")
    wait_for_another_triggerer(scenarios, "triggerer killed", before)

    assert run.ends_well(), run.log
    assert len(run.predictions) == 1
    assert run.cancels == []


def test_a_triggerer_that_is_restarted_cancels_nothing(scenarios: Scenarios) -> None:
    run = scenarios.runs["triggerer restarted"]
    before = run.wait_until_deferred()

    run.airflow.restart("triggerer-1")
    wait_for_another_triggerer(scenarios, "triggerer restarted", before)

    assert run.ends_well(), run.log
    assert len(run.predictions) == 1
    assert run.cancels == []


def test_a_triggerer_that_stalls_and_comes_back_cancels_nothing(scenarios: Scenarios) -> None:
    run = scenarios.runs["triggerer stalled"]
    before = run.wait_until_deferred()
    run.airflow.start("triggerer-2")

    freeze(run.airflow, "triggerer-1")
    try:
        wait_for_another_triggerer(scenarios, "triggerer stalled", before)
    finally:
        run.airflow.kill("triggerer-1", signal.SIGCONT)
    wait_until(lambda: run.is_given_up_by(before), "the one that had stalled knows that it has lost the task")
    scenarios.measured["triggerer stalled"] += f", {len(run.cancels)} cancels by the one that had stalled"

    assert run.predictions[0].status == "processing"
    assert run.ends_well(), run.log
    assert len(run.predictions) == 1
    assert run.cancels == []


def wait_for_another_triggerer(scenarios: Scenarios, scenario: str, before: dict[str, Any]) -> None:
    """Wait until the task is in the hands of another start of a triggerer."""
    run, started = scenarios.runs[scenario], time.time()
    wait_until(lambda: (run.triggerer or before)["id"] != before["id"], "another triggerer has the task")
    scenarios.measured[scenario] = f"waited for again after {time.time() - started:.1f} s"


def freeze(airflow: AirflowDeployment, name: str) -> None:
    """Stop a component in its tracks, but not while it holds the only lock of SQLite, which would stop all others."""
    while True:
        airflow.kill(name, signal.SIGSTOP)
        with closing(sqlite3.connect(airflow.database, timeout=3)) as database:
            try:
                database.execute("BEGIN IMMEDIATE")
                database.rollback()
            except sqlite3.OperationalError:
                airflow.kill(name, signal.SIGCONT)
                time.sleep(0.1)
            else:
                return
