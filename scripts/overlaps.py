"""Runs of one table that overlap, with kills and pauses at random, and what was paid.

Each round starts two to five batches on one output path, every one a real process, over an emulator and real sockets.
Some are killed, some stand still for a while, some fail instead of waiting. Afterwards one more run goes on to the end,
and every row must have been paid for once and have its picture. The exit code is 1 if any promise was broken, 0
otherwise.

    .venv/bin/python scripts/overlaps.py --rounds 200 --seed 1 --jobs 2
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

ROWS = 16
MOST_BATCHES = 5
KEY = "emulator-key-0123456789abcdef"
TIME_LIMIT = 90.0  # seconds for one round; a batch that goes on for longer hangs
LEASE = {"HEARTBEAT": 0.3, "EXPIRY": 2.5, "OBSERVATION": 1.0, "POLL_INTERVAL": 0.2, "LEASE_FRESHNESS": 0.2}
PROMISES = ("rows paid twice", "rows lost", "hangs")


@dataclass
class Round:
    """What is to happen in one round, and what came of it."""

    seed: int
    storage: str
    batches: int = 0
    kills: int = 0
    pauses: int = 0
    broken: Counter[str] = field(default_factory=Counter)
    record: list[str] = field(default_factory=list)


class Worker:
    """Runs batches, one at a time, each in a process of its own that has Airflow imported already."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.batch.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
        )
        self.name = ""
        self.batch = 0

    def begin(self, name: str, settings: dict[str, Any]) -> None:
        """Begin a batch; :attr:`batch` is the id of its process."""
        assert self._process.stdin is not None  # noqa: S101 (for the type checker)
        self._process.stdin.write(f"{json.dumps(settings)}\n")
        self._process.stdin.flush()
        self.name, self.batch = name, self._read()

    def wait(self, until: float) -> bool:
        """Wait for the batch to end; kill it if it has not by a time, and return False."""
        timer = threading.Timer(max(1.0, until - time.monotonic()), os.kill, (self.batch, signal.SIGKILL))
        timer.start()
        self._read()
        in_time = timer.is_alive()
        timer.cancel()
        return in_time

    def close(self) -> None:
        """End the process once its batch has ended."""
        self._process.communicate()

    def _read(self) -> int:
        assert self._process.stdout is not None  # noqa: S101 (for the type checker)
        return int(self._process.stdout.readline())


def main() -> int:
    """Run all rounds; return the exit code."""
    options = _options()
    home = Path(tempfile.mkdtemp(prefix="flux-overlaps-"))
    _set_up_airflow(home)
    try:
        return _run(options, home)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Runs of one table that overlap, with kills and pauses.")
    parser.add_argument("--rounds", type=int, default=200, help="how many rounds (default: 200)")
    parser.add_argument("--seed", type=int, default=1, help="which series of rounds (default: 1)")
    parser.add_argument("--only", type=int, nargs="+", metavar="SEED", help="only these rounds")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default: 2)")
    return parser.parse_args()


def _set_up_airflow(home: Path) -> None:
    os.environ.update(
        AIRFLOW_HOME=str(home),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__CORE__UNIT_TEST_MODE="True",
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{home}/airflow.db",
    )


def _run(options: argparse.Namespace, home: Path) -> int:
    started = time.monotonic()
    broken: Counter[str] = Counter()
    done: Counter[str] = Counter()
    with _s3() as bucket, ThreadPoolExecutor(options.jobs) as threads:
        seeds = options.only or [options.seed * 100_000 + number for number in range(options.rounds)]
        plans = [Round(seed, "s3" if seed % 2 else "local") for seed in seeds]
        crews = [[Worker() for _ in range(MOST_BATCHES)] for _ in range(options.jobs)]
        idle: SimpleQueue[list[Worker]] = SimpleQueue()
        for crew in crews:
            idle.put(crew)
        running = [threads.submit(_play, plan, home, bucket, idle) for plan in plans]
        for number, future in enumerate(as_completed(running), start=1):
            played = future.result()
            broken += played.broken
            done.update({"batches": played.batches, "kills": played.kills, "pauses": played.pauses})
            for line in played.record if played.broken else ():
                print(f"  seed {played.seed} ({played.storage}): {line}")
            if number % 10 == 0 or number == len(plans):
                rate = number / (time.monotonic() - started)
                left = (len(plans) - number) / rate
                print(f"{number} of {len(plans)} rounds, {sum(broken.values())} broken promises, {left:.0f} s left")
                sys.stdout.flush()
        for worker in chain.from_iterable(crews):
            worker.close()
    print(f"{len(plans)} rounds in {time.monotonic() - started:.0f} s: {dict(done)}")
    for promise in PROMISES:
        print(f"  {promise:16} {broken[promise]}")
    return 1 if broken else 0


@contextmanager
def _s3() -> Iterator[str]:
    """Serve an S3 on this machine, and yield a bucket's address."""
    import boto3  # type: ignore[import-untyped]
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        extra = json.dumps({"endpoint_url": url, "region_name": "us-east-1"})
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        boto3.client("s3", endpoint_url=url, **keys).create_bucket(Bucket="pictures")
        os.environ["AIRFLOW_CONN_STORE"] = json.dumps(
            {"conn_type": "aws", "login": "test", "password": "test", "extra": extra}
        )
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        yield "s3://store@pictures"
    finally:
        server.stop()


def _play(plan: Round, home: Path, bucket: str, idle: SimpleQueue[list[Worker]]) -> Round:
    from airflow_provider_flux.emulator import Emulator

    workers = idle.get()
    chance = random.Random(plan.seed)  # noqa: S311 (play, not cryptography)
    place = home / str(plan.seed)
    place.mkdir()
    table = place / "table.jsonl"
    table.write_text("".join(json.dumps({"sku": f"s{row}", "name": f"thing {row}"}) + "\n" for row in range(ROWS)))
    output = str(place / "pictures") if plan.storage == "local" else f"{bucket}/{plan.seed}"
    with Emulator(key=KEY, run_time=0.2, small_pictures=True) as emulator:
        settings = {
            "options": {
                "rows": str(table),
                "key": "sku",
                "model": "black-forest-labs/flux-schnell",
                "prompt": "A studio photo of {{ row.name }}",
                "output_path": output,
                "poll_interval": 0.1,
                "max_in_flight": chance.choice([2, 6, 20]),
            },
            "connection": {
                "conn_type": "flux",
                "host": emulator.url,
                "password": KEY,
                "extra": {"gateway": "replicate", "requests_per_minute": 1e6},
            },
            "lease": LEASE,
            "dies_at": None,
        }
        _overlap(plan, chance, workers, settings)
        workers[0].begin("last", {**settings, "run_id": "last", "try_number": 1})
        if not workers[0].wait(time.monotonic() + TIME_LIMIT):
            plan.broken["hangs"] += 1
            plan.record.append("the last run hangs")
        _count(plan, emulator, output)
    shutil.rmtree(place)
    idle.put(workers)
    return plan


def _overlap(plan: Round, chance: random.Random, workers: list[Worker], settings: dict[str, Any]) -> None:
    """Start some batches, kill some of them, let some stand still, and wait for those that live."""
    plan.batches = chance.randint(2, MOST_BATCHES)
    batches = workers[: plan.batches]
    for number, worker in enumerate(batches):
        is_retry = number > 0 and chance.random() < 0.2
        run_id, try_number = ("run-0", number + 1) if is_retry else (f"run-{number}", 1)
        on_overlap = "fail" if chance.random() < 0.2 else "wait"
        options = {**settings["options"], "on_overlap": on_overlap}
        about = {"run_id": run_id, "try_number": try_number, "options": options}
        worker.begin(f"{run_id}/{try_number} ({on_overlap})", {**settings, **about})
        time.sleep(chance.choice([0.0, 0.0, 0.3]))
    acts: list[tuple[float, signal.Signals, Worker]] = []
    for worker in batches:
        moment = chance.uniform(0.2, 3.0)
        what = chance.random()
        if what < 0.3:
            acts.append((moment, signal.SIGKILL, worker))
            plan.kills += 1
        elif what < 0.6:
            acts.append((moment, signal.SIGSTOP, worker))
            acts.append((moment + chance.uniform(0.5, 5.0), signal.SIGCONT, worker))
            plan.pauses += 1
    started = time.monotonic()
    for moment, what_comes, worker in sorted(acts, key=lambda act: act[0]):
        time.sleep(max(0.0, started + moment - time.monotonic()))
        plan.record.append(f"{moment:.2f} s: {what_comes.name} to {worker.name}")
        try:
            os.kill(worker.batch, what_comes)
        except ProcessLookupError:
            continue
    ends_at = time.monotonic() + TIME_LIMIT
    for worker in batches:
        if not worker.wait(ends_at):
            plan.broken["hangs"] += 1
            plan.record.append(f"{worker.name} hangs")


def _count(plan: Round, emulator: Any, output: str) -> None:
    from airflow_provider_flux.batch.manifest import read_manifest

    paid = Counter(prediction.input["prompt"] for prediction in emulator.predictions)
    for prompt, times in paid.items():
        if times > 1:
            plan.broken["rows paid twice"] += 1
            plan.record.append(f"{prompt!r} was paid for {times} times")
    listed = list(read_manifest(f"{output}/manifest.jsonl"))
    with_pictures = {line["key"] for line in listed if line["status"] in ("succeeded", "kept")}
    lost = ROWS - len(with_pictures)
    if lost:
        plan.broken["rows lost"] += lost
        plan.record.append(f"the manifest lacks {lost} pictures: {Counter(line['status'] for line in listed)}")


if __name__ == "__main__":
    sys.exit(main())
