"""`make test-matrix`: the smoke tests on every supported Airflow with every Python found on this machine.

Each pair gets an environment of its own in `.venvs`, with the wheel of this package and the requirements that its
Airflow was released with (`constraints/`).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from uv import find_uv_bin

from processes import ManagedProcess, end_processes, environment_for_loopback, termination_as_exit

ROOT = Path(__file__).parent.parent
ENVIRONMENTS = ROOT / ".venvs"
TESTS = "tests/smoke"
AIRFLOWS = ("3.1.8", "3.2.2", "3.3.2")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
TEST_TOOLS = ("hypothesis", "pytest", "pytest-asyncio", "pytest-timeout", "pytest-xdist")
AT_A_TIME = 2
TIME_LIMIT = 900  # seconds for each command

Outcome = Literal["passed", "failed", "skipped"]

_started: list[ManagedProcess] = []


@dataclass(frozen=True)
class Result:
    """What became of one pair."""

    airflow: str
    python: str
    outcome: Outcome
    tests_passed: int = 0
    seconds: float = 0
    remark: str = ""


class StepError(RuntimeError):
    """A command failed; the message is the end of its output."""


def main() -> int:
    """Run the matrix; return the exit code."""
    parser = argparse.ArgumentParser(description="Smoke tests on every supported Airflow and Python.")
    parser.add_argument("--airflow", choices=AIRFLOWS, action="append", help="only this one; may be repeated")
    parser.add_argument("--python", choices=PYTHONS, action="append", help="only this one; may be repeated")
    options = parser.parse_args()

    interpreters = find_interpreters()
    wheel = build_wheel()

    def run(pair: tuple[str, str]) -> Result:
        airflow, python = pair
        if python not in interpreters:
            return Result(airflow, python, "skipped", remark=f"no python{python} on PATH or among pyenv's")
        result = run_pair(airflow, python, interpreters[python], wheel)
        print(f"Airflow {airflow}, Python {python}: {result.outcome} {result.remark}".rstrip(), flush=True)
        return result

    pairs = [(airflow, python) for airflow in options.airflow or AIRFLOWS for python in options.python or PYTHONS]
    with termination_as_exit(), ThreadPoolExecutor(AT_A_TIME) as pool:
        try:
            results = list(pool.map(run, pairs))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            end_processes(_started)
            raise
    print_table(results)
    return int(any(result.outcome == "failed" for result in results))


def find_interpreters() -> dict[str, Path]:
    """Return version to path of each supported Python that really runs; shims of absent Pythons exist but fail."""
    found: dict[str, Path] = {}
    for candidate in _candidates():
        version = _version(candidate)
        if version in PYTHONS:
            found.setdefault(version, candidate)
    return found


def build_wheel() -> Path:
    """Build the package once for all pairs."""
    folder = ENVIRONMENTS / "wheel"
    shutil.rmtree(folder, ignore_errors=True)
    _run([find_uv_bin(), "build", "--wheel", "--out-dir", str(folder), str(ROOT)], log=ENVIRONMENTS / "wheel.log")
    return next(folder.glob("*.whl"))


def run_pair(airflow: str, python: str, interpreter: Path, wheel: Path) -> Result:
    """Make the environment of a pair and run the smoke tests in it."""
    started = time.monotonic()
    folder = ENVIRONMENTS / f"airflow-{airflow}-python-{python}"
    log = folder.with_suffix(folder.suffix + ".log")
    log.unlink(missing_ok=True)
    try:
        _install(airflow, interpreter, wheel, folder, log)
        output = _run(
            [str(folder / "bin" / "pytest"), TESTS, "-q", "-p", "no:cacheprovider"],
            log=log,
            cwd=_copy_without_the_package(folder / "checkout"),
            environment={"AIRFLOW_HOME": str(folder / "airflow-home"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
        )
    except StepError as error:
        return Result(airflow, python, "failed", 0, time.monotonic() - started, f"see {log}\n{error}")
    passed = sum(map(int, re.findall(r"(\d+) passed", output)))
    return Result(airflow, python, "passed" if passed else "failed", passed, time.monotonic() - started)


def print_table(results: list[Result]) -> None:
    """Print what became of each pair, and the counts."""
    print(f"\n{'Airflow':<8} {'Python':<7} {'outcome':<8} {'tests':>5} {'seconds':>8}")
    for result in results:
        remark = result.remark.partition("\n")[0]
        print(
            f"{result.airflow:<8} {result.python:<7} {result.outcome:<8} "
            f"{result.tests_passed:>5} {result.seconds:>8.1f}  {remark}".rstrip()
        )
    missing = sorted({result.python for result in results if result.outcome == "skipped"})
    if missing:
        print(f"To run the skipped pairs, install Python {', '.join(missing)} and put it on PATH.")
    counts = {kind: sum(result.outcome == kind for result in results) for kind in ("passed", "failed", "skipped")}
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()))


def _install(airflow: str, interpreter: Path, wheel: Path, folder: Path, log: Path) -> None:
    uv = find_uv_bin()
    _run([uv, "venv", "--clear", "--python", str(interpreter), str(folder)], log=log)
    install = [uv, "pip", "install", "--python", str(folder / "bin" / "python")]
    constraints = ROOT / "constraints" / f"airflow-{airflow}.txt"
    pinned = [f"apache-airflow=={airflow}", f"{wheel}[emulator]", *_pins_of_test_tools()]
    _run([*install, "--constraints", str(constraints), *pinned], log=log)


def _copy_without_the_package(folder: Path) -> Path:
    """In the checkout itself the tests would import the checkout's package and not the wheel's."""
    for name in ("tests", "example_dags", "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def _pins_of_test_tools() -> Iterator[str]:
    for line in (ROOT / "requirements-dev.txt").read_text().splitlines():
        if line.partition("==")[0] in TEST_TOOLS:
            yield line


def _run(command: list[str], *, log: Path, cwd: Path = ROOT, environment: dict[str, str] | None = None) -> str:
    """Run a command to its end and return what it printed."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write(f"$ {' '.join(command)}\n")
        start = file.tell()
    settings = environment_for_loopback({"UV_PYTHON_DOWNLOADS": "never"} | (environment or {}))
    process = ManagedProcess(Path(command[0]).name, command, environment=settings, log=log, cwd=cwd)
    _started.append(process)
    deadline = time.monotonic() + TIME_LIMIT
    while process.returncode is None and time.monotonic() < deadline:
        time.sleep(0.1)
    in_time = process.returncode is not None
    end_processes([process])
    output = log.read_bytes()[start:].decode(errors="replace")
    if process.returncode != 0:
        end = "\n".join(output.splitlines()[-30:])
        raise StepError(end if in_time else f"{process.name} did not end within {TIME_LIMIT} s\n{end}")
    return output


def _candidates() -> Iterator[Path]:
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        for name in (*(f"python{version}" for version in PYTHONS), "python3"):
            yield Path(folder) / name
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(pyenv.glob("versions/3.1*/bin/python"))


def _version(interpreter: Path) -> str | None:
    if not os.access(interpreter, os.X_OK):
        return None
    question = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        answer = subprocess.run(
            [str(interpreter), "-c", question],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
