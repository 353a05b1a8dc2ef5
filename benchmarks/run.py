"""Run the benchmarks: all of them, or those that are named.

    python benchmarks/run.py [waiting] [end-to-end] [imports] [polling] [batch] [--quick]

Each prints a table, writes `benchmarks/results/<name>.json` and draws `docs/<name>.png`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
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


def _run(part: str, arguments: list[str]) -> int:
    print(f"\n== {part} ==", flush=True)
    # The parts use what the scripts and the tests have; a bytecode cache keeps an import's cost that of an import.
    path = os.pathsep.join(str(folder) for folder in (ROOT, ROOT / "scripts"))
    environment = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "", "PYTHONUNBUFFERED": "1"}
    return subprocess.run([str(PYTHON), str(FOLDER / PARTS[part]), *arguments], env=environment, check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
