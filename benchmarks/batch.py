"""`batch`: what one batch takes, alone and beside as many mapped tasks in a real Airflow.

Alone, the emulator is in a process of its own and the worker's time, CPU and memory are measured: all rows new, then
all unchanged. In the deployment, the same rows are made by one task of `FluxBatchOperator` and by mapped tasks of
`FluxPredictionOperator` that store their pictures too.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

KEY = "emulator-key"
MODEL = "black-forest-labs/flux-1.1-pro"
PHOTO_SIDE = 1420
"""Pixels of a grey photo of noise: 2 MB."""
FOLDER = Path(__file__).parent
RUN_TIME = 6.0
"""Seconds of every prediction."""
MAX_IN_FLIGHT = 100
WARM_UP = 2
ROWS, QUICK_ROWS = 500, 50
UNLIMITED = 1e6
"""Requests a minute: it is not the rate limit that is measured."""
LABELS = {"mapped": "mapped tasks", "batch": "one batch task"}

Figures = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One run of a batch without Airflow around it."""

    name: str
    rows: int
    max_in_flight: int
    has_photos: bool = False


CASES = (
    Case("500 rows, 100 in flight", 500, 100),
    Case("500 rows with a photo of 2 MB, 100 in flight", 500, 100, has_photos=True),
    Case("10,000 rows, 500 in flight", 10_000, 500),
    Case("10,000 rows with a photo of 2 MB, 500 in flight", 10_000, 500, has_photos=True),
)
QUICK_CASES = (Case("50 rows, 50 in flight", 50, 50), Case("50 rows with photos", 50, 50, has_photos=True))


class _Instance(SimpleNamespace):
    """As much of a task instance as a batch needs."""

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep what is pushed."""
        self.xcoms[key] = value


def work(table: str, folder: str, max_in_flight: int, run: str, *, has_photos: bool) -> dict[str, Any]:
    """Run one batch in this process, and say what it took beyond the imports."""
    from airflow_provider_flux.batch import engine  # noqa: F401 (imports are not what is measured)
    from airflow_provider_flux.client import aio  # noqa: F401
    from airflow_provider_flux.inputs import sending  # noqa: F401
    from airflow_provider_flux.operators.batch import FluxBatchOperator
    from airflow_provider_flux.outputs import storing  # noqa: F401

    importlib.import_module("airflow_provider_flux.batch.run")
    operator = FluxBatchOperator(
        task_id="make",
        rows=table,
        key="sku",
        model=MODEL,
        prompt="A studio photo of {{ row.name }}",
        input={"image_prompt": "{{ row.photo }}"} if has_photos else None,
        output_path=folder,
        max_in_flight=max_in_flight,
    )
    instance = _Instance(dag_id="dag", run_id=run, task_id="make", map_index=-1, try_number=1, max_tries=1, xcoms={})
    before, began = _cpu(), time.monotonic()
    operator.execute({"ti": instance})  # type: ignore[arg-type]
    return {
        "seconds": round(time.monotonic() - began, 2),
        "cpu_seconds": round(_cpu() - before, 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        **{name: instance.xcoms["flux_batch"][name] for name in ("succeeded", "kept", "failed")},
    }


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(case: Case) -> list[Figures]:
    """Run a case twice: all rows new, then all unchanged."""
    from local_emulator import LocalEmulator

    measured = []
    with tempfile.TemporaryDirectory() as folder:
        log, arguments = Path(folder) / "emulator.log", ("--run-time", str(RUN_TIME), "--small-pictures")
        table = Path(folder) / "table.jsonl"
        photo = _draw_photo(Path(folder)) if case.has_photos else ""
        rows = ({"sku": f"sku-{n}", "name": f"thing {n}", "photo": photo} for n in range(case.rows))
        table.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        with LocalEmulator(log=log, arguments=arguments) as gateway:
            extra = {"requests_per_minute": UNLIMITED}
            connection = {"conn_type": "flux", "host": gateway.url, "password": KEY, "extra": extra}
            settings = {
                "AIRFLOW_CONN_FLUX_DEFAULT": json.dumps(connection),
                "AIRFLOW_HOME": folder,
                "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            }
            for run in ("new", "unchanged"):
                before = gateway.state()["counters"]
                arguments = (str(table), f"{folder}/pictures", str(case.max_in_flight), run, str(case.has_photos))
                taken = _in_a_process(arguments, settings)
                after = gateway.state()["counters"]
                requests = {name: after[name] - before[name] for name in ("posts", "gets")}
                measured.append({**asdict(case), "run": run, **requests, **taken})
                print(f"{case.name}, {run}: {taken['seconds']} s, {taken['cpu_seconds']} CPU s", flush=True)
    return measured


def _draw_photo(folder: Path) -> str:
    from PIL import Image

    photo = folder / "photo.png"
    Image.effect_noise((PHOTO_SIDE, PHOTO_SIDE), 80).save(photo)
    return str(photo)


def _in_a_process(arguments: Sequence[str], settings: dict[str, str]) -> Figures:
    command = [sys.executable, __file__, "--work", *arguments]
    ended = subprocess.run(command, env=os.environ | settings, stdout=subprocess.PIPE, check=True, text=True)
    figures: Figures = json.loads(ended.stdout.splitlines()[-1])
    return figures


def compare(rows: int) -> list[Figures]:
    """Make the same rows by a batch and by mapped tasks, in one deployment."""
    from end_to_end import Stage

    with (
        tempfile.TemporaryDirectory() as folder,
        Stage(
            Path(folder),
            rows,
            dags=FOLDER / "batch_dags",
            gateway=("--run-time", str(RUN_TIME)),
            requests_per_minute=UNLIMITED,
        ) as stage,
    ):
        for mode, label in LABELS.items():
            stage.run(mode, WARM_UP, label=label)
        return [{"label": label, **stage.run(mode, rows, label=label)} for mode, label in LABELS.items()]


def main() -> None:
    """Measure all cases, or be the worker of one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS} rows")
    parser.add_argument("--rows", type=int, default=ROWS, help="how many rows in the deployment")
    parser.add_argument("--only", choices=("alone", "deployment"), help="half of it, and nothing is saved")
    parser.add_argument(
        "--work", nargs=5, metavar=("table", "folder", "in-flight", "run", "photos"), help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    if options.work:
        table, folder, max_in_flight, run, photos = options.work
        print(json.dumps(work(table, folder, int(max_in_flight), run, has_photos=photos == "True")))
        return
    rows = QUICK_ROWS if options.quick else options.rows
    ideal = math.ceil(rows / MAX_IN_FLIGHT) * RUN_TIME
    cases = QUICK_CASES if options.quick else CASES
    from processes import termination_as_exit

    with termination_as_exit():
        alone = [] if options.only == "deployment" else [run for case in cases for run in measure(case)]
        deployed = [] if options.only == "alone" else compare(rows)
    _report(alone, deployed, ideal)
    if options.only is None:
        import plots
        import results

        settings = {"rows": rows, "run_time": RUN_TIME, "max_in_flight": MAX_IN_FLIGHT, "ideal_makespan": ideal}
        results.save("batch", {"alone": alone, "deployment": deployed}, **settings)
        plots.draw_batch(deployed, ideal)


def _report(alone: list[Figures], deployed: list[Figures], ideal: float) -> None:
    from results import print_table

    names = ("seconds", "cpu_seconds", "peak_mb", "posts", "gets", "succeeded", "kept", "failed")
    if alone:
        print_table(
            ["alone", *names], [[f"{run['name']}, {run['run']}", *(str(run[name]) for name in names)] for run in alone]
        )
    if deployed:
        print_table(
            ["in Airflow", "makespan s", "workers' CPU s", "CPU s in all", "POSTs", "GETs", "failed"],
            [
                [
                    f"{run['label']}, {run['rows']} rows",
                    f"{run['makespan']:.1f}",
                    f"{run['cpu']['workers']:.1f}",
                    f"{sum(run['cpu'].values()):.1f}",
                    str(run["requests"]["posts"]),
                    str(run["requests"]["gets"]),
                    str(run["failed"]),
                ]
                for run in deployed
            ],
        )
        print(f"The gateway alone takes {ideal:.0f} s.")


if __name__ == "__main__":
    main()
