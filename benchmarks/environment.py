"""The environment that everything is measured in: this package, Airflow and the peers, in `.venvs/benchmarks`.

The peers are pinned in `requirements.txt` beside this file; they are no dependencies of the package.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from uv import find_uv_bin

ROOT = Path(__file__).parent.parent
ENVIRONMENT = ROOT / ".venvs" / "benchmarks"
PYTHON = ENVIRONMENT / "bin" / "python"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
CONSTRAINTS = ROOT / "constraints" / "distributed-3.3.2.txt"


def make_environment() -> None:
    """Make or update the environment.

    :raises SystemExit: if the packages cannot be installed; the message is the installer's.
    """
    uv = find_uv_bin()
    print(f"Preparing {ENVIRONMENT.relative_to(ROOT)}", flush=True)
    if not PYTHON.exists():
        _run([uv, "venv", "--quiet", "--python", sys.executable, str(ENVIRONMENT)])
    install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(PYTHON)]
    what = ["--constraints", str(CONSTRAINTS), "--requirements", str(REQUIREMENTS)]
    _run([*install, *what, "--editable", f"{ROOT}[emulator]"])


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command, env=os.environ | {"UV_PYTHON_DOWNLOADS": "never"}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"This failed: {' '.join(command)}\n{done.stdout}{done.stderr}")
