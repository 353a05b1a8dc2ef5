"""Many single predictions under seeded faults and kills, and what became of them.

Each run is the whole course of a task: worker and triggerer are real processes that talk to an emulator over real
sockets and are killed at planned moments. Afterwards the gateway's ledger and the task's state must agree. The exit
code is 1 if any promise was broken, 0 otherwise.

    .venv/bin/python scripts/chaos.py --runs 500 --seed 1 --jobs 2
    .venv/bin/python scripts/chaos.py --only 100042
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SEEDS_PER_SERIES = 100_000
SHOWN_EVERY = 25  # runs


def main() -> int:
    """Run the series; return the exit code."""
    options = _options()
    home = Path(tempfile.mkdtemp(prefix="flux-chaos-"))
    _settle_airflow(home)
    try:
        return _run(options, home)
    finally:
        if options.keep:
            print(f"files: {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Single predictions under seeded faults and kills.")
    parser.add_argument("--runs", type=int, default=500, help="how many runs (default: 500)")
    parser.add_argument("--seed", type=int, default=1, help="which series of runs (default: 1)")
    parser.add_argument("--only", type=int, nargs="+", metavar="SEED", help="only these runs")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default: 2)")
    more = parser.add_mutually_exclusive_group()
    more.add_argument("--photos", action="store_true", help="let a picture go in with every prediction")
    more.add_argument("--fallbacks", action="store_true", help="give every prediction two other ways to be made")
    parser.add_argument("--json", type=Path, help="also write the reports to this file")
    parser.add_argument("--keep", action="store_true", help="keep the files of the last run of each job")
    parser.add_argument("--tell", action="store_true", help="print the record of every run, not only of broken ones")
    return parser.parse_args()


def _settle_airflow(home: Path) -> None:
    """Make the settings that must stand before Airflow is imported."""
    os.environ.update(
        AIRFLOW_HOME=str(home),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__CORE__UNIT_TEST_MODE="True",
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{home}/airflow.db",
        NO_PROXY="127.0.0.1,localhost",
        no_proxy="127.0.0.1,localhost",
    )
    sys.path.insert(0, str(ROOT))


def _run(options: argparse.Namespace, home: Path) -> int:
    from tests.chaos.runs import Report, all_in
    from tests.chaos.table import coverage, table, verdict

    seeds = options.only or [options.seed * SEEDS_PER_SERIES + number for number in range(options.runs)]
    reports: list[Report] = []
    started = time.monotonic()
    kind = {"photos": options.photos, "fallbacks": options.fallbacks}
    with all_in(home / "runs", seeds, min(options.jobs, len(seeds)), **kind) as coming:
        for report in coming:
            reports.append(report)
            if report.problems or options.tell:
                flags = "".join(f" --{name}" for name, is_set in kind.items() if is_set)
                _show(report.seed, report.problems, report.record, flags)
            if len(reports) % SHOWN_EVERY == 0:
                broken = sum(bool(report.problems) for report in reports)
                seconds = time.monotonic() - started
                print(f"{len(reports)} of {len(seeds)} runs, {broken} broken, after {seconds:.0f} s", flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(report) for report in reports]))
    print(table(reports))
    print(coverage(reports))
    print(verdict(reports, wanted=len(seeds), seconds=time.monotonic() - started))
    return 0 if len(reports) == len(seeds) and not any(report.problems for report in reports) else 1


def _show(seed: int, problems: dict[str, list[str]], record: Iterable[str], flags: str) -> None:
    print(f"--- seed {seed}: {problems or 'fine'}")
    for line in record:
        print(f"    {line}")
    print(f"    again: .venv/bin/python scripts/chaos.py --only {seed}{flags}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
