"""Report what importing the provider costs a DAG file, over what ``airflow.sdk`` costs anyway.

Prints the median CPU time of several fresh interpreters. Run it with ``python scripts/import_cost.py``.
"""

from __future__ import annotations

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


def cost(module: str) -> float:
    """Return the CPU milliseconds of importing one module after ``airflow.sdk``."""
    code = f"import time; {BASE}; t = time.process_time(); import {module}; print((time.process_time() - t) * 1000)"
    told = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(RUNS)
    ]
    return statistics.median(float(run.stdout.splitlines()[-1]) for run in told)


def main() -> None:
    """Print one line for each module."""
    print(f"CPU time of an import after `{BASE}`, median of {RUNS} interpreters")
    for name, module in MODULES.items():
        print(f"{name:28} {cost(module):6.1f} ms")


if __name__ == "__main__":
    main()
