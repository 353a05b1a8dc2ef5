"""A batch whose table, ledger, pictures and manifests are all in S3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_flux.batch.manifest import merge_manifests, read_manifest
from airflow_provider_flux.batch.rows import split_rows
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import FluxKilledError
from tests.batch.task_instance import BatchTaskInstance, kill_after_posts, table
from tests.conftest import Connect
from tests.outputs.conftest import Store

ROWS = 8


@pytest.fixture(autouse=True)
def gateway(emulator: Emulator, connect: Connect) -> None:
    emulator.settings(small_pictures=True)
    connect(emulator.url, gateway="deerapi", read_timeout=2)


def put_table(s3: Store, rows: list[dict[str, Any]]) -> str:
    body = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    s3.client.put_object(Bucket="pictures", Key="table.jsonl", Body=body)
    return f"{s3.url}/table.jsonl"


def listed(s3: Store, name: str = "manifest.jsonl") -> list[dict[str, Any]]:
    return list(read_manifest(f"{s3.url}/shop/{name}"))


def test_a_killed_batch_goes_on_and_its_next_run_makes_only_what_has_changed(
    emulator: Emulator, s3: Store, tmp_path: Path
) -> None:
    instance = BatchTaskInstance(
        tmp_path, rows=put_table(s3, table(ROWS)), output_path=f"{s3.url}/shop", cancel_on_kill=False
    )
    emulator.settings(run_time=1.0)
    killer = kill_after_posts(instance, emulator, ROWS // 2)
    with pytest.raises(FluxKilledError):
        instance.execute()
    killer.join()

    instance.retry()

    assert (instance.totals["succeeded"], emulator.posts, emulator.accepted) == (ROWS, ROWS, ROWS)
    keys = s3.keys()
    pictures = {key for key in keys if key.endswith(".webp")}
    assert {row["path"].removeprefix(f"{s3.url}/") for row in listed(s3)} == pictures
    assert s3.get(min(pictures))["ContentType"] == "image/webp"
    assert len([key for key in keys if ".ledger/" in key and key.endswith(".jsonl")]) == 1

    changed = table(ROWS)
    changed[3]["name"] = "something else"
    put_table(s3, changed)
    instance.next_run()

    assert (instance.totals["kept"], instance.totals["succeeded"], emulator.posts) == (ROWS - 1, 1, ROWS + 1)
    assert pictures < set(s3.keys())
    assert list(tmp_path.iterdir()) == []


def test_parts_make_one_manifest(emulator: Emulator, s3: Store, tmp_path: Path) -> None:
    path = put_table(s3, table(ROWS))
    for part in split_rows(path, 2):
        instance = BatchTaskInstance(tmp_path, rows=part, output_path=f"{s3.url}/shop")
        instance.map_index = part["part"]
        instance.execute()

    totals = merge_manifests(f"{s3.url}/shop/manifest.jsonl", 2)

    assert (totals["succeeded"], emulator.posts) == (ROWS, ROWS)
    assert [row["key"] for row in listed(s3)] == [row["sku"] for row in table(ROWS)]
