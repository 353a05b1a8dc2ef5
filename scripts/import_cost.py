"""Report what importing the provider costs a DAG file, over what ``airflow.sdk`` costs anyway.

Prints the median CPU time of several fresh interpreters, as it is and without the garbage collector: a full collection
over all that Airflow has loaded takes longer than the import itself, and falls into any import.
Run it with ``python scripts/import_cost.py``.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

RUNS = 7
BASE = "from airflow.sdk import BaseOperator, DAG"
MODULES = {
    "operator": "airflow_provider_flux.operators.flux",
    "sensor": "airflow_provider_flux.sensors.flux",
    "trigger": "airflow_provider_flux.triggers.flux",
    "client for the triggerer": "airflow_provider_flux.client.aio",
}


def cost(module: str, *, collects: bool) -> float:
    """Return the CPU milliseconds of importing one module after ``airflow.sdk``.

    :param collects: leave the garbage collector on.
    """
    collector = "" if collects else "import gc; gc.disable(); "
    measured = f"t = time.process_time(); import {module}; print((time.process_time() - t) * 1000)"
    code = f"import time; {BASE}; {collector}{measured}"
    # Installed packages come with bytecode, so one run more than counted lets Python write its own.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-c", code]
    told = [
        subprocess.run(command, capture_output=True, text=True, check=True, env=environment) for _ in range(RUNS + 1)
    ][1:]
    return statistics.median(float(run.stdout.splitlines()[-1]) for run in told)


def main() -> None:
    """Print one line for each module."""
    print(f"CPU time of an import after `{BASE}`, median of {RUNS} interpreters")
    print(f"{'':28} {'as it is':>10} {'not collecting':>16}")
    for name, module in MODULES.items():
        print(f"{name:28} {cost(module, collects=True):7.1f} ms {cost(module, collects=False):13.1f} ms")


if __name__ == "__main__":
    main()
