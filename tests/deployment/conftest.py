"""One Airflow deployment and one emulator, in which the quick start has run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from airflow_api import TaskStates
from deployment import AirflowDeployment
from local_emulator import LocalEmulator

ROOT = Path(__file__).parents[2]
API_KEY = "sk-nobody-may-ever-find-this-key-outside-of-the-connection-4711"
DAG_ID = "flux_quickstart"
SENSORS = ("lantern_ready", "boat_ready")


@dataclass
class Observation:
    """What could only be seen while the run was going on."""

    states: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    links_while_deferred: dict[str, dict[str, str | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class QuickstartRun:
    """The quick start, after its end; Airflow and the emulator are still up."""

    airflow: AirflowDeployment
    emulator: LocalEmulator
    run_id: str
    state: str
    observed: Observation
    counters: dict[str, int]
    """What the emulator had counted at the end of the run."""


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuickstartRun]:
    folder = tmp_path_factory.mktemp("quickstart")
    # The emulator prints the key it was given, so it is given none and takes any. Predictions take long enough that
    # nobody can wait for them on a worker.
    arguments = ("--key", "", "--run-time", "20", "--log-requests")
    with (
        LocalEmulator(log=folder / "emulator.log", arguments=arguments) as emulator,
        AirflowDeployment(
            home=folder / "airflow",
            dags=ROOT / "example_dags",
            environment=emulator.connection(API_KEY),
            progress=print,
        ) as airflow,
    ):
        observed = Observation()
        run_id = airflow.api.trigger_dag(DAG_ID)

        def watch(states: TaskStates) -> None:
            for task_id, state in states.items():
                observed.states[task_id].add(state)
                if state == "deferred":
                    links = airflow.api.extra_links(DAG_ID, run_id, task_id)
                    observed.links_while_deferred[task_id] = links

        run = airflow.api.wait_for_run(DAG_ID, run_id, on_change=watch)
        counters = emulator.state()["counters"]
        yield QuickstartRun(airflow, emulator, run_id, run["state"], observed, counters)
