"""A table in parts, and one manifest in the end."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task
from PIL import Image

from airflow_provider_flux.batch.manifest import COLUMNS, merge_manifests
from airflow_provider_flux.batch.rows import split_rows
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import FluxInputError
from airflow_provider_flux.operators.batch import FluxBatchOperator
from tests.batch.task_instance import SCHNELL, BatchTaskInstance, read_lines, table, write_table
from tests.conftest import Connect
from tests.on_airflow.runs import run


@pytest.fixture(autouse=True)
def gateway(emulator: Emulator, connect: Connect) -> None:
    emulator.settings(small_pictures=True)
    connect(emulator.url, gateway="deerapi", read_timeout=2)


def make_parts(folder: Path, rows: list[dict[str, Any]], parts: int, *, run_id: str = "run-1") -> list[dict[str, Any]]:
    """Run a task for each part, and return the totals of each."""
    totals = []
    for part in split_rows(write_table(folder / "table.jsonl", rows), parts):
        instance = BatchTaskInstance(folder / "pictures", rows=part)
        instance.map_index, instance.run_id = part["part"], run_id
        instance.execute()
        totals.append(instance.totals)
    return totals


def test_parts_make_one_manifest_in_the_tables_order(emulator: Emulator, tmp_path: Path) -> None:
    make_parts(tmp_path, table(10), 3)

    manifest_path = str(tmp_path / "pictures" / "manifest.jsonl")
    totals = merge_manifests(manifest_path, 3)

    manifest = read_lines(Path(manifest_path))
    assert [listed["key"] for listed in manifest] == [row["sku"] for row in table(10)]
    assert [listed["row"] for listed in manifest] == list(range(1, 11))
    assert (totals["total"], totals["succeeded"], totals["manifest_path"]) == (10, 10, manifest_path)
    assert emulator.posts == 10


def test_a_row_that_moves_to_another_part_is_not_paid_for_again(emulator: Emulator, tmp_path: Path) -> None:
    make_parts(tmp_path, table(10), 3)

    totals = make_parts(tmp_path, [{"sku": "new", "name": "new"}, *table(10)], 4, run_id="run-2")

    assert sum(part["kept"] for part in totals) == 10
    assert sum(part["removed"] for part in totals) == 0
    assert emulator.posts == 11


def test_a_row_that_moves_is_not_paid_for_again_though_no_manifest_tells_of_it(
    emulator: Emulator, tmp_path: Path
) -> None:
    make_parts(tmp_path, table(10), 3)
    for manifest in (tmp_path / "pictures").glob("manifest.jsonl.part-*-of-3"):
        if manifest.is_file():
            manifest.unlink()

    make_parts(tmp_path, [{"sku": "new", "name": "new"}, *table(10)], 4, run_id="run-2")

    assert emulator.posts == 11


def test_the_same_key_in_two_parts_is_found_before_anything_is_sent(emulator: Emulator, tmp_path: Path) -> None:
    with pytest.raises(FluxInputError, match="rows 1 and 2"):
        make_parts(tmp_path, [{"sku": "a", "name": "x"}, {"sku": "a", "name": "y"}], 2)

    assert emulator.posts == 0


def test_a_part_without_a_manifest_is_missed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="part-0-of-2"):
        merge_manifests(str(tmp_path / "manifest.jsonl"), 2)


def test_tasks_that_are_mapped_over_lists_do_not_write_over_each_other(tmp_path: Path) -> None:
    for index in range(2):
        instance = BatchTaskInstance(tmp_path, rows=[{"sku": f"sku-{index}", "name": "x"}])
        instance.map_index = index
        instance.execute()

    assert [read_lines(tmp_path / f"manifest.jsonl.map-{index}")[0]["key"] for index in range(2)] == ["sku-0", "sku-1"]


def test_a_manifest_is_a_table_for_pyarrow(emulator: Emulator, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import json as arrow_json

    emulator.add_outcome("E005", times=2)
    emulator.add_fault("reset_after_accept", on="create", times=1)
    instance = BatchTaskInstance(
        tmp_path, rows=table(12), input=lambda row: {"seed": 7} if row["sku"] == "sku-1" else {}
    )
    instance.execute()

    read = arrow_json.read_json(tmp_path / "manifest.jsonl")

    assert read.column_names == list(COLUMNS)
    assert read.num_rows == 12
    types = {field.name: str(field.type) for field in read.schema}
    assert (types["bytes"], types["paths"], types["predict_time"]) == ("int64", "list<item: string>", "double")
    for listed in read.to_pylist():
        assert json.loads(listed["input"])["prompt"] == listed["prompt"]
        assert (listed["status"] == "succeeded") == (listed["path"] is not None) == (listed["error"] is None)


def test_a_manifest_holds_no_signature_and_no_picture(emulator: Emulator, tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(file, "PNG")
    inline = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    instance = BatchTaskInstance(
        tmp_path,
        rows=table(1),
        model="black-forest-labs/flux-kontext-pro",
        input={"input_image": inline, "aspect_ratio": "1:1"},
    )
    instance.execute()

    (listed,) = instance.manifest()

    assert inline[100:150] not in listed["input"]
    assert "?" not in (listed["url"] or "")


@pytest.mark.usefixtures("airflow_db")
class TestOnAirflow:
    """The operator in real DAG runs."""

    def test_a_table_becomes_a_manifest(self, emulator: Emulator, tmp_path: Path) -> None:
        with DAG("batch", params={"colour": "blue"}) as dag:

            @task
            def rows() -> list[dict[str, Any]]:
                return table(6)

            @task
            def count(path: str) -> int:
                return len(read_lines(Path(path)))

            made = FluxBatchOperator(
                task_id="make",
                rows=rows(),
                key="sku",
                model=SCHNELL,
                prompt="A {{ params.colour }} {{ row.name }} of {{ dag.dag_id }}",
                output_path=f"{tmp_path}/{{{{ dag.dag_id }}}}",
                poll_interval=0.1,
            )
            count(made.output)

        finished = run(dag)

        assert finished.state == "success"
        assert finished.xcom("count") == 6
        assert finished.xcom("make") == str(tmp_path / "batch" / "manifest.jsonl")
        totals = finished.xcom("make", "flux_batch")
        assert (totals["total"], totals["succeeded"]) == (6, 6)
        assert emulator.posts == 6
        prompts = {listed["prompt"] for listed in read_lines(Path(finished.xcom("make")))}
        assert "A blue thing 3 of batch" in prompts

    def test_parts_are_made_by_mapped_tasks(self, emulator: Emulator, tmp_path: Path) -> None:
        path = write_table(tmp_path / "table.jsonl", table(10))
        manifest_path = str(tmp_path / "pictures" / "manifest.jsonl")
        with DAG("batch_parts") as dag:

            @task
            def merge() -> dict[str, Any]:
                return merge_manifests(manifest_path, 3)

            made = FluxBatchOperator.partial(
                task_id="make",
                key="sku",
                model=SCHNELL,
                prompt="{{ row.name }}",
                output_path=str(tmp_path / "pictures"),
                poll_interval=0.1,
            ).expand(rows=split_rows(path, 3))
            made >> merge()

        finished = run(dag)

        assert finished.state == "success"
        assert finished.states("make") == ["success"] * 3
        assert (finished.xcom("merge")["succeeded"], emulator.posts) == (10, 10)
        assert [listed["key"] for listed in read_lines(Path(manifest_path))] == [row["sku"] for row in table(10)]

    def test_a_retry_goes_on_where_the_last_try_stopped(
        self, emulator: Emulator, connect: Connect, tmp_path: Path
    ) -> None:
        emulator.add_outcome("PA", times=1)
        with DAG("batch_retry") as dag:
            FluxBatchOperator(
                task_id="make",
                rows=table(6),
                key="sku",
                model=SCHNELL,
                prompt="{{ row.name }}",
                output_path=str(tmp_path),
                on_row_error="fail",
                poll_interval=0.1,
                retries=1,
                retry_delay=0,
            )

        finished = run(dag)

        assert finished.state == "success"
        assert finished.tries("make") == 2
        assert (finished.xcom("make", "flux_batch")["succeeded"], emulator.posts) == (6, 7)
