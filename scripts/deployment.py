"""A real Airflow deployment on this machine, for as long as a `with` block lasts.

    with AirflowDeployment(home=Path("/tmp/airflow"), dags=Path("example_dags"), progress=print) as airflow:
        run_id = airflow.api.trigger_dag("flux_quickstart")
        airflow.api.wait_for_run("flux_quickstart", run_id, on_change=print)
        airflow.kill("triggerer-1", signal.SIGKILL)
        airflow.start("triggerer-1")

`airflow standalone` is not used: it announces itself before it is ready and leaves its children behind when it is
ended. Here each component is a process of its own with its own log file, so that a test can kill exactly one:

    api-server   dag-processor   scheduler-1, scheduler-2 ...   triggerer-1, triggerer-2 ...   worker-1, worker-2 ...

Tasks run by LocalExecutor, the metadata is in SQLite, users are `admin` and `viewer` with their names as passwords.
All of it is reachable from this machine only. `environment` overrides every setting, and `workers` are for those that
make it CeleryExecutor. What Airflow calls `unixname` of a task instance or of a job is the name of the component that
it runs in.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from airflow_api import AirflowApi
from processes import LOOPBACK, ManagedProcess, end_processes, environment_for_loopback, free_ports

START_TIMEOUT = 240  # seconds; 40 to 50 are usual on two cores
MIGRATION_TIMEOUT = 180
RESTART_PATIENCE = 60

# The log servers are left out: they listen on every interface, and here all logs are in one folder anyway.
COMMANDS = {
    "api-server": ("api-server",),
    "dag-processor": ("dag-processor",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "triggerer": ("triggerer", "--skip-serve-logs"),
    "worker": ("celery", "worker", "--skip-serve-logs"),
}


class DeploymentError(RuntimeError):
    """Airflow did not start; the message shows why."""


class AirflowDeployment:
    """Starts Airflow on entry, ends it on exit.

    :param home: folder for everything Airflow writes; made if missing.
    :param dags: the DAGs folder.
    :param logs: folder for the components' own logs, `home/components` by default.
    :param port: port of the API server and UI, a free one by default.
    :param environment: further variables for every component: connections, `AIRFLOW__SECTION__KEY`.
    :param schedulers: how many schedulers are started (more than one needs another database than SQLite).
    :param triggerers: how many triggerers are started.
    :param workers: how many Celery workers are started.
    :param python: interpreter of the environment that Airflow is installed in, this one by default.
    :param progress: called with one line of text whenever there is something to tell.
    :param start_timeout: seconds until a deployment that is not healthy is given up.
    """

    def __init__(
        self,
        *,
        home: Path,
        dags: Path,
        logs: Path | None = None,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
        schedulers: int = 1,
        triggerers: int = 1,
        workers: int = 0,
        python: Path = Path(sys.executable),
        progress: Callable[[str], None] = lambda _line: None,
        start_timeout: float = START_TIMEOUT,
    ):
        self.home = home.absolute()
        self.dags = dags.absolute()
        self.logs = (logs or home / "components").absolute()
        self.task_logs = self.home / "logs"
        self.database = self.home / "airflow.db"
        self._python = python.absolute()
        other_port, self._worker_log_port, self._trigger_log_port = free_ports(3)
        self.port = port or other_port
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.environment = environment_for_loopback(self._settings() | dict(environment or {}))
        self.api = AirflowApi(self.url, "admin", "admin")
        self._names = [
            "api-server",
            "dag-processor",
            *(f"scheduler-{n}" for n in range(1, schedulers + 1)),
            *(f"triggerer-{n}" for n in range(1, triggerers + 1)),
            *(f"worker-{n}" for n in range(1, workers + 1)),
        ]
        self._processes: dict[str, ManagedProcess] = {}
        self._progress = progress
        self._start_timeout = start_timeout

    def __enter__(self) -> AirflowDeployment:
        try:
            self._prepare_home()
            self._progress("preparing the database")
            self._migrate()
            for name in self._names:
                self.start(name)
            self._wait_until_healthy()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, name: str) -> None:
        """Start a component: one that was killed, or a further one such as "triggerer-2"."""
        present = self._processes.get(name)
        if present and not present.is_gone():
            raise ValueError(f"{name} is running")
        kind = name.rstrip("0123456789").rstrip("-")
        self._processes[name] = ManagedProcess(
            name,
            [str(self._python), "-m", "airflow", *COMMANDS[kind], *self._arguments(name, kind)],
            environment=self.environment | {"LOGNAME": name},
            log=self.logs / f"{name}.log",
            cwd=self.home,
        )

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a component and everything it has started, the tasks of a scheduler included.

        SIGTERM goes to the component alone, which then ends the rest. SIGKILL returns when all of it is gone, other
        signals at once.
        """
        process = self._processes[name]
        process.signal(number, first_only=number == signal.SIGTERM)
        if number == signal.SIGKILL:
            end_processes([process], patience=0)

    def restart(self, name: str) -> None:
        """End a component the way a deploy does, wait until it is gone, and start it again."""
        end_processes([self._processes[name]], patience=RESTART_PATIENCE)
        self.start(name)

    def pid(self, name: str) -> int:
        """Return the process id of a component."""
        return self._processes[name].pid

    def stop(self) -> None:
        """End every process."""
        self.api.close()
        # The API server last: without it the others retry their farewells for half a minute.
        server = self._processes.get("api-server")
        end_processes(process for process in self._processes.values() if process is not server)
        end_processes([server] if server else [])

    def as_user(self, name: str) -> AirflowApi:
        """Return the REST API as "admin" or "viewer" sees it; the caller closes it."""
        return AirflowApi(self.url, name, name)

    def log_files(self) -> list[Path]:
        """Return every log file: of the components, of the tasks and of the DAG files."""
        folders = (self.logs, self.task_logs)
        return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())

    def _settings(self) -> dict[str, str]:
        settings = {
            "AIRFLOW_HOME": str(self.home),
            # Airflow starts programs of its own environment by their bare names.
            "PATH": os.pathsep.join([str(self._python.parent), os.environ.get("PATH", os.defpath)]),
            # Where this is set, each process and each task would compile the whole of Airflow for itself.
            "PYTHONDONTWRITEBYTECODE": "",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,viewer:viewer",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.home / "passwords.json"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.database}",
            "AIRFLOW__API__HOST": LOOPBACK,
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(64),  # PyJWT warns below 64 bytes
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.task_logs),
            # Nobody listens there: the defaults could be another Airflow's log servers.
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(self._worker_log_port),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(self._trigger_log_port),
            "AIRFLOW__LOGGING__TRIGGERER_LOG_SERVER_PORT": str(self._trigger_log_port),  # what 3.1 and 3.2 read
            # A worker may notice the end of its task only after this time (5 s by default). If a deferral is over by
            # then, the scheduler takes the task for lost: "finished with state success, but ... is queued".
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        if sys.platform == "darwin":
            # Without these two, macOS ends forked processes that look up a proxy or load a framework.
            settings |= {"OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES", "no_proxy": "*"}
        return settings

    def _arguments(self, name: str, kind: str) -> list[str]:
        if kind == "api-server":
            return ["--host", LOOPBACK, "--port", str(self.port)]
        if kind == "worker":
            return ["--celery-hostname", f"{name}@localhost", "--pid", str(self.home / f"{name}.pid")]
        return []

    def _prepare_home(self) -> None:
        for folder in (self.home, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        (self.home / "passwords.json").write_text(json.dumps({"admin": "admin", "viewer": "viewer"}))

    def _migrate(self) -> None:
        command = [str(self._python), "-m", "airflow", "db", "migrate"]
        log = self.logs / "db-migrate.log"
        process = ManagedProcess("db-migrate", command, environment=self.environment, log=log, cwd=self.home)
        self._processes["db-migrate"] = process
        deadline = time.monotonic() + MIGRATION_TIMEOUT
        while process.returncode is None and time.monotonic() < deadline:
            time.sleep(0.1)
        if process.returncode != 0:
            how = "did not end" if process.returncode is None else f"ended with code {process.returncode}"
            raise DeploymentError(f"`airflow db migrate` {how}.\n{_log_excerpt(process)}")
        del self._processes["db-migrate"]

    def _wait_until_healthy(self) -> None:
        started = time.monotonic()
        told = ""
        while True:
            self._raise_if_one_ended()
            waiting_for = self._not_healthy_yet()
            if not waiting_for:
                self._progress(f"healthy after {time.monotonic() - started:.0f} s")
                return
            if waiting_for != told:
                self._progress(f"waiting for {waiting_for}")
                told = waiting_for
            if time.monotonic() - started > self._start_timeout:
                logs = "\n".join(_log_excerpt(process) for process in self._processes.values())
                raise DeploymentError(
                    f"Airflow is not healthy after {self._start_timeout:.0f} s, still waiting for {waiting_for}.\n"
                    + logs
                )
            time.sleep(0.5)

    def _not_healthy_yet(self) -> str:
        health = self.api.health()
        expected = ("metadatabase", "scheduler", "dag_processor", "triggerer") if health else ("api-server",)
        return ", ".join(name.replace("_", "-") for name in expected if health.get(name) != "healthy")

    def _raise_if_one_ended(self) -> None:
        for process in self._processes.values():
            if process.returncode is not None:
                raise DeploymentError(
                    f"{process.name} ended with code {process.returncode} while Airflow was starting.\n"
                    + _log_excerpt(process)
                )


def _log_excerpt(process: ManagedProcess) -> str:
    return f"--- end of {process.log} ---\n{process.tail()}\n"
