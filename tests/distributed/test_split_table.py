"""A table that two Celery workers share, of which one is killed: one manifest, and each row is paid for once."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from airflow_provider_flux.emulator import Emulator
from deployment import AirflowDeployment
from distributed import PYTHON
from distributed_services import Postgres, Redis
from processes import termination_as_exit
from tests.distributed.failover import API_KEY, connection, of_workers, settings

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(1800)]

ROWS, PARTS = 80, 4
RUN_TIME = 6.0
"""Seconds."""


def test_a_table_that_two_workers_share_is_made_once_though_one_of_them_dies(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    terminal = pytestconfig.get_terminal_writer()
    rows = [{"sku": f"S-{number:03d}", "name": f"Lantern number {number}"} for number in range(ROWS)]
    (tmp_path / "table.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    postgres, redis = Postgres(tmp_path / "postgres.log"), Redis(tmp_path / "redis.log")
    gateway = Emulator(key=API_KEY, run_time=RUN_TIME, small_pictures=True)
    with termination_as_exit(), gateway, postgres, redis:
        airflow = AirflowDeployment(
            home=tmp_path / "airflow",
            dags=Path(__file__).parent / "dags",
            environment=settings(postgres, redis) | connection(gateway) | {"SPLIT_TABLE_FOLDER": str(tmp_path)},
            workers=2,
            python=PYTHON,
            progress=lambda line: terminal.line(f"  {line}"),
        )
        with airflow:
            run_id = airflow.api.trigger_dag("split_table")
            while gateway.accepted < ROWS // 4:
                time.sleep(0.5)
            running = of_workers(airflow.api.task_instances("split_table", run_id))
            assert len(running) == 2
            victim = max(running, key=lambda name: len(running[name]))
            airflow.kill(victim, signal.SIGKILL)
            terminal.line(f"  {victim} killed, which makes the parts {running[victim]}")
            run = airflow.api.wait_for_run("split_table", run_id, timeout=600)
            totals = airflow.api.xcom("split_table", run_id, "merge")

    assert run["state"] == "success"
    manifest = [json.loads(line) for line in (tmp_path / "pictures" / "manifest.jsonl").read_text().splitlines()]
    assert [line["key"] for line in manifest] == [row["sku"] for row in rows]
    assert {line["status"] for line in manifest} == {"succeeded"}
    assert all(Path(line["path"]).stat().st_size for line in manifest)
    assert (totals["total"], totals["succeeded"]) == (ROWS, ROWS)
    assert (gateway.accepted, gateway.cancels) == (ROWS, 0)
