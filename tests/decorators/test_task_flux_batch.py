"""``@task.flux_batch`` on real Airflow, over the emulator."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, ObjectStoragePath, task

from airflow_provider_flux.batch.manifest import merge_manifests
from airflow_provider_flux.batch.rows import split_rows
from airflow_provider_flux.emulator import Emulator
from tests.batch.task_instance import SCHNELL, read_lines, table, write_table
from tests.conftest import Connect
from tests.on_airflow.runs import run

pytestmark = pytest.mark.usefixtures("airflow_db")


@pytest.fixture(autouse=True)
def gateway(emulator: Emulator, connect: Connect) -> None:
    emulator.settings(small_pictures=True)
    connect(emulator.url, gateway="deerapi", read_timeout=2)


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    return {
        "model": SCHNELL,
        "prompt": "A photo of {{ row.name }}",
        "key": "sku",
        "output_path": str(tmp_path / "pictures"),
        "poll_interval": 0.1,
    }


def test_rows_that_a_function_returns_cost_one_post_each(
    emulator: Emulator, tmp_path: Path, options: dict[str, Any]
) -> None:
    with DAG("decorated_batch") as dag:

        @task
        def names() -> list[str]:
            return ["lantern", "kite"]

        @task.flux_batch(**options)
        def pictures(names: list[str]) -> list[dict[str, str]]:
            return [{"sku": name[:2], "name": name} for name in names]

        pictures(names())

    finished = run(dag)

    assert finished.state == "success"
    assert finished.xcom("pictures") == str(tmp_path / "pictures" / "manifest.jsonl")
    manifest = read_lines(Path(finished.xcom("pictures")))
    assert [(listed["key"], listed["prompt"]) for listed in manifest] == [
        ("la", "A photo of lantern"),
        ("ki", "A photo of kite"),
    ]
    assert all(Path(listed["path"]).is_file() for listed in manifest)
    assert emulator.posts == 2


@pytest.mark.parametrize("kind", [str, ObjectStoragePath, Path])
def test_the_function_may_return_a_tables_path(
    emulator: Emulator, tmp_path: Path, options: dict[str, Any], kind: type
) -> None:
    path = write_table(tmp_path / "table.jsonl", table(3))
    with DAG("decorated_batch_path") as dag:

        @task.flux_batch(**options)
        def pictures() -> Any:
            return kind(path)

        pictures()

    assert run(dag).state == "success"
    assert emulator.posts == 3


def test_parts_of_a_table_are_mapped_and_merged(emulator: Emulator, tmp_path: Path, options: dict[str, Any]) -> None:
    path = write_table(tmp_path / "table.jsonl", table(5))
    with DAG("decorated_batch_parts") as dag:

        @task.flux_batch(**options)
        def pictures(part: dict[str, Any]) -> dict[str, Any]:
            return part

        @task
        def merge(manifests: list[str]) -> dict[str, Any]:
            return merge_manifests(f"{options['output_path']}/manifest.jsonl", len(list(manifests)))

        merge(pictures.expand(part=split_rows(path, 2)))

    finished = run(dag)

    assert finished.states("pictures") == ["success"] * 2
    assert finished.xcom("merge")["succeeded"] == 5
    assert emulator.posts == 5


@pytest.mark.parametrize("returned", [None, {"sku": "a", "name": "x"}, 7, {"path"}])
def test_a_wrong_return_is_an_error_that_names_the_function_and_nothing_is_sent(
    emulator: Emulator, options: dict[str, Any], returned: object
) -> None:
    with DAG("decorated_batch_wrong") as dag:

        @task.flux_batch(task_id="make", retries=2, retry_delay=timedelta(seconds=0), **options)
        def pictures() -> Any:
            return returned

        pictures()

    finished = run(dag)

    assert finished.state == "failed"
    assert finished.tries("make") == 1
    assert emulator.posts == 0
    (operator,) = dag.tasks
    with pytest.raises(Exception, match="function pictures of task make must return a list of rows") as caught:
        operator.execute({})
    assert f"it returned {type(returned).__name__}. Nothing was sent." in str(caught.value)


def test_a_retry_makes_only_what_its_function_returns_anew(
    emulator: Emulator, tmp_path: Path, options: dict[str, Any]
) -> None:
    calls: list[int] = []

    def fail_at_first(context: Any, result: Any) -> None:
        if len(calls) == 1:
            raise RuntimeError("the first try fails")

    with DAG("decorated_batch_retry") as dag:

        @task.flux_batch(retries=1, retry_delay=timedelta(seconds=0), post_execute=fail_at_first, **options)
        def pictures() -> list[dict[str, str]]:
            calls.append(len(calls))
            return [*table(3), {"sku": "changing", "name": f"thing of call {len(calls)}"}]

        pictures()

    finished = run(dag)

    assert (finished.state, finished.tries("pictures")) == ("success", 2)
    assert [listed["prompt"] for listed in read_lines(Path(finished.xcom("pictures")))] == [
        *(f"A photo of thing {number}" for number in range(3)),
        "A photo of thing of call 2",
    ]
    assert emulator.posts == 5
