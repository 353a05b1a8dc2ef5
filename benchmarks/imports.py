"""`imports`: what an operator's module costs a DAG file, over what `airflow.sdk` costs anyway."""

from __future__ import annotations

import argparse
from typing import Any

import plots
import results

from import_cost import BASE, RUNS, cost

MODULES = {
    "this provider": "airflow_provider_flux.operators.flux",
    "http provider": "airflow.providers.http.operators.http",
    "dbt Cloud provider": "airflow.providers.dbt.cloud.operators.dbt",
}


def main() -> None:
    """Measure every module, print the table, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    # Accepted as by the other benchmarks; there is nothing to leave out.
    parser.add_argument("--quick", action="store_true", help=argparse.SUPPRESS)
    parser.parse_args()
    print(f"CPU time of an import after `{BASE}`, median of {RUNS} interpreters")
    table: list[dict[str, Any]] = []
    for name, module in MODULES.items():
        table.append(
            {
                "name": name,
                "module": module,
                "milliseconds": cost(module, collects=True),
                "milliseconds_without_collector": cost(module, collects=False),
            }
        )
        print(f"measured {module}", flush=True)
    print()
    head = ("module", "ms as it is", "ms without garbage collector")
    cells = [
        (row["module"], f"{row['milliseconds']:.0f}", f"{row['milliseconds_without_collector']:.0f}") for row in table
    ]
    results.print_table(head, cells)
    results.save("imports", table, runs=RUNS, after=BASE)
    plots.draw_imports(table)


if __name__ == "__main__":
    main()
