"""Take each safeguard out of a copy of this repository and see whether a test notices.

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
        "the intent is not saved before the create is sent",
        "airflow_provider_flux/protocol/submission.py",
        r"        yield Save\(intent\)\n",
        "",
        ("tests/durable",),
    ),
    Mutation(
        "no re-attachment: every try submits",
        "airflow_provider_flux/protocol/resume.py",
        r"    if record is None:\n        return Step\.SUBMIT\n",
        "    return Step.SUBMIT\n",
        ("tests/durable/test_decision.py",),
    ),
    Mutation(
        "the prediction's id is not saved",
        "airflow_provider_flux/protocol/submission.py",
        r"            yield from self\._keep\(replace\(intent, prediction_id=prediction\.id\)\)\n",
        "",
        ("tests/durable",),
    ),
    Mutation(
        "a create is sent again after an unknown outcome",
        "airflow_provider_flux/protocol/flows.py",
        r"if problem\.verdict is Verdict\.UNKNOWN:",
        "if False:",
        ("tests/money",),
    ),
    Mutation(
        "resubmit also where the gateway lists predictions",
        "airflow_provider_flux/protocol/submission.py",
        r"        if self\.policy\.can_list:\n            log\.warning",
        "        if self.policy.can_list and not self.policy.resubmits:\n            log.warning",
        ("tests/money",),
    ),
    Mutation(
        "a list that cannot be read counts as empty",
        "airflow_provider_flux/protocol/lookup.py",
        r"            raise OutcomeUnknown\(failed\.failure, sent_at\) from failed",
        "            return None",
        ("tests/money",),
    ),
    Mutation(
        "of several predictions that could be the one the first is taken",
        "airflow_provider_flux/protocol/lookup.py",
        r"    if len\(candidates\) > len\(sent_at\):",
        "    if False:",
        (
            "tests/protocol/test_lookup.py",
            "tests/money",
        ),
    ),
    Mutation(
        "what is not listed yet was not made",
        "airflow_provider_flux/protocol/lookup.py",
        r"asked_at >= moment \+ LOOKS_AFTER\[-1\]",
        "True",
        ("tests/protocol/test_lookup.py",),
    ),
    Mutation(
        "an answer that comes from no gateway made nothing",
        "airflow_provider_flux/protocol/submission.py",
        r"not failed\.may_exist and failed\.failure\.reason is not Reason\.WRONG_URL",
        "not failed.may_exist",
        ("tests/money",),
    ),
    Mutation(
        "an intent that was told of may be sent again without a clear",
        "airflow_provider_flux/protocol/resume.py",
        r"return record\.told and record\.generation != self\.generation",
        "return record.told",
        ("tests/durable/test_decision.py",),
    ),
    Mutation(
        "an unknown outcome is not noted as told",
        "airflow_provider_flux/protocol/submission.py",
        r"        yield from self\._keep\(replace\(record, told=True\)\)\n",
        "        yield from ()\n",
        ("tests/money",),
    ),
    Mutation(
        "a task that is ended still sends its create",
        "airflow_provider_flux/operators/flux.py",
        r'        if self\._killed:\n            raise FluxKilledError\("The task was ended before',
        '        if False:\n            raise FluxKilledError("The task was ended before',
        ("tests/durable",),
    ),
    Mutation(
        "no state check in the trigger's on_kill",
        "airflow_provider_flux/triggers/flux.py",
        r"if self\._is_still_deferred\(\):",
        "if False:",
        ("tests/triggers/test_flux_trigger.py",),
    ),
    Mutation(
        "batch: the ledger learns of a create without waiting for it",
        "airflow_provider_flux/batch/row_run.py",
        r"            await self\._add\(intent, is_intent=True\)\n",
        "            self._entry = intent\n",
        ("tests/batch/test_batch.py",),
    ),
    Mutation(
        "batch: an older entry replaces a newer one",
        "airflow_provider_flux/batch/row_store.py",
        r"WHERE excluded\.revision > revision OR .*\n",
        "",
        ("tests/batch/test_decisions.py",),
    ),
    Mutation(
        "batch: a picture that is gone counts as there",
        "airflow_provider_flux/batch/row_policy.py",
        r'outcome\["status"\] == RowStatus\.SUCCEEDED\.value and all_exist\(outcome\["paths"\]\)',
        'outcome["status"] == RowStatus.SUCCEEDED.value',
        ("tests/batch/test_decisions.py",),
    ),
    Mutation(
        "batch: a row is kept though its input has changed",
        "airflow_provider_flux/batch/row_policy.py",
        r" and known\.fingerprint == fingerprint:",
        ":",
        ("tests/batch/test_decisions.py",),
    ),
    Mutation(
        "batch: the budget is not checked",
        "airflow_provider_flux/batch/row_run.py",
        r"        resources\.check_budget\(self\._row\)\n",
        "",
        ("tests/batch/test_batch.py",),
    ),
    Mutation(
        "batch: a prediction of another row is taken for this one's",
        "airflow_provider_flux/batch/list_lookups.py",
        r" if not self\._store\.knows_prediction\(prediction\.id\)\]",
        "]",
        ("tests/batch/test_creates.py",),
    ),
    Mutation(
        "batch: the lease is taken though somebody works",
        "airflow_provider_flux/batch/lease.py",
        r"        return has_expired\(holder, unchanged_for=unchanged_for, now=self\._clock\(\)\)",
        "        return True",
        ("tests/batch/test_lease.py",),
    ),
    Mutation(
        "batch: a lease that is lost is not noticed",
        "airflow_provider_flux/batch/lease.py",
        r"self\.is_lost or not is_own",
        "False",
        ("tests/batch/test_lease.py",),
    ),
    Mutation(
        "batch: two that have written the same lease both work",
        "airflow_provider_flux/batch/lease.py",
        r" and \(holder is None or holder\.token == self\._lease\.token\)",
        "",
        ("tests/batch/test_lease.py",),
    ),
    Mutation(
        "batch: another task's manifest is replaced",
        "airflow_provider_flux/batch/lease.py",
        r"if holder is not None and holder\.owner != self\._lease\.owner and not adopts:",
        "if False:",
        ("tests/batch/test_lease.py",),
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
    """Run tests in the copy until some have failed, and count the cases of each that did."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rfE",
        "--tb=no",
        "--no-header",
        "-p",
        "no:cacheprovider",
        "-n",
        "2",
        "--maxfail",
        "3",
    ]
    finished = subprocess.run(
        [*command, *tests], cwd=copy, capture_output=True, text=True, timeout=TIME_LIMIT, check=False
    )
    if finished.returncode not in (0, 1) and "stopping after" not in finished.stdout:
        raise NotApplicable(f"pytest ended with {finished.returncode}\n{finished.stdout[-2000:]}")
    return Counter(re.findall(r"^(?:FAILED|ERROR) ([^\s\[]+::[^\s\[]+)", finished.stdout, re.MULTILINE))


def _check_that_the_copy_is_tested(copy: Path) -> None:
    command = [sys.executable, "-c", "import airflow_provider_flux as package; print(package.__file__)"]
    package = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=True).stdout
    if not package.startswith(str(copy.resolve())):
        raise NotApplicable(f"the tests would import {package.strip()} and not the copy")


if __name__ == "__main__":
    sys.exit(main())
