"""What was paid is remembered for as long as its pictures are there, whatever today's table holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_flux.batch.manifest import merge_manifests
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import FluxInputError, FluxRecordError
from airflow_provider_flux.hooks.flux import FluxHook
from tests.batch.task_instance import SCHNELL, BatchTaskInstance, read_lines, table, write_table
from tests.conftest import Connect
from tests.outputs.conftest import Store

A, B = table(3), [{"sku": f"other-{number}", "name": f"vase {number}"} for number in range(3)]
DEV = "black-forest-labs/flux-dev"


@pytest.fixture(autouse=True)
def gateway(emulator: Emulator, connect: Connect) -> None:
    connect(emulator.url, gateway="deerapi", read_timeout=5, requests_per_minute=1e6)


def play(instance: BatchTaskInstance, *tables: list[dict[str, Any]], **options: Any) -> None:
    for rows in tables:
        instance.options.update(rows=rows, **options)
        instance.next_run()


TABLES = {
    "an empty export in between": ([A, [], A], 3),
    "two tables by turns, then both": ([A, B, A, A + B], 6),
    "a row that comes back after many runs": ([A, A[:1], A[:1], [], B, A], 6),
    "another order": ([A, A[::-1], A], 3),
    "a prompt that changes and changes back": ([A, [{**row, "name": "x"} for row in A], A, A], 6),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_row_costs_once_however_tables_change(name: str, emulator: Emulator, tmp_path: Path) -> None:
    """a row that comes back, whatever the tables in between"""
    tables, posts = TABLES[name]
    instance = BatchTaskInstance(tmp_path, rows=[])
    play(instance, *tables)
    assert emulator.posts == emulator.accepted == posts
    assert [listed["key"] for listed in instance.manifest()] == [row["sku"] for row in tables[-1]]
    assert all(Path(listed["path"]).is_file() for listed in instance.manifest())


def test_so_it_does_on_another_storage(emulator: Emulator, tmp_path: Path, s3: Store) -> None:
    instance = BatchTaskInstance(tmp_path, rows=[], output_path=f"{s3.url}/remembered")
    play(instance, A, [], B, A + B)
    assert emulator.posts == emulator.accepted == 6


def test_parts_remember_what_any_part_has_made(emulator: Emulator, tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    for rows, parts in ((A + B, 2), (A[:1], 2), (A + B, 3), (A + B, 1)):
        write_table(path, rows)
        for part in range(parts):
            whole = {"path": str(path), "part": part, "parts": parts} if parts > 1 else str(path)
            BatchTaskInstance(tmp_path / "pictures", rows=whole).next_run()
    assert emulator.posts == emulator.accepted == 6


def test_two_models_by_turns_are_each_paid_for_once(emulator: Emulator, tmp_path: Path) -> None:
    instance = BatchTaskInstance(tmp_path, rows=A)
    for model in (SCHNELL, DEV, SCHNELL, DEV):
        play(instance, A, model=model)
    assert emulator.posts == emulator.accepted == 6


def test_two_tasks_with_manifests_of_their_own_share_a_folder(emulator: Emulator, tmp_path: Path) -> None:
    lives = [BatchTaskInstance(tmp_path, rows=A, model=model) for model in (SCHNELL, DEV)]
    for number, instance in enumerate(lives):
        instance.task_id = f"make_{number}"
        instance.options["manifest_path"] = str(tmp_path / f"{number}.jsonl")
    for _ in range(3):
        for instance in lives:
            instance.next_run()
    assert emulator.posts == emulator.accepted == 6
    paths = {listed["path"] for number in range(2) for listed in read_lines(tmp_path / f"{number}.jsonl")}
    assert len(paths) == 6


def test_rows_that_are_made_anew_on_request_do_not_make_others_forgotten(emulator: Emulator, tmp_path: Path) -> None:
    instance = BatchTaskInstance(tmp_path, rows=A)
    play(instance, A, B, incremental=False)
    play(instance, A, incremental=True)
    assert emulator.posts == emulator.accepted == 6


def test_what_a_run_has_made_that_died_before_its_manifest_is_remembered(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = BatchTaskInstance(tmp_path, rows=A)
    with monkeypatch.context() as patched:
        patched.setattr("airflow_provider_flux.batch.run.write_manifest", dying)
        with pytest.raises(KeyboardInterrupt):
            instance.execute()
    play(instance, B, [], A)
    assert emulator.posts == emulator.accepted == 6


def history(instance: BatchTaskInstance) -> Path:
    return instance.folder / "manifest.jsonl.ledger" / "history"


def dying(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_picture_that_is_gone_is_made_anew_and_no_other(emulator: Emulator, tmp_path: Path) -> None:
    instance = BatchTaskInstance(tmp_path, rows=A)
    play(instance, A)
    Path(instance.manifest()[1]["path"]).unlink()
    play(instance, [], A)
    assert emulator.posts == emulator.accepted == 4


def test_pictures_on_a_disk_that_is_not_mounted_for_a_while_are_not_forgotten(
    emulator: Emulator, tmp_path: Path
) -> None:
    disk, away = tmp_path / "disk", tmp_path / "away"
    instance = BatchTaskInstance(disk, rows=A, manifest_path=str(tmp_path / "manifests" / "manifest.jsonl"))
    play(instance, A, [])
    disk.rename(away)
    disk.mkdir()
    play(instance, [])
    disk.rmdir()
    away.rename(disk)
    play(instance, A)
    assert emulator.posts == emulator.accepted == 3


def test_pictures_that_a_person_deleted_one_by_one_are_forgotten(emulator: Emulator, tmp_path: Path) -> None:
    instance = BatchTaskInstance(tmp_path, rows=A)
    play(instance, A, [])
    [first, *_] = read_lines(history(instance))
    Path(first["path"]).unlink()
    play(instance, [])
    assert first["key"] not in [line["key"] for line in read_lines(history(instance))]
    assert len(read_lines(history(instance))) == 2


def test_what_another_part_has_made_is_not_hidden_by_a_newer_entry_of_this_one(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, row = tmp_path / "table.jsonl", A[0]
    first, second = (
        BatchTaskInstance(tmp_path / "pictures", rows={"path": str(path), "part": part, "parts": 2})
        for part in range(2)
    )
    write_table(path, [B[0], row])
    with monkeypatch.context() as patched:
        patched.setattr("airflow_provider_flux.batch.run.write_manifest", dying)
        with pytest.raises(KeyboardInterrupt):
            second.execute()
    for name in ("otherwise", row["name"]):
        write_table(path, [{**row, "name": name}, B[0]])
        first.next_run()
    assert emulator.posts == emulator.accepted == 2


EQUAL = {
    "7 and 7.0": (7, 7.0),
    "7.0 and 7": (7.0, 7),
    "7 and 7e0": (7, 7e0),
    "0 and -0.0": (0, -0.0),
    "2**31 and as a float": (2**31, float(2**31)),
}


@pytest.mark.parametrize("name", EQUAL)
def test_numbers_that_are_equal_in_json_schema_are_the_same_input(
    name: str, emulator: Emulator, tmp_path: Path
) -> None:
    instance = BatchTaskInstance(tmp_path, rows=[], input=lambda row: {"seed": row["seed"]})
    for seed in EQUAL[name]:
        play(instance, [{"sku": "one", "name": "cup", "seed": seed}])
    assert emulator.posts == emulator.accepted == 1


def old_fingerprint(input: dict[str, Any]) -> str:
    """Return what version 0.1 has stored, which told 7 from 7.0."""
    gateway = FluxHook().access.gateway
    whole = json.dumps([gateway.origin, gateway.prefix, SCHNELL, input], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(whole.encode()).hexdigest()[:32]


@pytest.mark.parametrize("before", [7, 7.0])
@pytest.mark.parametrize("now", [7, 7.0])
@pytest.mark.parametrize("file", ["manifest", "ledger"])
def test_what_version_0_1_has_made_is_recognised(
    before: float, now: float, file: str, emulator: Emulator, tmp_path: Path
) -> None:
    rows = [{"sku": "one", "name": "cup", "seed": now}]
    instance = BatchTaskInstance(tmp_path, rows=rows, input=lambda row: {"seed": row["seed"]}, prompt="A cup")
    instance.execute()
    path = tmp_path / "manifest.jsonl" if file == "manifest" else instance.ledger()[0]
    others = [tmp_path / "manifest.jsonl", *instance.ledger()]
    record = {**read_lines(path)[0], "fingerprint": old_fingerprint({"prompt": "A cup", "seed": before})}
    for other in others:
        other.unlink()
    path.write_text(f"{json.dumps(record)}\n")
    instance.next_run()
    assert emulator.posts == emulator.accepted == 1
    assert instance.statuses() == ["kept"]


def relative(path: Path) -> str:
    return f"{path.parent}/../{path.parent.name}/{path.name}"


def linked(path: Path) -> str:
    link = path.parent / "link.jsonl"
    link.symlink_to(path)
    return str(link)


def as_object(path: Path) -> Any:
    from airflow.sdk import ObjectStoragePath

    return ObjectStoragePath(f"file://{path}")


OWN: dict[str, Callable[[Path], Any]] = {
    "its manifest": str,
    "as a pathlib.Path": lambda path: path,
    "as a URL": lambda path: f"file://{path}",
    "as an ObjectStoragePath": as_object,
    "with ..": relative,
    "with two slashes": lambda path: f"{path.parent}//{path.name}",
    "by a link": linked,
    "a segment of its ledger": lambda path: f"{path}.ledger/0000000001-a.jsonl",
    "its history": lambda path: f"{path}.ledger/history",
    "a part's manifest": lambda path: f"{path}.part-0-of-2",
    "a part's ledger": lambda path: f"{path}.part-0-of-2.ledger/0000000001-a.jsonl",
}


@pytest.mark.parametrize("name", OWN)
def test_a_table_that_the_batch_would_overwrite_is_refused_before_anything_is_sent(
    name: str, emulator: Emulator, tmp_path: Path
) -> None:
    instance = BatchTaskInstance(tmp_path, rows=A)
    instance.execute()
    manifest = tmp_path / "manifest.jsonl"
    before = manifest.read_bytes()
    instance.options.update(rows=OWN[name](manifest), key="key", prompt="Again: {{ row.prompt }}")
    with pytest.raises(FluxInputError, match=r"would overwrite.*Nothing was sent.*another manifest_path"):
        instance.next_run()
    assert emulator.posts == 3
    assert manifest.read_bytes() == before


def test_a_manifest_is_the_table_of_a_next_step_with_a_manifest_of_its_own(emulator: Emulator, tmp_path: Path) -> None:
    BatchTaskInstance(tmp_path, rows=A).execute()
    second = BatchTaskInstance(
        tmp_path, rows=str(tmp_path / "manifest.jsonl"), key="key", manifest_path=str(tmp_path / "second.jsonl")
    )
    second.options["prompt"] = "Again: {{ row.prompt }}"
    second.execute()
    assert emulator.posts == 6


@pytest.mark.parametrize("incremental", [True, False])
def test_a_table_of_the_users_own_in_the_manifests_place_is_never_overwritten(
    incremental: bool, emulator: Emulator, tmp_path: Path
) -> None:
    own = Path(write_table(tmp_path / "manifest.jsonl", A))
    before = own.read_bytes()
    with pytest.raises(FluxRecordError, match=r"Line 1 of .*manifest\.jsonl.*no line of a manifest.*manifest_path"):
        BatchTaskInstance(tmp_path, rows=A, incremental=incremental).execute()
    assert emulator.posts == 0
    assert own.read_bytes() == before


def test_nothing_is_written_for_a_history_that_is_empty(tmp_path: Path) -> None:
    instance = BatchTaskInstance(tmp_path, rows=A)
    play(instance, A, A)
    assert not (tmp_path / "manifest.jsonl.ledger" / "history").exists()


def test_merging_parts_forgets_nothing_that_the_whole_manifest_listed(emulator: Emulator, tmp_path: Path) -> None:
    whole = BatchTaskInstance(tmp_path, rows=A)
    play(whole, A, A)
    for part in range(2):
        path = write_table(tmp_path / "table.jsonl", B)
        BatchTaskInstance(tmp_path, rows={"path": path, "part": part, "parts": 2}).next_run()
    merge_manifests(tmp_path / "manifest.jsonl", 2)
    play(whole, A + B)
    assert emulator.posts == emulator.accepted == 6


def test_mapped_tasks_remember_what_any_of_them_has_made(emulator: Emulator, tmp_path: Path) -> None:
    for tables in ([A, B], [A, B], [B, A], [B, A]):
        for index, rows in enumerate(tables):
            instance = BatchTaskInstance(tmp_path, rows=rows)
            instance.map_index = index
            instance.next_run()
    assert emulator.posts == emulator.accepted == 6
