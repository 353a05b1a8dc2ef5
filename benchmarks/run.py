"""Run the benchmarks: all of them, or those that are named.

    python benchmarks/run.py [waiting] [end-to-end] [imports] [polling] [scale] [batch] [--quick]

Each prints a table, writes `benchmarks/results/<name>.json` and draws `docs/<name>.png`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from environment import PYTHON, ROOT, make_environment

FOLDER = Path(__file__).parent
PARTS = {
    "imports": "imports.py",
    "polling": "polling.py",
    "scale": "scale.py",
    "waiting": "waiting.py",
    "end-to-end": "end_to_end.py",
    "batch": "batch.py",
}

QUIET = 0.3
PATIENCE = 300.0
"""Load of the machine below which a part begins, and seconds for which that is waited for. Results tell the load."""


def main() -> int:
    """Run the parts one after the other; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure this package beside its peers.")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"one of {', '.join(PARTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="small and once: a look, no figures to quote")
    options, of_the_part = parser.parse_known_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    make_environment()
    failed = [part for part in options.parts or PARTS if _run(part, ["--quick"] * options.quick + of_the_part) != 0]
    if failed:
        print(f"Failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


def _wait_for_quiet() -> None:
    """Wait until the machine does nothing else, for a while: what the part before has loaded it with goes away."""
    deadline = time.monotonic() + PATIENCE
    while (load := os.getloadavg()[0]) > QUIET and time.monotonic() < deadline:
        print(f"load {load:.2f}: waiting until it is below {QUIET}", flush=True)
        time.sleep(15)


def _run(part: str, arguments: list[str]) -> int:
    print(f"\n== {part} ==", flush=True)
    if "--quick" not in arguments:
        _wait_for_quiet()
    # The parts use what the scripts and the tests have; a bytecode cache keeps an import's cost that of an import.
    path = os.pathsep.join(str(folder) for folder in (ROOT, ROOT / "scripts"))
    environment = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "", "PYTHONUNBUFFERED": "1"}
    return subprocess.run([str(PYTHON), str(FOLDER / PARTS[part]), *arguments], env=environment, check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
