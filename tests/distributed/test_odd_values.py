"""What XCom can hold is decided by PostgreSQL and Airflow's API, so they are asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deployment import AirflowDeployment
from distributed import PYTHON
from distributed_services import Postgres
from processes import termination_as_exit
from tests.distributed.failover import API_KEY
from tests.odd_gateway import OddGateway

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(900)]

ODD = (
    '"metrics": {"predict_time": NaN, "many": 1180591620717411303424, "half": "\\ud83d", "nul\\u0000": "a\\u0000b"},'
    ' "input": {"prompt": "cat \\ude00\\u0000", "seed": 1180591620717411303424}, "error": "\\ud83d\\u0000"'
)
TASKS = ("on_the_worker", "in_the_triggerer", "resumed", "batch")


def test_nothing_that_a_gateway_says_keeps_a_paid_picture_out_of_postgresql(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    terminal = pytestconfig.get_terminal_writer()
    created = f'{{"id": "p%(n)d", "status": "starting", {ODD}}}'
    ended = f'{{"id": "%(id)s", "status": "succeeded", "output": ["%(picture)s"], {ODD}}}'
    rows = [{"sku": "good", "name": "cat"}, {"sku": "bad", "name": "cat \x00"}]
    (tmp_path / "table.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    postgres = Postgres(tmp_path / "postgres.log")
    with termination_as_exit(), OddGateway(created, ended) as gateway, postgres:
        extra = {"gateway": "deerapi", "allow_private_outputs": True}
        connection = {"conn_type": "flux", "host": gateway.url, "password": API_KEY, "extra": extra}
        airflow = AirflowDeployment(
            home=tmp_path / "airflow",
            dags=Path(__file__).parent / "dags",
            environment={
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{postgres.url}",
                "AIRFLOW_CONN_FLUX_DEFAULT": json.dumps(connection),
                "ODD_VALUES_FOLDER": str(tmp_path),
            },
            python=PYTHON,
            progress=lambda line: terminal.line(f"  {line}"),
        )
        with airflow:
            run_id = airflow.api.trigger_dag("odd_values")
            run = airflow.api.wait_for_run("odd_values", run_id, timeout=300)
            results = [airflow.api.xcom("odd_values", run_id, task, "flux_result") for task in TASKS[:3]]
            totals = airflow.api.xcom("odd_values", run_id, "batch", "flux_batch")

    assert run["state"] == "success"
    assert gateway.posts == 4
    for result in results:
        assert result["metrics"] == {
            "predict_time": None,
            "many": str(2**70),
            "half": "\ufffd",
            "nul\ufffd": "a\ufffdb",
        }
        assert (result["status"], result["seed"]) == ("succeeded", None)
    assert (totals["succeeded"], totals["failed"]) == (1, 1)
    manifest = (tmp_path / "pictures" / "manifest.jsonl").read_text("utf-8")
    assert [json.loads(line)["status"] for line in manifest.splitlines()] == ["succeeded", "failed"]
