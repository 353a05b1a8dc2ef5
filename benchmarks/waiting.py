"""`waiting`: many pending predictions in one event loop, for this provider, for its peers and for the bare floor."""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import certifi
import plots
import results
from adapters import ADAPTERS, LABELS, connections

from processes import LOOPBACK, environment_for_loopback, termination_as_exit
from tests.certificates import make_certificates

FOLDER = Path(__file__).parent
NULL, FLOOR, OURS, FITTED = "nothing", "floor", "provider", "provider-fitted"
INTERVAL = 5.0
LIMIT = 90.0
"""Seconds after which a run is ended; the slowest prediction is over after 19."""
SEED = 20261122
PLAN = [
    # who, how many predictions, how often
    ((NULL, FLOOR, OURS, FITTED), (1_000, 5_000, 10_000), 3),
    (("http-sensor", "dbt-cloud"), (1_000, 5_000, 10_000), 1),
    (("replicate",), (1_000,), 1),
]
QUICK = [((NULL, FLOOR, OURS), (1_000,), 1)]

Figures = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One run: who waits, for how many, with which seed."""

    adapter: str
    count: int
    repetition: int

    @property
    def seed(self) -> int:
        """The same for everyone in a repetition."""
        return SEED + self.repetition


def main() -> None:
    """Run every case, print the table, save."""
    options = _options()
    cases = list(_cases(options))
    print(f"{len(cases)} runs of about half a minute each, one at a time")
    runs = []
    with termination_as_exit(), tempfile.TemporaryDirectory() as folder:
        secure = _Secure.make(Path(folder))
        for number, case in enumerate(cases, 1):
            runs.append(_run(case, secure))
            print(f"[{number}/{len(cases)}] {_line(runs[-1])}", flush=True)
    table = _summary(runs)
    print()
    _print(table)
    _print_targets(table)
    results.save("waiting", {"table": table, "runs": runs}, seed=SEED, interval=INTERVAL, limit=LIMIT)
    plots.draw_waiting(table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1,000 predictions, this provider and the floor, once")
    parser.add_argument("--adapters", nargs="+", choices=ADAPTERS, help="only these, beside the null run and the floor")
    parser.add_argument("--counts", nargs="+", type=int, help="only these numbers of predictions")
    parser.add_argument("--repetitions", type=int, help="how often, instead of the usual number")
    return parser.parse_args()


def _cases(options: argparse.Namespace) -> Iterator[Case]:
    """Yield the cases one repetition after the other, each in an order of its own."""
    wanted = set(options.adapters or ADAPTERS) | {NULL, FLOOR}
    cases = [
        Case(adapter, count, repetition)
        for adapters, counts, repetitions in (QUICK if options.quick else PLAN)
        for adapter in adapters
        if adapter in wanted
        for count in counts
        if count in (options.counts or counts)
        for repetition in range(options.repetitions or repetitions)
    ]
    random.Random(SEED).shuffle(cases)
    yield from sorted(cases, key=lambda case: case.repetition)


@dataclass(frozen=True)
class _Secure:
    """The files of TLS: the gateway's certificate, and the authorities that the clients trust."""

    certificate: str
    key: str
    authorities: str

    @classmethod
    def make(cls, folder: Path) -> _Secure:
        authority, (certificate, key) = make_certificates(folder)
        # Beside all the usual ones, so that a TLS context costs what it costs elsewhere.
        bundle = folder / "bundle.pem"
        bundle.write_bytes(Path(certifi.where()).read_bytes() + authority.read_bytes())
        return cls(certificate, key, str(bundle))


def _run(case: Case, secure: _Secure) -> Figures:
    with tempfile.TemporaryDirectory() as home, _gateway(case, secure) as (port, control):
        busy = _busy_seconds()
        began = time.monotonic()
        environment = environment_for_loopback(
            connections(port)
            | dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), secure.authorities)
            | {"AIRFLOW_HOME": home, "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING", "PYTHONDONTWRITEBYTECODE": ""}
            | {"REPLICATE_POLL_INTERVAL": str(INTERVAL)}
        )
        command = [sys.executable, str(FOLDER / "client.py"), "--adapter", case.adapter, *_of_both(case)]
        command += ["--origin", f"https://{LOOPBACK}:{port}", "--control", f"http://{LOOPBACK}:{control}"]
        command += ["--interval", str(INTERVAL), "--limit", str(LIMIT)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{case} ended with code {done.returncode}\n{done.stdout}\n{done.stderr}")
        figures: Figures = json.loads(done.stdout.splitlines()[-1])
    delays = figures.pop("delays")
    return {
        "adapter": case.adapter,
        "count": case.count,
        "repetition": case.repetition,
        **figures,
        **{f"delay_p{share}": _percentile(delays, share) for share in (50, 95, 99)},
        "machine_busy": (_busy_seconds() - busy) / (time.monotonic() - began),
    }


@contextmanager
def _gateway(case: Case, secure: _Secure) -> Iterator[tuple[int, int]]:
    command = [sys.executable, str(FOLDER / "gateway.py"), *_of_both(case)]
    command += ["--certificate", secure.certificate, "--key", secure.key]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None or not (ports := process.stdout.readline()):
                raise RuntimeError("the gateway did not start")
            port, control = json.loads(ports)
            yield port, control
        finally:
            process.terminate()


def _of_both(case: Case) -> list[str]:
    return ["--count", str(case.count), "--seed", str(case.seed)]


def _percentile(ordered: Sequence[float], share: int) -> float | None:
    return ordered[min(len(ordered) - 1, len(ordered) * share // 100)] if ordered else None


def _busy_seconds() -> float:
    """Return the CPU seconds that all processes of the machine have used."""
    user, nice, system = Path("/proc/stat").read_text().split()[1:4]
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


def _summary(runs: list[Figures]) -> list[Figures]:
    """Return one row for each adapter and number of predictions: medians over the repetitions."""
    table: list[Figures] = []
    for count in sorted({run["count"] for run in runs}):
        of_count = [run for run in runs if run["count"] == count]
        idle = [run for run in of_count if run["adapter"] == NULL]
        idle_cpu = median(run["cpu"] for run in idle)
        # What the same process takes for as many tasks without any network.
        idle_memory = median(run["memory_peak"] for run in idle)
        rows = {
            adapter: _row([run for run in of_count if run["adapter"] == adapter], idle_cpu, idle_memory)
            for adapter in ADAPTERS
            if adapter != NULL and any(run["adapter"] == adapter for run in of_count)
        }
        for row in rows.values():
            row["ratio"] = row["cpu_per_1000"] / rows[FLOOR]["cpu_per_1000"]
        table += rows.values()
    return table


def _row(runs: list[Figures], idle_cpu: float, idle_memory: float) -> Figures:
    cpu = sorted((run["cpu"] - idle_cpu) / max(run["polls"], 1) * 1000 for run in runs)
    return {
        "adapter": runs[0]["adapter"],
        "count": runs[0]["count"],
        "runs": len(runs),
        "cpu_per_1000": median(cpu),
        "cpu_range": [cpu[0], cpu[-1]],
        "memory_growth": median(run["memory_peak"] for run in runs) - idle_memory,
        "delay_p50": _median(runs, "delay_p50"),
        "delay_p95": _median(runs, "delay_p95"),
        "delay_p99": _median(runs, "delay_p99"),
        **{
            name: median(run[name] for run in runs)
            for name in ("polls", "handshakes", "memory_peak", "longest_block_after_burst", "collecting")
        },
        **{name: max(run[name] for run in runs) for name in ("longest_block", "longest_collection", "given_up")},
        "failures": sum(run["failures"] for run in runs),
    }


def _median(runs: list[Figures], name: str) -> float | None:
    known = [run[name] for run in runs if run[name] is not None]
    return median(known) if known else None


def _line(run: Figures) -> str:
    said = run["first_error"].strip().rpartition("\n")[2]
    return (
        f"{LABELS[run['adapter']]}, {run['count']:,}: {run['cpu']:.2f} CPU s, {run['polls']} polls, "
        f"{run['failures']} failed, {run['seconds']:.0f} s {said}"
    ).rstrip()


HEAD = (
    "N, adapter", "CPU s / 1,000 polls", "ratio", "polls", "handshakes", "delay p50/p95/p99 s",
    "longest block s", "after 6 s", "peak MB", "over null", "failed",
)  # fmt: skip


def _print(table: list[Figures]) -> None:
    results.print_table(HEAD, [_cells(row) for row in table])


def _cells(row: Figures) -> list[str]:
    low, high = row["cpu_range"]
    spread = f" ({low:.2f}-{high:.2f})" if row["runs"] > 1 else ""
    delays = [row[f"delay_p{share}"] for share in (50, 95, 99)]
    return [
        f"{row['count']:,} {LABELS[row['adapter']]}",
        f"{row['cpu_per_1000']:.2f}{spread}",
        f"{row['ratio']:.2f}",
        f"{row['polls']:.0f}",
        f"{row['handshakes']:.0f}",
        " / ".join("-" if delay is None else f"{delay:.2f}" for delay in delays),
        f"{row['longest_block']:.3f}",
        f"{row['longest_block_after_burst']:.3f}",
        f"{row['memory_peak']:.0f}",
        f"{row['memory_growth']:.0f}",
        f"{row['failures']}",
    ]


def _print_targets(table: list[Figures]) -> None:
    """Say of each mark that this provider is held to whether it was reached."""
    print()
    for row in table:
        if row["adapter"] != OURS:
            continue
        marks = [
            ("CPU per poll over the floor's", row["ratio"], 1.0),
            # Airflow, which every client has loaded here, is left out.
            ("memory over the null run, MB", row["memory_growth"], 10 + row["count"] / 200),
            ("TLS handshakes", row["handshakes"], 32),
            ("delay p99, s", row["delay_p99"] or float("inf"), INTERVAL),
            ("longest block, s", row["longest_block"], 0.25),
            ("longest block after the burst, s", row["longest_block_after_burst"], 0.05),
            ("failures", row["failures"], 0),
        ]
        for what, value, limit in marks:
            verdict = "reached" if value <= limit else "MISSED"
            print(f"{row['count']:>6,}  {what:34} {value:8.3f}  at most {limit:<6} {verdict}")


if __name__ == "__main__":
    main()
