"""Runs that overlap: who works on a manifest, who waits for whom, and whose it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from airflow_provider_flux.batch import lease as lease_module
from airflow_provider_flux.batch import line_files
from airflow_provider_flux.batch.lease import EXPIRY, OBSERVATION, Lease, LeaseFile, has_expired
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import FluxLeaseLostError, FluxManifestOwnerError, FluxOverlapError
from tests.batch.task_instance import BatchTaskInstance, table
from tests.conftest import Connect
from tests.outputs.conftest import Store


class Lines:
    """A log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str, /, *args: object) -> None:
        self.lines.append(message % args)

    warning = info


def lease(run_id: str = "run-1", *, task_id: str = "make", try_number: int = 1, map_index: int = -1) -> Lease:
    return Lease(dag_id="dag", task_id=task_id, run_id=run_id, map_index=map_index, try_number=try_number)


class Contender:
    """A batch that asks for the lease, with a clock of its own.

    :param folder: the ledger's folder.
    """

    def __init__(self, folder: str, wanted: Lease) -> None:
        self.now = 1_000_000.0
        self.log = Lines()
        self.while_waiting: Callable[[], object] = lambda: None
        self.file = LeaseFile(
            folder,
            wanted,
            f"{folder}/manifest.jsonl",
            self.log,
            clock=lambda: self.now,
            monotonic=lambda: self.now,
            sleep=self._sleep,
        )

    def acquire(self, *, waits: bool = True, adopts: bool = False, within: float = 3600.0) -> bool:
        until = self.now + within
        return self.file.acquire(waits=waits, adopts=adopts, is_stopped=lambda: self.now > until)

    def may_send(self) -> bool:
        """Look once more, as a batch does before each create whose last look is a while ago."""
        try:
            self.file.verify()
        except FluxLeaseLostError:
            return False
        return True

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        self.while_waiting()


class Holder:
    """A batch that holds the lease and gives signs of instance, in a process of its own."""

    def __init__(self, folder: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.batch.holder", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert self.answer() == "held"

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def verify(self) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.answer()

    def send(self, what: signal.Signals) -> None:
        os.kill(self.process.pid, what)


class Place(NamedTuple):
    """A ledger's folder, and whether its storage creates files exclusively."""

    folder: str
    is_exclusive: bool


def check_that_one_works(contenders: list[Contender], began: Iterable[bool], *, is_exclusive: bool) -> None:
    """Of those that have begun exactly one may send.

    Where files cannot be created exclusively, one that stood still for longer than the pause may have begun as well: it
    or the other one finds out at its next look.
    """
    holders = [contender for contender, has_begun in zip(contenders, began, strict=True) if has_begun]
    assert sum(holder.may_send() for holder in holders) == 1
    if is_exclusive:
        assert len(holders) == 1


def overwrite_in_spite_of_the_condition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make S3 what some others that speak it are: they take ``If-None-Match`` and overwrite all the same."""
    from s3fs import S3FileSystem  # type: ignore[import-untyped]

    call = S3FileSystem._call_s3

    async def call_without(filesystem: Any, method: str, *arguments: Any, **options: Any) -> Any:
        options.pop("IfNoneMatch", None)
        return await call(filesystem, method, *arguments, **options)

    monkeypatch.setattr(S3FileSystem, "_call_s3", call_without)


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.getfixturevalue('s3').url}/ledger" if request.param == "s3" else str(tmp_path / "ledger")


@pytest.fixture(params=["local", "creates exclusively", "cannot create exclusively", "overwrites all the same"])
def contended(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A folder of a storage of each kind, for the tests in which the kind matters."""
    if request.param == "local":
        return Place(str(tmp_path / "ledger"), is_exclusive=True)
    store: Store = request.getfixturevalue("s3")
    monkeypatch.setattr(line_files, "SETTLING", 0.5)
    if request.param == "cannot create exclusively":
        monkeypatch.setattr(line_files, "_exclusively", lambda filesystem: {})
    elif request.param == "overwrites all the same":
        overwrite_in_spite_of_the_condition(monkeypatch)
    return Place(f"{store.url}/ledger", is_exclusive=request.param == "creates exclusively")


@pytest.mark.parametrize(("count", "rounds"), [(2, 3), (10, 1)])
def test_of_several_that_start_together_exactly_one_works(contended: Place, count: int, rounds: int) -> None:
    for round_number in range(rounds):
        place = f"{contended.folder}-{round_number}"
        contenders = [Contender(place, lease(f"run-{number}")) for number in range(count)]
        barrier = threading.Barrier(count)

        def start(contender: Contender, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            try:
                return contender.acquire(waits=False)
            except FluxOverlapError:
                return False

        with ThreadPoolExecutor(count) as threads:
            began = list(threads.map(start, contenders))
        check_that_one_works(contenders, began, is_exclusive=contended.is_exclusive)


def test_of_several_that_take_over_from_a_dead_one_exactly_one_does(contended: Place) -> None:
    assert Contender(contended.folder, lease("dead")).acquire()
    contenders = [Contender(contended.folder, lease(f"run-{number}")) for number in range(5)]
    barrier = threading.Barrier(5)

    def take_over(contender: Contender) -> bool:
        # All of them have seen it expire; with clocks of their own they would not do so at once.
        barrier.wait()
        return contender.file._create(2)

    with ThreadPoolExecutor(5) as threads:
        began = list(threads.map(take_over, contenders))
    check_that_one_works(contenders, began, is_exclusive=contended.is_exclusive)


class LikeAzure:
    """Names ``overwrite``, as adlfs does."""

    def pipe_file(self, path: str, value: bytes, overwrite: bool = True, **options: Any) -> None:
        raise NotImplementedError


def test_each_storage_is_asked_for_an_exclusive_create_in_its_own_way() -> None:
    from fsspec import AbstractFileSystem
    from s3fs import S3FileSystem

    assert line_files._exclusively(S3FileSystem(anon=True)) == {"mode": "create"}
    assert line_files._exclusively(LikeAzure()) == {"overwrite": False}
    assert line_files._exclusively(AbstractFileSystem()) == {}, "fsspec's own looks first and then writes"


def test_a_released_lease_is_had_at_once(folder: str) -> None:
    first, second = Contender(folder, lease("run-1")), Contender(folder, lease("run-2"))
    assert first.acquire()
    first.file.release()
    started = second.now
    assert second.acquire()
    assert second.now == started


def test_a_try_takes_over_the_lease_of_an_earlier_try_of_the_same_task_instance_at_once(folder: str) -> None:
    first, second = Contender(folder, lease(try_number=1)), Contender(folder, lease(try_number=2))
    assert first.acquire()
    started = second.now
    assert second.acquire()
    assert second.now == started
    with pytest.raises(FluxLeaseLostError, match="submits nothing more"):
        first.file.verify()
    second.file.verify()


def test_an_earlier_try_does_not_take_the_lease_from_a_later_one(folder: str) -> None:
    later = Contender(folder, lease(try_number=2))
    assert later.acquire()
    with pytest.raises(FluxOverlapError, match="try 2"):
        Contender(folder, lease(try_number=1)).acquire(waits=False)
    later.file.verify()


def test_of_two_that_have_written_the_same_lease_at_most_one_works(contended: Place) -> None:
    first, second = Contender(contended.folder, lease("run-1")), Contender(contended.folder, lease("run-2"))
    assert first.acquire()
    # It had looked before the other's file was there, and stood still until now.
    second.file._number = 1
    second.file._write()
    with pytest.raises(FluxLeaseLostError, match="run-2"):
        first.file.verify()
    second.file.verify()


def test_a_lease_that_is_renewed_while_it_is_read_holds_nobody_up(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Contender(folder, lease("run-1")), Contender(folder, lease("run-2"))
    assert first.acquire()

    def list_and_renew(folder: str) -> list[str]:
        names = line_files.list_names(folder)
        first.file._lease = lease_module.replace(first.file._lease, alive_at=first.file._lease.alive_at + 0.25)
        first.file._write()
        return names

    monkeypatch.setattr(lease_module, "list_names", list_and_renew)
    assert not second.acquire(within=20)
    first.file.verify()


def test_mapped_task_instances_are_not_the_same(folder: str) -> None:
    assert Contender(folder, lease(map_index=0)).acquire()
    with pytest.raises(FluxOverlapError):
        Contender(folder, lease(map_index=1)).acquire(waits=False)


def test_the_one_that_waits_says_for_whom_every_minute(folder: str) -> None:
    first, second = Contender(folder, lease("run-1")), Contender(folder, lease("run-2"))
    assert first.acquire()

    def live() -> None:
        first.now = second.now
        first.file._lease = lease_module.replace(first.file._lease, alive_at=first.now)
        first.file._write()

    second.while_waiting = live
    assert not second.acquire(within=185)
    assert len(second.log.lines) == 4
    assert all("DAG 'dag', task 'make', run 'run-1', try 1" in line for line in second.log.lines)
    first.file.verify()


def test_a_holder_without_a_sign_of_life_for_two_minutes_is_taken_over_and_finds_out(folder: str) -> None:
    first, second = Contender(folder, lease("run-1")), Contender(folder, lease("run-2"))
    assert first.acquire()
    started = second.now
    assert second.acquire(within=EXPIRY + 30)
    assert second.now - started >= EXPIRY
    with pytest.raises(FluxLeaseLostError):
        first.file.verify()
    assert first.file.is_lost


def test_a_look_counts_from_when_it_began_since_the_worker_may_have_stood_still_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = Contender(str(tmp_path), lease())
    assert holder.acquire()

    def list_and_stand_still(folder: str) -> list[str]:
        names = line_files.list_names(folder)
        holder.now += 10.0
        return names

    monkeypatch.setattr(lease_module, "list_names", list_and_stand_still)
    holder.file.verify()
    assert not holder.file.was_verified_within(5.0)


@pytest.mark.parametrize("clock", ["_clock", "_monotonic"])
def test_a_look_is_old_once_one_clock_says_so_since_one_of_them_may_have_stood_still(
    tmp_path: Path, clock: str
) -> None:
    holder = Contender(str(tmp_path), lease())
    assert holder.acquire()
    assert holder.file.was_verified_within(5.0)
    setattr(holder.file, clock, lambda: holder.now + 600.0)
    assert not holder.file.was_verified_within(5.0)
    setattr(holder.file, clock, lambda: holder.now - 600.0)
    assert not holder.file.was_verified_within(5.0)


def wait_until(happens: Callable[[], object]) -> None:
    until = time.monotonic() + 20
    while not happens():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def quick_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "HEARTBEAT", 0.02)


def signs_of_life(holder: Contender) -> float:
    written = Lease.from_text(line_files.read_text(holder.file._path(1)))
    return written.alive_at if written else 0.0


@pytest.mark.usefixtures("quick_heartbeat")
def test_the_heartbeat_renews_the_lease_until_it_is_released(folder: str) -> None:
    holder = Contender(folder, lease())
    assert holder.acquire()
    holder.file.start_heartbeat()
    for _ in range(2):
        holder.now += 15
        wait_until(lambda: signs_of_life(holder) == holder.now)
    holder.file.release()
    holder.now += 15
    time.sleep(0.1)
    assert signs_of_life(holder) == holder.now - 15


@pytest.mark.usefixtures("quick_heartbeat")
def test_the_heartbeat_outlives_storage_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = Contender(str(tmp_path), lease())
    assert holder.acquire()
    failing = True

    def list_if_it_works(folder: str) -> list[str]:
        if failing:
            raise OSError("503 Slow Down")
        return line_files.list_names(folder)

    monkeypatch.setattr(lease_module, "list_names", list_if_it_works)
    holder.now += 10
    holder.file.start_heartbeat()
    wait_until(lambda: len(holder.log.lines) > 2)
    assert "503 Slow Down" in holder.log.lines[0]
    assert not holder.file.was_verified_within(5.0)
    with pytest.raises(OSError, match="503"):
        holder.file.verify()
    failing = False
    wait_until(lambda: holder.file.was_verified_within(5.0))
    assert not holder.file.is_lost
    holder.file.release()


@pytest.mark.usefixtures("quick_heartbeat")
def test_the_heartbeat_of_a_lost_lease_ends_and_leaves_the_new_one_alone(folder: str) -> None:
    first, second = Contender(folder, lease(try_number=1)), Contender(folder, lease(try_number=2))
    assert first.acquire()
    first.file.start_heartbeat()
    assert second.acquire()
    thread = first.file._heartbeat
    assert thread is not None
    wait_until(lambda: not thread.is_alive())
    assert first.file.is_lost
    first.file.release()
    second.file.verify()


def test_a_lease_that_cannot_be_released_is_no_reason_to_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = Contender(str(tmp_path), lease())
    assert holder.acquire()

    def fail(path: str, lines: Any) -> None:
        raise OSError("503 Slow Down")

    monkeypatch.setattr(lease_module, "write_lines", fail)
    holder.file.release()
    assert "the next batch waits for 120 s" in holder.log.lines[0]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_is_killed_or_stands_still_is_taken_over_and_submits_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: signal.Signals
) -> None:
    for name, seconds in {"EXPIRY": 2.0, "OBSERVATION": 1.0, "POLL_INTERVAL": 0.1}.items():
        monkeypatch.setattr(lease_module, name, seconds)
    holder = Holder(str(tmp_path))
    second = LeaseFile(str(tmp_path), lease("run-2"), "manifest.jsonl", Lines())
    try:
        until = time.monotonic() + 3
        assert not second.acquire(waits=True, adopts=False, is_stopped=lambda: time.monotonic() > until)
        assert holder.verify() == "still held"
        holder.send(end)
        assert second.acquire(waits=True, adopts=False, is_stopped=lambda: time.monotonic() > until + 20)
        if end == signal.SIGSTOP:
            holder.send(signal.SIGCONT)
            assert holder.verify().startswith("lost: DAG 'dag', task 'make', run 'run-2', try 1")
        second.verify()
    finally:
        holder.process.kill()
        holder.process.communicate()


@pytest.mark.parametrize(
    "content", ['{"dag_id": "da', "[]", json.dumps({**json.loads(lease().as_text()), "alive_at": None})]
)
def test_a_torn_lease_file_holds_nobody_up_for_ever(folder: str, content: str) -> None:
    line_files.write_lines(f"{folder}/lease-0000000001.json", [content])
    contender = Contender(folder, lease())
    started = contender.now
    assert contender.acquire(within=EXPIRY + 30)
    assert contender.now - started >= EXPIRY


def test_fields_that_a_later_version_has_added_are_left_out() -> None:
    known = lease()
    assert Lease.from_text(json.dumps({**json.loads(known.as_text()), "colour": "blue"})) == known


def test_another_tasks_manifest_is_refused_and_may_be_adopted(folder: str) -> None:
    first = Contender(folder, lease(task_id="before"))
    assert first.acquire()
    first.file.release()
    with pytest.raises(FluxManifestOwnerError, match=r"'before'.*'make'.*adopt_manifest=True"):
        Contender(folder, lease()).acquire()
    adopting = Contender(folder, lease())
    assert adopting.acquire(adopts=True)
    adopting.file.release()
    assert Contender(folder, lease("run-2")).acquire()


@pytest.mark.parametrize(
    ("unchanged_for", "silent_for", "expired"),
    [
        (EXPIRY, 0.0, True),
        (EXPIRY, None, True),
        (OBSERVATION, EXPIRY + 1, True),
        (OBSERVATION, EXPIRY - 1, False),
        (OBSERVATION, -3600.0, False),
        (OBSERVATION, None, False),
        (OBSERVATION - 1, 3600.0, False),
    ],
)
def test_when_a_holder_is_taken_for_dead(unchanged_for: float, silent_for: float | None, expired: bool) -> None:
    now = 5000.0
    seen = None if silent_for is None else lease_module.replace(lease(), alive_at=now - silent_for)
    assert has_expired(seen, unchanged_for=unchanged_for, now=now) is expired


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "POLL_INTERVAL", 0.1)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("count", [2, 5])
def test_runs_of_one_table_at_a_time_pay_for_each_row_once(
    emulator: Emulator, connect: Connect, tmp_path: Path, count: int
) -> None:
    """two runs of one table at a time"""
    connect(emulator.url, gateway="deerapi")
    lives = [BatchTaskInstance(tmp_path, rows=table(40)) for _ in range(count)]
    for number, instance in enumerate(lives):
        instance.run_id = f"run-{number}"
    with ThreadPoolExecutor(count) as threads:
        for done in [threads.submit(instance.execute) for instance in lives]:
            done.result()
    assert (emulator.posts, emulator.accepted) == (40, 40)
    assert len(lives[0].manifest()) == 40
    assert sum(instance.totals["succeeded"] for instance in lives) == 40


@pytest.mark.usefixtures("quick")
def test_a_run_that_is_not_to_wait_fails_before_anything_is_sent(
    emulator: Emulator, connect: Connect, tmp_path: Path
) -> None:
    """two runs of one table at a time"""
    connect(emulator.url, gateway="deerapi")
    holder = Contender(str(tmp_path / "manifest.jsonl.ledger"), lease("run-0"))
    assert holder.acquire()
    with pytest.raises(FluxOverlapError, match="Nothing was sent"):
        BatchTaskInstance(tmp_path, rows=table(2), on_overlap="fail").execute()
    assert emulator.posts == 0


def test_another_task_with_the_same_output_path_is_refused(
    emulator: Emulator, connect: Connect, tmp_path: Path
) -> None:
    """another task's manifest, or an input that would be overwritten"""
    connect(emulator.url, gateway="deerapi")
    instance = BatchTaskInstance(tmp_path, rows=table(3))
    instance.execute()
    other = BatchTaskInstance(tmp_path, rows=table(3))
    other.task_id = "other"
    with pytest.raises(FluxManifestOwnerError):
        other.execute()
    assert emulator.posts == 3
    other.options["manifest_path"] = str(tmp_path / "other.jsonl")
    other.execute()
    instance.next_run()
    assert [line["status"] for line in instance.manifest()] == ["kept"] * 3


@pytest.mark.usefixtures("quick")
def test_a_batch_that_lost_its_lease_submits_nothing_more_and_leaves_the_manifest_alone(
    emulator: Emulator, connect: Connect, tmp_path: Path
) -> None:
    """two runs of one table at a time"""
    connect(emulator.url, gateway="deerapi")
    first = BatchTaskInstance(tmp_path, rows=table(60), max_in_flight=2)
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(first.execute())
        except FluxLeaseLostError as lost:
            outcome.append(lost)

    thread = threading.Thread(target=run)
    thread.start()
    while emulator.posts < 5:
        time.sleep(0.01)
    second = BatchTaskInstance(tmp_path, rows=table(60))
    second.try_number = 2
    second.execute()
    thread.join()
    assert isinstance(outcome[0], FluxLeaseLostError)
    assert emulator.accepted <= 60 + 2
    unknown = [line for line in second.manifest() if line["status"] == "unknown"]
    made = {prediction.input["prompt"] for prediction in emulator.predictions}
    assert len(made) == emulator.accepted, "a row was paid for twice"
    assert len(second.manifest()) == 60
    assert len(unknown) <= 2
