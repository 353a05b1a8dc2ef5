"""What a benchmark leaves behind: figures with where and with what they were measured, and a picture."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from airflow_provider_flux import __version__

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PICTURES = ROOT / "docs"
LOAD_AT_THE_START = os.getloadavg()[0]
PACKAGES = (
    "aiohttp",
    "apache-airflow",
    "apache-airflow-providers-dbt-cloud",
    "apache-airflow-providers-http",
    "httpx",
    "replicate",
    "uvloop",
)


def save(name: str, figures: Any, **settings: Any) -> None:
    """Write the figures of a benchmark, and everything needed to judge and repeat them.

    :param settings: such as the seed.
    """
    RESULTS.mkdir(parents=True, exist_ok=True)
    content = {"benchmark": name, "settings": settings, **_circumstances(), "figures": figures}
    file = RESULTS / f"{name}.json"
    file.write_text(json.dumps(content, indent=1) + "\n")
    print(f"\nWritten: {file.relative_to(ROOT)}")


def load(name: str) -> Any:
    """Return the figures as they were saved last."""
    return json.loads((RESULTS / f"{name}.json").read_text())["figures"]


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text in columns: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        first, *others = (
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *others]).rstrip())


def _circumstances() -> dict[str, Any]:
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "memory_gib": _memory(), "system": _system()},
        "versions": {"python": platform.python_version(), "airflow-provider-flux": __version__, **_versions()},
        "load_average_at_the_start": LOAD_AT_THE_START,
        "load_average_at_the_end": os.getloadavg()[0],
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def _system() -> str:
    return f"{platform.system()} {platform.release()}"
