"""Take each of four safeguards out of a copy of this repository and see whether a test notices.

    .venv/bin/python scripts/mutations.py

The exit code is 1 if a mutation survives its tests, and 2 if it could not be applied.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TIME_LIMIT = 900  # seconds for the tests of one mutation


@dataclass(frozen=True)
class Mutation:
    """A safeguard taken out.

    :param old: a regular expression that matches once in the file.
    :param new: what stands there instead.
    :param tests: where the tests are that must notice.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "intent record not written before the POST",
        "airflow_provider_flux/submission.py",
        r"( +)self\.records\.write\(intent\)\n",
        r"",
        ("tests/durable",),
    ),
    Mutation(
        "no re-attach: every try submits",
        "airflow_provider_flux/durable.py",
        r"    if record is None:\n        return Step\.SUBMIT\n",
        r"    return Step.SUBMIT\n",
        ("tests/durable",),
    ),
    Mutation(
        "no state check in the trigger's on_kill",
        "airflow_provider_flux/triggers/flux.py",
        r"if self\._is_still_deferred\(\):",
        r"if False:",
        ("tests/triggers",),
    ),
    Mutation(
        "a create is sent again after an unknown outcome",
        "airflow_provider_flux/protocol/flows.py",
        r"if trouble\.verdict is Verdict\.UNKNOWN:",
        r"if False:",
        ("tests/protocol", "tests/hooks"),
    ),
)


class NotApplicable(Exception):
    """The code that a mutation changes is not there (any more)."""


def main() -> int:
    """Try every mutation; return the exit code."""
    argparse.ArgumentParser(description="Take safeguards out of a copy and see whether a test notices.").parse_args()
    with tempfile.TemporaryDirectory(prefix="flux-mutations-") as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=_ignored, symlinks=True)
        try:
            _check_that_the_copy_is_tested(copy)
            survived = [mutation.name for mutation in MUTATIONS if not _is_caught(mutation, copy)]
        except NotApplicable as error:
            print(f"cannot be tried: {error}")
            return 2
    print(f"SURVIVED: {'; '.join(survived)}" if survived else f"all {len(MUTATIONS)} mutations were caught")
    return 1 if survived else 0


def _ignored(folder: str, names: list[str]) -> set[str]:
    unwanted = {name for name in names if name.startswith(".") or name in ("__pycache__", "build", "dist")}
    return unwanted | ({"chaos"} if Path(folder).name == "tests" else set())


def _is_caught(mutation: Mutation, copy: Path) -> bool:
    """Apply a mutation, run its tests, undo it, and print which of them failed because of it."""
    file = copy / mutation.file
    whole = file.read_text()
    changed, times = re.subn(mutation.old, mutation.new, whole)
    if times != 1:
        raise NotApplicable(f"{mutation.name}: {mutation.old!r} is {times} times in {mutation.file}")
    file.write_text(changed)
    try:
        failed = _failed_tests(mutation.tests, copy)
    finally:
        file.write_text(whole)
    # A test that fails anyway has not noticed anything.
    unrelated = _failed_tests(tuple(failed), copy) if failed else Counter()
    caught = {test: count for test, count in sorted(failed.items()) if test not in unrelated}
    print(f"{mutation.name}: {f'caught by {sum(caught.values())} tests' if caught else 'SURVIVED'}")
    for test, count in caught.items():
        print(f"    {test}{f' ({count} cases)' if count > 1 else ''}")
    sys.stdout.flush()
    return bool(caught)


def _failed_tests(tests: tuple[str, ...], copy: Path) -> Counter[str]:
    """Run tests in the copy and count the cases of each that failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "--tb=no", "--no-header", "-p", "no:cacheprovider"]
    finished = subprocess.run(
        [*command, *tests], cwd=copy, capture_output=True, text=True, timeout=TIME_LIMIT, check=False
    )
    if finished.returncode not in (0, 1):
        raise NotApplicable(f"pytest ended with {finished.returncode}\n{finished.stdout[-2000:]}")
    return Counter(re.findall(r"^(?:FAILED|ERROR) ([^\s\[]+::[^\s\[]+)", finished.stdout, re.MULTILINE))


def _check_that_the_copy_is_tested(copy: Path) -> None:
    command = [sys.executable, "-c", "import airflow_provider_flux as package; print(package.__file__)"]
    package = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=True).stdout
    if not package.startswith(str(copy.resolve())):
        raise NotApplicable(f"the tests would import {package.strip()} and not the copy")


if __name__ == "__main__":
    sys.exit(main())
