"""One run of fifty predictions in a distributed Airflow, parts of which are killed meanwhile."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_api import FINISHED_RUN_STATES
from airflow_provider_flux.emulator import Counters, Emulator, PredictionSnapshot
from deployment import AirflowDeployment
from distributed import PYTHON
from distributed_services import Postgres, Redis

DAG_ID, TASK_ID = "fifty_pictures", "picture"
API_KEY = "sk-nobody-may-ever-find-this-key-outside-of-the-connection-4711"
PICTURES = 50
RUN_TIME = 15.0  # seconds
PATIENCE = 900.0

Instances = list[dict[str, Any]]
Say = Callable[[str], None]


class RunIsOverError(Exception):
    """The run has ended, or there is no hope that it will."""


@dataclass
class Facts:
    """What there was to see. Everything is ended by the time a test reads it."""

    state: str = "never ended"
    instances: Instances = field(default_factory=list)
    urls: dict[int, list[str]] = field(default_factory=dict)
    prediction_ids: dict[int, str] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)
    predictions: list[PredictionSnapshot] = field(default_factory=list)
    triggers_of_the_killed: list[int] = field(default_factory=list)
    tasks_of_the_killed: list[int] = field(default_factory=list)
    logs: list[Path] = field(default_factory=list)
    failures: dict[int, str] = field(default_factory=dict)
    left_behind: list[str] = field(default_factory=list)
    timeline: list[tuple[str, str]] = field(default_factory=list)


def run_with_failures(folder: Path, say: Say) -> Facts:
    """Start everything, run the DAG, kill parts of Airflow, end everything."""
    facts = Facts()
    postgres, redis = Postgres(folder / "postgres.log"), Redis(folder / "redis.log")
    with Emulator(key=API_KEY, run_time=RUN_TIME, small_pictures=True) as gateway:
        with postgres, redis:
            say(f"PostgreSQL and Redis listen on ports {postgres.port} and {redis.port}")
            airflow = AirflowDeployment(
                home=folder / "airflow",
                dags=Path(__file__).parent / "dags",
                environment=settings(postgres, redis) | connection(gateway),
                triggerers=2,
                workers=2,
                python=PYTHON,
                progress=say,
            )
            with airflow:
                _Run(airflow, gateway, facts, say).go()
        facts.counters, facts.predictions = gateway.counters, gateway.predictions
        facts.logs = [postgres.log, redis.log, *airflow.log_files()]
    facts.left_behind = _processes_of(airflow.home, postgres.folder, redis.folder)
    facts.left_behind += [str(path) for path in (postgres.folder, redis.folder) if path.exists()]
    return facts


def settings(postgres: Postgres, redis: Redis) -> dict[str, str]:
    return {
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CORE__PARALLELISM": "8",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{postgres.url}",
        "AIRFLOW__CELERY__BROKER_URL": redis.url,
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql://{postgres.url}",
        "AIRFLOW__CELERY__WORKER_CONCURRENCY": "2",
        # The usual times until something is taken for dead are made shorter: 5 s and 30 s for a triggerer, 300 s and
        # 10 s for a task, 600 s and 120 s for a task that its dead worker had only just been given.
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
    }


def connection(gateway: Emulator) -> dict[str, str]:
    """Replicate, since it lists predictions: one that a worker had no time to write down can be found again."""
    connection = {
        "conn_type": "flux",
        "host": gateway.url,
        "password": API_KEY,
        "extra": {"gateway": "replicate"},
    }
    return {"AIRFLOW_CONN_FLUX_DEFAULT": json.dumps(connection)}


class _Run:
    """The DAG run and what is done to it."""

    def __init__(self, airflow: AirflowDeployment, gateway: Emulator, facts: Facts, say: Say):
        self._airflow, self._gateway, self._facts, self._say = airflow, gateway, facts, say
        self._run_id = ""
        self._started = 0.0
        self._told = ""
        self._told_at = 0.0

    def go(self) -> None:
        self._run_id = self._airflow.api.trigger_dag(DAG_ID)
        self._started = time.monotonic()
        try:
            self._kill_a_triggerer()
            self._kill_a_worker()
            self._restart_the_scheduler()
            self._wait(lambda instances: False)
        except RunIsOverError as error:
            self._note(str(error))
        self._collect()

    def _kill_a_triggerer(self) -> None:
        instances = self._wait(lambda instances: self._gateway.accepted >= 10 and _of_triggerers(instances))
        owners = _of_triggerers(instances)
        victim = max(owners, key=lambda name: len(owners[name]))
        self._airflow.kill(victim, signal.SIGKILL)
        self._facts.triggers_of_the_killed = owners[victim]
        self._note(f"{victim} killed, which waits for {_listed(owners[victim])}")
        self._wait(lambda instances: victim not in _of_triggerers(instances))
        self._note("the other triggerer waits for all of them")

    def _kill_a_worker(self) -> None:
        instances = self._wait(lambda instances: self._gateway.accepted >= 20 and of_workers(instances))
        running = of_workers(instances)
        victim = max(running, key=lambda name: len(running[name]))
        self._airflow.kill(victim, signal.SIGKILL)
        self._facts.tasks_of_the_killed = running[victim]
        self._note(f"{victim} killed, which runs {_listed(running[victim])}")

    def _restart_the_scheduler(self) -> None:
        self._wait(lambda instances: self._gateway.accepted >= 30)
        self._note("scheduler-1 is told to end")
        self._airflow.restart("scheduler-1")
        self._note("scheduler-1 has ended and is started again")

    def _wait(self, is_so: Callable[[Instances], object]) -> Instances:
        """Wait for something and return the task instances of that moment.

        :raises RunIsOverError: if the run ends first.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            state = str(self._airflow.api.dag_run(DAG_ID, self._run_id)["state"])
            instances = self._airflow.api.task_instances(DAG_ID, self._run_id)
            self._tell(instances)
            if is_so(instances):
                return instances
            if state in FINISHED_RUN_STATES or time.monotonic() > deadline:
                raise RunIsOverError(f"the run is over: {state}")
            time.sleep(1)

    def _tell(self, instances: Instances) -> None:
        states = Counter(instance["state"] or "none" for instance in instances)
        line = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        line += f"; {self._gateway.posts} POSTs"
        if line != self._told and time.monotonic() > self._told_at + 5:
            self._say(f"{time.monotonic() - self._started:6.1f} s  {line}")
            self._told, self._told_at = line, time.monotonic()

    def _note(self, what: str) -> None:
        moment = f"{time.monotonic() - self._started:6.1f} s"
        self._facts.timeline.append((moment, what))
        self._say(f"{moment}  {what}")

    def _collect(self) -> None:
        api, facts = self._airflow.api, self._facts
        facts.state = api.dag_run(DAG_ID, self._run_id)["state"]
        facts.instances = api.task_instances(DAG_ID, self._run_id)
        for instance in facts.instances:
            index = instance["map_index"]
            if instance["state"] != "success":
                facts.failures[index] = api.logs(DAG_ID, self._run_id, TASK_ID, index)
                continue
            facts.urls[index] = api.xcom(DAG_ID, self._run_id, TASK_ID, map_index=index)
            facts.prediction_ids[index] = api.xcom(DAG_ID, self._run_id, TASK_ID, "prediction_id", index)


def _of_triggerers(instances: Instances) -> dict[str, list[int]]:
    """Return each triggerer's name with the map indexes of the tasks that it waits for."""
    owners: dict[str, list[int]] = {}
    for instance in instances:
        if instance["state"] == "deferred" and instance["triggerer_job"]:
            owners.setdefault(instance["triggerer_job"]["unixname"], []).append(instance["map_index"])
    return owners


def of_workers(instances: Instances) -> dict[str, list[int]]:
    """Return each worker's name with the map indexes of the tasks that it runs."""
    running: dict[str, list[int]] = {}
    for instance in instances:
        if instance["state"] == "running":
            running.setdefault(instance["unixname"], []).append(instance["map_index"])
    return running


def _listed(indexes: list[int]) -> str:
    return ", ".join(f"{TASK_ID}[{index}]" for index in sorted(indexes))


def _processes_of(*folders: Path) -> list[str]:
    """Return the processes that still know one of the folders."""
    needles = [str(folder).encode() for folder in folders]
    return [name for name, known in _environments() if any(needle in known for needle in needles)]


def _environments() -> Iterator[tuple[str, bytes]]:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it may end meanwhile
            command = (process / "cmdline").read_bytes()
            yield f"{process.name}: {command.decode(errors='replace')}", command + (process / "environ").read_bytes()
