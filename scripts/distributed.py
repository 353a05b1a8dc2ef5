"""`make test-distributed`: fifty predictions in a distributed Airflow on this machine, while parts of it are killed.

Prepares what `tests/distributed` needs and runs it: PostgreSQL and Redis from the packages of Debian, installed only if
they are missing, and an environment of its own in `.venvs/distributed` with this package, Airflow and its extras for
Celery and PostgreSQL (`constraints/distributed-3.3.2.txt`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from uv import find_uv_bin

from distributed_services import postgres_programs, redis_program

ROOT = Path(__file__).parent.parent
ENVIRONMENT = ROOT / ".venvs" / "distributed"
PYTHON = ENVIRONMENT / "bin" / "python"
AIRFLOW = "3.3.2"
CONSTRAINTS = ROOT / "constraints" / f"distributed-{AIRFLOW}.txt"
PACKAGES = {"postgresql-15": postgres_programs, "redis-server": redis_program}
TESTS = "tests/distributed"


class PreparationError(RuntimeError):
    """The test cannot be run here; the message is for the person at the terminal."""


def main() -> int:
    """Prepare, and go on as the test run; return only if that is not possible."""
    try:
        install_packages()
        make_environment()
    except PreparationError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    arguments = [sys.executable, "-m", "pytest", TESTS, "-m", "distributed", "-v", "-s", *sys.argv[1:]]
    os.chdir(ROOT)
    os.execv(sys.executable, arguments)  # noqa: S606 (no shell is wanted; signals reach the tests directly)


def install_packages() -> None:
    """Install the servers that are missing.

    :raises PreparationError: if that takes rights or a system that are not there.
    """
    missing = [package for package, find in PACKAGES.items() if find() is None]
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise PreparationError(
            f"PostgreSQL and Redis are needed, and this is no Debian or Ubuntu: install what {' and '.join(missing)} "
            "are there, so that initdb, postgres and redis-server are on PATH, and run this again."
        )
    if os.geteuid() != 0:
        raise PreparationError(f"Packages are missing. Run: sudo apt-get install {' '.join(missing)}")
    started = time.monotonic()
    print(f"Installing {', '.join(missing)}", flush=True)
    _run(["apt-get", "update", "-q"])
    _run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *missing])
    print(f"  took {time.monotonic() - started:.0f} s", flush=True)


def make_environment() -> None:
    """Make or update `.venvs/distributed`."""
    started = time.monotonic()
    uv = find_uv_bin()
    print(f"Preparing {ENVIRONMENT.relative_to(ROOT)}", flush=True)
    if not PYTHON.exists():
        _run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(ENVIRONMENT)])
    install = [uv, "pip", "install", "--quiet", "--python", str(PYTHON), "--constraints", str(CONSTRAINTS)]
    # Compiled once, since each task starts a new interpreter. The package is built anew: its version says nothing.
    install += ["--compile-bytecode", "--reinstall-package", "airflow-provider-flux"]
    _run([*install, f"apache-airflow[celery,postgres]=={AIRFLOW}", f"{ROOT}[emulator]"])
    print(f"  took {time.monotonic() - started:.0f} s", flush=True)


def _run(command: list[str]) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "UV_PYTHON_DOWNLOADS": "never"}
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        end = "\n".join(done.stdout.splitlines()[-30:])
        raise PreparationError(f"This failed: {' '.join(command)}\n{end}")


if __name__ == "__main__":
    sys.exit(main())
