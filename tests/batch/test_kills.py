"""A worker that is killed with SIGKILL at any moment, in a real process: no row is paid for twice, and none is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_flux.batch.resources import CREATES_AT_ONCE
from airflow_provider_flux.emulator import Emulator
from tests.batch.task_instance import SCHNELL, read_lines, table, write_table
from tests.conftest import KEY
from tests.inputs.pictures import picture

pytestmark = pytest.mark.kills


class Workers:
    """Runs tries, one at a time, each in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def begin(self, settings: dict[str, Any]) -> int:
        """Begin a try, and return the id of its process."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(settings)}\n")
        self._process.stdin.flush()
        return self._read()

    def wait(self) -> int:
        """Return how the try ended."""
        return self._read()

    def _read(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    command = [sys.executable, "-m", "tests.batch.worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Workers(process)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(key=KEY, run_time=0.3, small_pictures=True) as running:
        yield running


class KilledBatch:
    """A batch whose worker is killed again and again."""

    def __init__(
        self, workers: Workers, emulator: Emulator, folder: Path, *, rows: int, gateway: str, **options: Any
    ) -> None:
        self.pictures = folder / "pictures"
        self._workers = workers
        self._emulator = emulator
        self._tries = 0
        self._options = {
            "rows": write_table(folder / "table.jsonl", table(rows)),
            "key": "sku",
            "model": SCHNELL,
            "prompt": "A studio photo of {{ row.name }}",
            "output_path": str(self.pictures),
            "poll_interval": 0.1,
            "max_in_flight": 40,
            **options,
        }
        extra = {"gateway": gateway, "requests_per_minute": 1e6}
        self._connection = {"conn_type": "flux", "host": emulator.url, "password": KEY, "extra": extra}

    def end_after(self, seconds: float, how: signal.Signals = signal.SIGKILL) -> int:
        """Begin a try and send it a signal. Return how it ended."""
        worker = self._begin()
        time.sleep(seconds)
        os.kill(worker, how)
        return self._workers.wait()

    def end_after_creates(self, count: int, seconds: float) -> int:
        """Begin a try and kill it some seconds after so many more creates have come. Return how it ended."""
        wanted = self._emulator.posts + count
        worker = self._begin()
        gives_up = time.monotonic() + 60
        while self._emulator.posts < wanted and time.monotonic() < gives_up:
            time.sleep(0.005)
        time.sleep(seconds)
        os.kill(worker, signal.SIGKILL)
        return self._workers.wait()

    def die_at(self, step: str, number: int, moment: str) -> int:
        """Begin a try that kills itself at a step of its ledger. Return how it ended."""
        self._begin({"step": step, "number": number, "moment": moment})
        return self._workers.wait()

    def finish(self) -> list[dict[str, Any]]:
        """Run a try to its end, and return the manifest."""
        self._begin()
        assert self._workers.wait() == 0
        return self.manifest()

    def manifest(self) -> list[dict[str, Any]]:
        return read_lines(self.pictures / "manifest.jsonl")

    def _begin(self, dies_at: dict[str, Any] | None = None) -> int:
        self._tries += 1
        settings = {"options": self._options, "connection": self._connection, "try_number": self._tries}
        return self._workers.begin({**settings, "dies_at": dies_at})


def cut_off(emulator: Emulator, manifest: list[dict[str, Any]]) -> int:
    """Return how many predictions were made whose answer died with a worker."""
    ours = {listed["prediction_id"] for listed in manifest}
    return sum(prediction.id not in ours for prediction in emulator.predictions)


def check_pictures(manifest: list[dict[str, Any]], rows: int) -> None:
    assert [listed["key"] for listed in manifest] == [row["sku"] for row in table(rows)]
    assert {listed["status"] for listed in manifest} == {"succeeded"}
    assert all(Path(listed["path"]).is_file() for listed in manifest)
    assert len({listed["path"] for listed in manifest}) == rows


@dataclass(frozen=True)
class Ordeal:
    """How often a worker is killed, long before it could be done.

    :param in_flight: predictions at a time; few enough that all the tries that are killed cannot begin every row.
    """

    rows: int
    kills: int
    in_flight: int

    def moments(self, seed: int) -> Iterator[tuple[int, float]]:
        """Yield for each kill after how many creates it comes, and how many seconds later."""
        chance = random.Random(seed)
        for _ in range(self.kills):
            yield chance.randint(0, self.rows // (4 * self.kills)), chance.uniform(0.0, 0.1)


SIZES = [
    pytest.param(Ordeal(60, 3, 10), id="60 rows, 3 kills"),
    pytest.param(Ordeal(1000, 10, 40), id="1000 rows, 10 kills", marks=pytest.mark.timeout(900)),
]


@pytest.mark.parametrize("ordeal", SIZES)
def test_where_predictions_are_listed_each_row_is_paid_for_once(
    workers: Workers, emulator: Emulator, tmp_path: Path, ordeal: Ordeal
) -> None:
    batch = KilledBatch(
        workers, emulator, tmp_path, rows=ordeal.rows, gateway="replicate", max_in_flight=ordeal.in_flight
    )

    for creates, seconds in ordeal.moments(seed=1):
        assert batch.end_after_creates(creates, seconds) == -signal.SIGKILL
    check_pictures(batch.finish(), ordeal.rows)

    assert emulator.accepted == ordeal.rows
    assert emulator.posts == ordeal.rows


def test_so_is_each_row_with_a_photo_and_no_picture_is_of_another_ones(
    workers: Workers, emulator: Emulator, tmp_path: Path
) -> None:
    # One prompt for all, so that only the photos tell the rows apart.
    rows = [{**row, "photo": str(tmp_path / f"{row['sku']}.png")} for row in table(60)]
    batch = KilledBatch(
        workers,
        emulator,
        tmp_path,
        rows=60,
        gateway="replicate",
        max_in_flight=10,
        model="black-forest-labs/flux-kontext-pro",
        prompt="on a white background",
        input={"input_image": "{{ row.photo }}"},
        input_transfer="upload",
    )
    write_table(tmp_path / "table.jsonl", rows)
    for side, row in enumerate(rows, 64):
        Path(row["photo"]).write_bytes(picture(side=side))

    for creates, seconds in Ordeal(60, 4, 10).moments(seed=3):
        assert batch.end_after_creates(creates, seconds) == -signal.SIGKILL
    manifest = batch.finish()

    check_pictures(manifest, 60)
    assert emulator.posts == emulator.accepted == 60
    photos = {prediction.id: prediction.pictures[0].sha256 for prediction in emulator.predictions}
    for listed in manifest:
        assert json.loads(listed["input"])["input_image"]["sha256"] == photos[listed["prediction_id"]]


@pytest.mark.parametrize("ordeal", SIZES)
def test_where_they_are_not_only_what_was_cut_off_is_sent_again_on_request(
    workers: Workers, emulator: Emulator, tmp_path: Path, ordeal: Ordeal
) -> None:
    batch = KilledBatch(
        workers,
        emulator,
        tmp_path,
        rows=ordeal.rows,
        gateway="deerapi",
        max_in_flight=ordeal.in_flight,
        on_unknown_submission="resubmit",
    )

    for creates, seconds in ordeal.moments(seed=2):
        assert batch.end_after_creates(creates, seconds) == -signal.SIGKILL
    manifest = batch.finish()

    check_pictures(manifest, ordeal.rows)
    assert emulator.accepted == ordeal.rows + cut_off(emulator, manifest)
    # No more creates were under way than may be at a time, and each is cut off by one kill.
    assert cut_off(emulator, manifest) <= ordeal.kills * CREATES_AT_ONCE


def test_where_they_are_not_what_was_cut_off_is_told_and_not_sent_again(
    workers: Workers, emulator: Emulator, tmp_path: Path
) -> None:
    emulator.add_fault("hang_after_accept", on="create", times=3)
    batch = KilledBatch(workers, emulator, tmp_path, rows=20, gateway="deerapi")

    assert batch.end_after_creates(20, 2.0) == -signal.SIGKILL
    manifest = batch.finish()

    statuses = [listed["status"] for listed in manifest]
    assert (statuses.count("unknown"), statuses.count("succeeded")) == (3, 17)
    assert emulator.accepted == emulator.posts == 20
    for listed in manifest:
        if listed["status"] == "unknown":
            assert "resubmit" in listed["error"]


WRITES = [("write_lines", number, moment) for number in range(1, 7) for moment in ("before", "after")]
REMOVALS = [("remove", 1, moment) for moment in ("before", "after")]


def steps(chosen: list[tuple[str, int, str]]) -> list[Any]:
    return [pytest.param(step, id=f"{step[2]} {step[0]} {step[1]}") for step in chosen]


@pytest.mark.parametrize("step", steps(WRITES + REMOVALS))
def test_a_worker_that_dies_at_any_step_of_the_ledger_pays_for_nothing_twice(
    workers: Workers, emulator: Emulator, tmp_path: Path, step: tuple[str, int, str]
) -> None:
    batch = KilledBatch(workers, emulator, tmp_path, rows=6, gateway="replicate", max_in_flight=2)

    assert batch.die_at(*step) == -signal.SIGKILL
    check_pictures(batch.finish(), 6)

    assert emulator.posts == emulator.accepted == 6


@pytest.mark.parametrize("step", steps(WRITES[:8]))
def test_where_nothing_is_listed_it_loses_only_what_was_under_way(
    workers: Workers, emulator: Emulator, tmp_path: Path, step: tuple[str, int, str]
) -> None:
    batch = KilledBatch(workers, emulator, tmp_path, rows=6, gateway="deerapi", max_in_flight=2)

    assert batch.die_at(*step) == -signal.SIGKILL
    statuses = [listed["status"] for listed in batch.finish()]

    assert set(statuses) <= {"succeeded", "unknown"}
    assert statuses.count("unknown") <= 2
    assert emulator.accepted == emulator.posts <= 6
    assert statuses.count("succeeded") <= emulator.accepted


def test_a_worker_that_is_told_to_stop_cancels_what_is_in_flight_and_tells_what_is_done(
    workers: Workers, emulator: Emulator, tmp_path: Path
) -> None:
    emulator.settings(run_time=2.0)
    batch = KilledBatch(workers, emulator, tmp_path, rows=60, gateway="replicate", max_in_flight=20)

    began = time.monotonic()
    assert batch.end_after(3.0, signal.SIGTERM) == 1
    assert time.monotonic() - began < 3.0 + 5.0, "Airflow would have killed it by now"

    assert emulator.posts < 60
    assert {prediction.status for prediction in emulator.predictions} <= {"succeeded", "canceled"}
    statuses = [listed["status"] for listed in batch.manifest()]
    assert {"not_started", "in_flight"} <= set(statuses)

    canceled = sum(prediction.status == "canceled" for prediction in emulator.predictions)
    check_pictures(batch.finish(), 60)
    assert emulator.accepted == 60 + canceled
