"""Files of a batch's own that are torn, full, forbidden or gone: its own errors, and nothing is paid for twice."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from airflow_provider_flux.batch import lease, line_files, row_store
from airflow_provider_flux.batch.manifest import merge_manifests, read_manifest
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import (
    FluxBatchError,
    FluxError,
    FluxInputError,
    FluxLedgerError,
    FluxManifestMissingError,
    FluxRecordError,
    FluxStorageError,
)
from airflow_provider_flux.outputs import storing
from tests.batch.task_instance import BatchTaskInstance, table
from tests.conftest import Connect
from tests.outputs.conftest import Store


@pytest.fixture(autouse=True)
def gateway(emulator: Emulator, connect: Connect) -> None:
    connect(emulator.url, gateway="deerapi", read_timeout=5, requests_per_minute=1e6)


@pytest.fixture
def instance(tmp_path: Path) -> BatchTaskInstance:
    return BatchTaskInstance(tmp_path, rows=table(3))


TORN = {
    "half a line": b'{"row": 1, "key": "sku-0", "sta',
    "no UTF-8": b'{"key": "\xff\xfe"}',
    "zeros, as a disk leaves them": b"\0" * 64,
    "a list": b"[]",
    "a text": b'"sku-0"',
    "null": b"null",
    "nothing that is known": b"{}",
    "a number of many digits": b"1" * 5000,
    "nested too deeply": b"[" * 100_000,
    "another program's": b"sku,name\r",
}
FILES: dict[str, Callable[[BatchTaskInstance], Path]] = {
    "manifest": lambda instance: instance.folder / "manifest.jsonl",
    "ledger": lambda instance: instance.ledger()[0],
    "history": lambda instance: instance.folder / "manifest.jsonl.ledger" / "history",
}


@pytest.mark.parametrize("name", TORN)
@pytest.mark.parametrize("file", FILES)
def test_a_torn_line_is_named_and_nothing_is_sent_until_it_is_put_right(
    file: str, name: str, emulator: Emulator, instance: BatchTaskInstance
) -> None:
    """a torn line, a full disk, a storage that is gone"""
    instance.execute()
    path = FILES[file](instance)
    whole = path.read_bytes() if path.exists() else b""
    number = len(whole.splitlines()) + 1
    path.write_bytes(whole + TORN[name] + b"\n")
    for _ in range(2):
        with pytest.raises(FluxRecordError, match=rf"Line {number} of {path} .*Nothing was sent.*delete that line"):
            instance.next_run()
    assert emulator.posts == 3
    path.write_bytes(whole)
    instance.next_run()
    assert emulator.posts == emulator.accepted == 3


def test_whoever_reads_or_merges_manifests_is_told_as_well(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    with pytest.raises(FluxManifestMissingError, match="part-0-of-1") as missing:
        merge_manifests(path, 1)
    assert isinstance(missing.value, FileNotFoundError)
    (tmp_path / "manifest.jsonl.part-0-of-1").write_bytes(b"{\n")
    for read in (lambda: list(read_manifest(f"{path}.part-0-of-1")), lambda: merge_manifests(path, 1)):
        with pytest.raises(FluxRecordError, match=r"Line 1 of .*part-0-of-1"):
            read()
    assert not path.exists()


def test_a_manifest_path_that_is_a_folder_is_refused(emulator: Emulator, instance: BatchTaskInstance) -> None:
    instance.options["manifest_path"] = str(instance.folder)
    with pytest.raises(FluxInputError, match=r"is a folder. Nothing was sent"):
        instance.execute()
    assert emulator.posts == 0


def test_an_output_path_that_is_a_file_is_refused(emulator: Emulator, instance: BatchTaskInstance) -> None:
    (instance.folder / "pictures").write_text("")
    instance.options["output_path"] = str(instance.folder / "pictures" / "today")
    with pytest.raises(FluxInputError, match=r"pictures is no folder. Nothing was sent"):
        instance.execute()
    assert emulator.posts == 0


def test_a_folder_that_may_not_be_written_is_refused(
    emulator: Emulator, instance: BatchTaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tests may run as root, who may write anywhere.
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(FluxStorageError, match=r"may not write into .*Nothing was sent"):
        instance.execute()
    assert emulator.posts == 0


def test_a_bucket_that_is_gone_is_told_before_anything_is_sent(
    emulator: Emulator, instance: BatchTaskInstance, s3: Store
) -> None:
    instance.options["output_path"] = s3.url.replace("pictures", "no-such-bucket")
    with pytest.raises(FluxStorageError, match=r"no-such-bucket.*could not be"):
        instance.execute()
    assert emulator.posts == 0


class Disk:
    """A disk that is full for a while."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full_for: Callable[[Path], bool] = lambda _: False
        write = line_files._write

        def write_if_there_is_room(file: Path, lines: Iterable[str], **options: Any) -> None:
            if self.is_full_for(file):
                file.write_text("half")
                raise OSError(errno.ENOSPC, "No space left on device", str(file))
            write(file, lines, **options)

        monkeypatch.setattr(line_files, "_write", write_if_there_is_room)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_on_a_full_disk_nothing_is_sent(emulator: Emulator, instance: BatchTaskInstance, disk: Disk) -> None:
    disk.is_full_for = lambda _: True
    with pytest.raises(FluxStorageError, match=r"manifest\.jsonl\.ledger/lease.*No space left on device"):
        instance.execute()
    assert emulator.posts == 0
    assert [path for path in instance.folder.rglob("*") if path.is_file()] == []


def test_rows_that_the_workers_temporary_folder_has_no_room_for_are_not_sent(
    emulator: Emulator, instance: BatchTaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_store, "_SCHEMA", f"{row_store._SCHEMA}PRAGMA max_page_count = 20;")
    instance.options["rows"] = [{**row, "note": "x" * 50_000, "name": "y" * 50_000} for row in table(3)]
    with pytest.raises(FluxStorageError, match="database or disk is full"):
        instance.execute()
    assert emulator.posts == 0


def test_ids_that_a_full_disk_did_not_take_are_written_once_there_is_room(
    emulator: Emulator, instance: BatchTaskInstance, disk: Disk
) -> None:
    emulator.settings(run_time=20.0)
    # From the first create on, until all that runs has been seen by the gateway.
    disk.is_full_for = lambda file: emulator.posts > 0 and ".ledger" in str(file) and not is_freed.is_set()
    is_freed = threading.Event()

    def free() -> None:
        while not emulator.gets:
            time.sleep(0.01)
        is_freed.set()
        time.sleep(0.3)
        instance.on_kill()

    freeing = threading.Thread(target=free)
    freeing.start()
    instance.options["cancel_on_kill"] = False
    with pytest.raises(FluxError):
        instance.execute()
    freeing.join()
    made = emulator.posts
    assert made >= 1
    emulator.settings(run_time=1.5)
    for prediction in emulator.predictions:
        emulator.finish(prediction.id)
    instance.retry()
    assert emulator.posts == emulator.accepted == 3
    assert instance.statuses() == ["succeeded"] * 3


def test_a_ledger_that_cannot_be_written_stops_the_batch_before_the_create(
    emulator: Emulator, instance: BatchTaskInstance, disk: Disk
) -> None:
    disk.is_full_for = lambda file: (
        ".ledger" in str(file) and not file.name.startswith("lease") and leases(instance) > 0
    )
    with pytest.raises((FluxLedgerError, FluxStorageError), match="No space left on device"):
        instance.execute()
    assert emulator.posts == 0
    disk.is_full_for = lambda _: False
    instance.retry()
    assert emulator.posts == emulator.accepted == 3


def leases(instance: BatchTaskInstance) -> int:
    return len(list((instance.folder / "manifest.jsonl.ledger").glob("lease-*")))


def test_a_manifest_that_cannot_be_written_is_written_by_the_next_try_for_nothing(
    emulator: Emulator, instance: BatchTaskInstance, disk: Disk
) -> None:
    disk.is_full_for = lambda file: file.parent == instance.folder
    with pytest.raises(FluxStorageError, match=r"manifest\.jsonl could not be written.*What is paid for"):
        instance.execute()
    assert emulator.posts == 3
    assert list(instance.folder.glob(".*.part")) == []
    disk.is_full_for = lambda _: False
    instance.retry()
    assert emulator.posts == emulator.accepted == 3
    assert instance.statuses() == ["succeeded"] * 3


def test_pictures_that_a_full_disk_did_not_take_are_stored_by_the_next_try_for_nothing(
    emulator: Emulator, instance: BatchTaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_a_full_disk(path: Path) -> BinaryIO:
        path.touch()
        return Path("/dev/full").open("r+b")

    with monkeypatch.context() as patched:
        patched.setattr(storing, "_create", on_a_full_disk)
        with pytest.raises(FluxBatchError, match=r"No space left on device.*paid for"):
            instance.execute()
    assert emulator.posts == 3
    assert list(instance.folder.glob(".*.part")) == []
    instance.retry()
    assert emulator.posts == emulator.accepted == 3
    assert instance.statuses() == ["succeeded"] * 3


def test_a_storage_that_hangs_does_not_hold_up_a_batch_that_has_ended(
    instance: BatchTaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT", 0.02)
    monkeypatch.setattr(lease, "RELEASE_PATIENCE", 0.2)
    hangs = threading.Event()
    beat = lease.LeaseFile._write

    def hang_in_a_heartbeat(file: lease.LeaseFile) -> None:
        if threading.current_thread().name == "flux-lease":
            hangs.wait(30)
        beat(file)

    monkeypatch.setattr(lease.LeaseFile, "_write", hang_in_a_heartbeat)
    instance.execute()
    assert instance.statuses() == ["succeeded"] * 3
    (written,) = (instance.folder / "manifest.jsonl.ledger").glob("lease-*")
    assert '"released": false' in written.read_text()
    hangs.set()
