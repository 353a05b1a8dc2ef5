"""`end-to-end`: mapped predictions in a real Airflow, this provider's and those of HttpOperator and HttpSensor."""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import plots
import results
from api_calls import api_calls
from cpu import CpuTime, cpu_times

from deployment import AirflowDeployment
from distributed_services import Postgres, postgres_programs
from local_emulator import LocalEmulator
from processes import LOOPBACK, ManagedProcess, end_processes, environment_for_loopback, free_ports, termination_as_exit

FOLDER = Path(__file__).parent
ROWS, QUICK_ROWS, WARM_UP = 100, 10, 32
RUNS = 2
RUN_TIMEOUT = 600.0
"""Seconds: many times what a quiet machine takes."""
SEED = 20261122
KEY = "emulator-key"
MODES = {
    "http_sensor": "HttpOperator, HttpSensor",
    "provider_resumed": "this provider, resumed",
    "provider_ended_in_triggerer": "this provider, ended in triggerer",
}
COMPONENTS = ("scheduler", "workers", "api-server", "triggerer", "dag-processor", "database")

Figures = dict[str, Any]


def main() -> None:
    """Run every mode in one deployment, print the table, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS} rows, once")
    parser.add_argument("--repetitions", type=int, default=RUNS)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument(
        "--run-time", type=float, help="seconds that every prediction takes, instead of its model's times"
    )
    options = parser.parse_args()
    rows, repetitions = (QUICK_ROWS, 1) if options.quick else (ROWS, options.repetitions)
    gateway = () if options.run_time is None else ("--run-time", str(options.run_time))
    with (
        termination_as_exit(),
        tempfile.TemporaryDirectory() as folder,
        Stage(Path(folder), rows, gateway=gateway) as stage,
    ):
        for mode in options.modes:
            stage.run(mode, WARM_UP, label=MODES[mode])
        modes = [mode for _ in range(repetitions) for mode in options.modes]
        random.Random(SEED).shuffle(modes)
        runs = [stage.run(mode, rows, label=MODES[mode]) for mode in modes]
    table = _summary(runs)
    print()
    _print(table)
    name = "end-to-end" if options.run_time is None else f"end-to-end-{options.run_time:g}s"
    results.save(name, {"table": table, "runs": runs}, rows=rows, seed=SEED, database=stage.database_name)
    if options.run_time is None:
        plots.draw_end_to_end(table)


class Stage:
    """Airflow, its database and the gateway, for as long as a `with` block lasts.

    :param folder: for everything that is written.
    :param rows: how many rows the DAGs have.
    :param dags: the folder of the DAGs.
    :param gateway: further arguments for the emulator.
    :param requests_per_minute: the limit that the connection sets; the gateway's own if not given.
    """

    def __init__(
        self,
        folder: Path,
        rows: int,
        *,
        dags: Path = FOLDER / "dags",
        gateway: tuple[str, ...] = (),
        requests_per_minute: float | None = None,
    ) -> None:
        self._folder = folder
        self._rows = rows
        self._dags = dags
        self._arguments = gateway
        self._requests_per_minute = requests_per_minute
        self._stack = ExitStack()
        self._postgres = Postgres(folder / "postgres.log") if postgres_programs() else None
        self.database_name = "PostgreSQL" if self._postgres else "SQLite"

    def __enter__(self) -> Stage:
        with ExitStack() as stack:
            arguments = ("--speed", "1", "--seed", str(SEED), "--small-pictures", *self._arguments)
            self._gateway = stack.enter_context(LocalEmulator(log=self._folder / "emulator.log", arguments=arguments))
            readiness = stack.enter_context(_readiness(self._gateway.url, self._folder))
            if self._postgres:
                stack.enter_context(self._postgres)
            self._airflow = stack.enter_context(
                AirflowDeployment(
                    home=self._folder / "airflow",
                    dags=self._dags,
                    environment=self._settings(),
                    progress=_say,
                )
            )
            # In the database, where most people have them: each task then asks Airflow's API for its own.
            self._airflow.api.add_connection("flux_default", self._connection())
            self._airflow.api.add_connection("http_default", _http_connection(readiness))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def run(self, mode: str, rows: int, *, label: str) -> Figures:
        """Run the DAG of a mode once and return what it took.

        :param label: what people call the mode.
        """
        dag_id = f"{mode}_{rows}"
        api = self._airflow.api
        api.wait_for_dag(dag_id)
        requests, cpu, calls = self._requests(), self._cpu(), api_calls(self._api_log)
        run_id = api.trigger_dag(dag_id)
        run = self._wait(dag_id, run_id)
        spent = {name: now - cpu[name] for name, now in self._cpu().items()}
        instances = api.task_instances(dag_id, run_id)
        figures = {
            "mode": mode,
            "rows": rows,
            "makespan": (_moment(run["end_date"]) - _moment(run["start_date"])).total_seconds(),
            "cpu": _by_component(spent),
            "requests": {name: count - requests[name] for name, count in self._requests().items()},
            "api_calls": dict(api_calls(self._api_log) - calls),
            "failed": sum(instance["state"] == "failed" for instance in instances),
            "state": run["state"],
        }
        total = sum(figures["cpu"].values())
        _say(f"{label}, {rows} rows: {figures['makespan']:.1f} s, {total:.1f} CPU s, {figures['failed']} failed")
        return figures

    def _wait(self, dag_id: str, run_id: str) -> Mapping[str, Any]:
        """Wait for the end of a run with few questions: they cost the API server time that is measured here."""
        deadline = time.monotonic() + RUN_TIMEOUT
        while time.monotonic() < deadline:
            run = self._airflow.api.dag_run(dag_id, run_id)
            if run["state"] in ("success", "failed"):
                return run
            time.sleep(2)
        raise TimeoutError(f"{dag_id} has not ended after {RUN_TIMEOUT:.0f} s")

    @property
    def _api_log(self) -> Path:
        return self._airflow.logs / "api-server.log"

    def _requests(self) -> dict[str, int]:
        counters = self._gateway.state()["counters"]
        return {name: counters[name] for name in ("posts", "gets")}

    def _cpu(self) -> dict[str, CpuTime]:
        pids = {name: self._airflow.pid(name) for name in ("api-server", "dag-processor", "scheduler-1", "triggerer-1")}
        if self._postgres:
            pids["database"] = int((self._postgres.folder / "data" / "postmaster.pid").read_text().split()[0])
        return cpu_times(pids)

    def _connection(self) -> dict[str, Any]:
        connection: dict[str, Any] = {"conn_type": "flux", "host": self._gateway.url, "password": KEY}
        if self._requests_per_minute is not None:
            connection["extra"] = json.dumps({"requests_per_minute": self._requests_per_minute})
        return connection

    def _settings(self) -> dict[str, str]:
        settings = {
            "BENCHMARK_ROWS": str(self._rows),
            "BENCHMARK_PICTURES": str(self._folder / "pictures"),
            "AIRFLOW__CORE__PARALLELISM": str(WARM_UP),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
        }
        if self._postgres:
            settings["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"postgresql+psycopg2://{self._postgres.url}"
        return settings


@contextmanager
def _readiness(gateway: str, folder: Path) -> Iterator[str]:
    """Start the process in front of the gateway that answers 404 until a prediction has ended."""
    port = free_ports(1)[0]
    process = ManagedProcess(
        "readiness",
        [sys.executable, str(FOLDER / "readiness.py"), "--gateway", gateway, "--port", str(port)],
        environment=environment_for_loopback({}),
        log=folder / "readiness.log",
        cwd=folder,
    )
    try:
        yield f"http://{LOOPBACK}:{port}"
    finally:
        end_processes([process])


def _http_connection(host: str) -> dict[str, Any]:
    return {"conn_type": "http", "host": host, "extra": json.dumps({"Authorization": f"Bearer {KEY}"})}


def _by_component(spent: Mapping[str, CpuTime]) -> dict[str, float]:
    """Name the parts. What the scheduler has started are LocalExecutor's workers and their tasks."""
    scheduler = spent["scheduler-1"]
    whole = {name: time.own + time.below for name, time in spent.items()}
    parts = {
        "scheduler": scheduler.own,
        "workers": scheduler.below,
        "api-server": whole["api-server"],
        "triggerer": whole["triggerer-1"],
        "dag-processor": whole["dag-processor"],
    }
    return parts | ({"database": whole["database"]} if "database" in whole else {})


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _summary(runs: list[Figures]) -> list[Figures]:
    table = []
    for mode in MODES:
        of_mode = [run for run in runs if run["mode"] == mode]
        if not of_mode:
            continue
        parts = of_mode[0]["cpu"]
        table.append(
            {
                "mode": mode,
                "runs": len(of_mode),
                "rows": of_mode[0]["rows"],
                "makespan": median(run["makespan"] for run in of_mode),
                "cpu": {part: median(run["cpu"][part] for run in of_mode) for part in parts},
                "cpu_in_all": median(sum(run["cpu"].values()) for run in of_mode),
                "api_calls": {
                    route: median(run["api_calls"].get(route, 0) / run["rows"] for run in of_mode)
                    for route in sorted({route for run in of_mode for route in run["api_calls"]})
                },
                "posts": median(run["requests"]["posts"] for run in of_mode),
                "gets": median(run["requests"]["gets"] for run in of_mode),
                "failed": sum(run["failed"] for run in of_mode),
            }
        )
    return table


def _print(table: list[Figures]) -> None:
    parts = [part for part in COMPONENTS if part in table[0]["cpu"]]
    head = ["mode", "runs", "makespan s", "CPU s", "CPU s / row", *parts, "POSTs", "GETs", "failed"]
    rows = [
        [
            MODES[row["mode"]],
            str(row["runs"]),
            f"{row['makespan']:.1f}",
            f"{row['cpu_in_all']:.1f}",
            f"{row['cpu_in_all'] / row['rows']:.2f}",
            *(f"{row['cpu'][part]:.1f}" for part in parts),
            f"{row['posts']:.0f}",
            f"{row['gets']:.0f}",
            str(row["failed"]),
        ]
        for row in table
    ]
    results.print_table(head, rows)
    print("\nCalls to Airflow's API for each row, by tasks:")
    routes = sorted({route for row in table for route in row["api_calls"]})
    modes = [MODES[row["mode"]] for row in table]
    calls = [[route, *(f"{row['api_calls'].get(route, 0):.1f}" for row in table)] for route in routes]
    in_all = ["in all", *(f"{sum(row['api_calls'].values()):.1f}" for row in table)]
    results.print_table(["call", *modes], [*calls, in_all])


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
