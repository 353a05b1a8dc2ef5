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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parent.parent
TIME_LIMIT = 900  # seconds for the tests of one mutation
AT_ONCE = 2
"""How many mutations are tried at a time. A process for each costs less than workers that share its tests."""


@dataclass(frozen=True)
class Mutation:
    """A safeguard taken out.

    :param old: a regular expression that matches once in the file.
    :param new: what stands there instead.
    :param tests: where the tests are that must notice.
    :param only: which of them, as pytest's ``-k`` takes it; all if not given.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    only: str = ""


MUTATIONS = (
    Mutation(
        "another way is taken after any refusal, also of an input that a person has to mend",
        "airflow_provider_flux/protocol/fallbacks.py",
        r"return _OF_REFUSAL\.get\(failed\.failure\.reason\) if isinstance\(failed, NotAccepted\) else None",
        "return _OF_REFUSAL.get(failed.failure.reason, Cause.UNAVAILABLE)",
        ("tests/money/test_fallbacks.py",),
        "which_way",
    ),
    Mutation(
        "a refusal lets it be forgotten that a create before it may have made a prediction",
        "airflow_provider_flux/protocol/submission.py",
        r"if doubtful is not None:",
        "if False:",
        ("tests/money/test_fallbacks.py",),
        "leaves_that_in_doubt",
    ),
    Mutation(
        "another way is taken whatever `fallback_on` says",
        "airflow_provider_flux/protocol/fallbacks.py",
        r" and cause\.value in on and at \+ 1 < count",
        " and at + 1 < count",
        ("tests/money/test_fallbacks.py",),
        "which_way",
    ),
    Mutation(
        "a create that has another way after it is tried until the deadline",
        "airflow_provider_flux/protocol/submission.py",
        r"return self\.deadline if self\.patience is None else .*\n",
        "return self.deadline\n",
        ("tests/money/test_fallbacks.py",),
        "rate_limit",
    ),
    Mutation(
        "the key goes wherever a `polling_url` leads",
        "airflow_provider_flux/protocol/gateways.py",
        r'return origin == self\.origin or \(scheme == "https" and self\._may_ask_at\(host\)\)',
        "return True",
        ("tests/wire/test_bfls_regions.py", "tests/protocol/test_dialects.py"),
    ),
    Mutation(
        "a call without a right signature is believed",
        "airflow_provider_flux/plugin/webhook_proof.py",
        r"Webhook\(secret\)\.verify\(body, dict\(headers\), json_parse=False\)",
        "Webhook(secret)",
        ("tests/plugin/test_webhooks.py",),
    ),
    Mutation(
        "a call that has a token is believed without asking the gateway",
        "airflow_provider_flux/plugin/webhook_receiver.py",
        r"if access\.gateway\.preset\.webhook_proof is WebhookProof\.TOKEN:\n        found",
        "if False:\n        found",
        ("tests/plugin/test_webhooks.py",),
    ),
    Mutation(
        "the last event of a burst comes while others are queued",
        "airflow_provider_flux/plugin/prediction_events.py",
        r"while self\._to_record == 1 and",
        "while False and",
        ("tests/plugin/test_webhooks.py",),
        "burst",
    ),
    Mutation(
        "a task that has begun before is taken for one that begins for the first time",
        "airflow_provider_flux/tasks/state_store.py",
        r'return getattr\(context\["ti"\], "try_number", None\) == 1 and',
        "return",
        ("tests/durable/test_reattachment.py",),
    ),
    Mutation(
        "a task that was rescheduled is taken for one that begins for the first time",
        "airflow_provider_flux/tasks/state_store.py",
        r' == 1 and context\.get\("task_reschedule_count"\) == 0',
        " == 1",
        ("tests/durable/test_reattachment.py",),
    ),
    Mutation(
        "an input picture is not read before the create",
        "airflow_provider_flux/inputs/picture_reading.py",
        r"(            picture = )check_picture\(where, path, content\)(?=\n +return)",
        r"\1Picture('png', 1, 1)",
        ("tests/inputs/test_bad_pictures.py",),
    ),
    Mutation(
        "an input picture counts by its path",
        "airflow_provider_flux/protocol/picture_inputs.py",
        r'\{"sha256": picture\["sha256"\]\}',
        '{"path": picture["path"]}',
        ("tests/inputs/test_money.py",),
    ),
    Mutation(
        "a picture that has changed since its check is sent",
        "airflow_provider_flux/inputs/sending.py",
        r'if hashlib\.sha256\(content\)\.hexdigest\(\) != picture\["sha256"\]:',
        "if False:",
        ("tests/inputs/test_transfer.py",),
    ),
    Mutation(
        "a listed prediction is taken for one's own whatever its picture",
        "airflow_provider_flux/protocol/lookup.py",
        r"\n        and picture_inputs\.sent_as\(input, prediction\.input\) == sent_as",
        "",
        ("tests/inputs/test_money.py",),
    ),
    Mutation(
        "a listed prediction that shows another address was not made",
        "airflow_provider_flux/protocol/lookup.py",
        r"return bool\(shown\) and not all\(",
        "return False and not all(",
        ("tests/inputs/test_money.py",),
    ),
    Mutation(
        "a ledger is listed once",
        "airflow_provider_flux/batch/ledger.py",
        r"while (unread := _unread\(folder, read\):)(?=\n +for .*:\n +store)",
        r"if \1",
        ("tests/batch/test_ledger.py",),
    ),
    Mutation(
        "a worker's request that was not sent is in doubt",
        "airflow_provider_flux/client/sync.py",
        r"is_sent=exchange\.is_sent",
        "is_sent=True",
        ("tests/wire/test_not_sent.py",),
        "refused or stalls",
    ),
    Mutation(
        "a worker's request whose answer is lost was not sent",
        "airflow_provider_flux/client/bounded_connections.py",
        r"exchange\.is_sent or self\._is_up",
        "exchange.is_sent",
        ("tests/wire/test_odd_answers.py",),
        "create",
    ),
    Mutation(
        "a triggerer's request whose answer is lost was not sent",
        "airflow_provider_flux/client/aio.py",
        r"        _sent_over\.get\(\)\.append\(connection\.transport\)\n",
        "",
        ("tests/wire/test_odd_answers.py",),
        "create",
    ),
    Mutation(
        "an answer about another prediction is believed",
        "airflow_provider_flux/protocol/prediction.py",
        r"if asked_for and \(named := ids_in\(payload\)\) and parted\(asked_for\)\[0\] not in named:",
        "if False:",
        ("tests/protocol/test_watching.py",),
        "another",
    ),
    Mutation(
        "the intent is not saved before the create is sent",
        "airflow_provider_flux/protocol/submission.py",
        r"        yield Save\(intent\)\n",
        "",
        ("tests/protocol/test_submission.py",),
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
        r" {12}yield from self\._keep\(replace\(intent, prediction_id=prediction\.id, billed=billed\), prediction\)\n",
        "",
        ("tests/protocol/test_submission.py",),
    ),
    Mutation(
        "a create is sent again after an unknown outcome",
        "airflow_provider_flux/protocol/flows.py",
        r"if problem\.verdict is Verdict\.UNKNOWN:",
        "if False:",
        ("tests/protocol/test_submission.py", "tests/money"),
        "LostAnswer or (502_after_accept and not has)",
    ),
    Mutation(
        "resubmit also where the gateway lists predictions",
        "airflow_provider_flux/protocol/submission.py",
        r"        if self\.policy\.can_list:\n            log\.warning",
        "        if self.policy.can_list and not self.policy.resubmits:\n            log.warning",
        ("tests/protocol/test_submission.py", "tests/money"),
        "LostAnswer or (list and has and resubmit)",
    ),
    Mutation(
        "a list that cannot be read counts as empty",
        "airflow_provider_flux/protocol/lookup.py",
        r"            raise OutcomeUnknown\(failed\.failure, sent_at\) from failed",
        "            return None",
        ("tests/protocol/test_lookup.py", "tests/money"),
        "Settling or (refused and ever)",
    ),
    Mutation(
        "of several predictions that could be the one the first is taken",
        "airflow_provider_flux/protocol/lookup.py",
        r"    if len\(candidates\) > len\(sent_at\):",
        "    if False:",
        ("tests/protocol/test_lookup.py", "tests/money"),
        "told_holds or Settling or two",
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
        ("tests/protocol/test_submission.py", "tests/money"),
        "no_gateway or wrong",
    ),
    Mutation(
        "an intent that was told of may be sent again without a clear",
        "airflow_provider_flux/protocol/resume.py",
        r"return record\.told and record\.generation != self\.generation",
        "return record.told",
        ("tests/durable/test_decision.py", "tests/protocol/test_submission.py"),
    ),
    Mutation(
        "an unknown outcome is not noted as told",
        "airflow_provider_flux/protocol/submission.py",
        r"        yield from self\._keep\(replace\(record, told=True\)\)\n",
        "        yield from ()\n",
        ("tests/protocol/test_submission.py",),
    ),
    Mutation(
        "an intent is saved only if that is possible",
        "airflow_provider_flux/protocol/submission.py",
        r"        yield Save\(intent\)\n",
        "        yield from self._keep(intent)\n",
        ("tests/protocol/test_submission.py",),
    ),
    Mutation(
        "an id that cannot be saved costs the prediction",
        "airflow_provider_flux/protocol/submission.py",
        r"        except Exception as error:  # noqa: BLE001 \(whatever the driver's storage raises\)",
        "        except ZeroDivisionError as error:",
        ("tests/protocol/test_submission.py",),
    ),
    Mutation(
        "a refused create leaves its intent",
        "airflow_provider_flux/protocol/submission.py",
        r"                    if made_nothing\(failed\):",
        "                    if False:",
        ("tests/protocol/test_submission.py",),
    ),
    Mutation(
        "a create that is not sent after all leaves its intent",
        "airflow_provider_flux/protocol/submission.py",
        r"            except NotSubmitted:\n                yield from self\._keep\(.*\n",
        "            except NotSubmitted:\n",
        ("tests/protocol/test_submission.py",),
    ),
    Mutation(
        "with resubmit a create is sent again and again",
        "airflow_provider_flux/protocol/submission.py",
        r"may_resend, doubtful = False, None",
        "doubtful = None",
        ("tests/protocol/test_submission.py",),
    ),
    Mutation(
        "a create is sent after the deadline",
        "airflow_provider_flux/protocol/submission.py",
        r"        if now >= self\.deadline:",
        "        if False:",
        ("tests/protocol/test_submission.py",),
    ),
    Mutation(
        "a task that is ended still sends its create",
        "airflow_provider_flux/operators/submitting.py",
        r'        if self\._killed:\n            raise FluxKilledError\("The task was ended before',
        '        if False:\n            raise FluxKilledError("The task was ended before',
        ("tests/durable/test_reattachment.py",),
        "before_the_post or kill",
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
        "airflow_provider_flux/batch/row_entry.py",
        r"            await self\._add\(intent, is_intent=True\)\n",
        "            self.entry = intent\n",
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
        "airflow_provider_flux/batch/row_entry.py",
        r"        resources\.check_budget\(self\.row\)\n",
        "",
        ("tests/batch/test_batch.py",),
    ),
    Mutation(
        "batch: creates go on after the batch has stopped",
        "airflow_provider_flux/batch/row_run.py",
        r"        if resources\.control\.forbids_creates:\n",
        "        if False:\n",
        ("tests/batch/test_creates.py",),
    ),
    Mutation(
        "batch: a create is sent though the ledger could not be written",
        "airflow_provider_flux/batch/row_entry.py",
        # With the stop of the batch, which alone would be enough.
        r'            resources\.control\.stop\(\n +FluxLedgerError\((?s:.*?)raise NotSubmitted\("the led.*\n',
        "",
        ("tests/batch/test_own_files.py", "tests/batch/test_creates.py"),
    ),
    Mutation(
        "batch: a listed prediction is taken while a create of the same input is under way",
        "airflow_provider_flux/batch/list_lookups.py",
        r"            if not self\._being_created\[fingerprint\]:\n",
        "            if True:\n",
        ("tests/batch/test_creates.py",),
    ),
    Mutation(
        "batch: an entry of another run lets its risk be taken",
        "airflow_provider_flux/batch/row_policy.py",
        r"told=entry\.told and is_own",
        "told=entry.told",
        ("tests/batch/test_decisions.py",),
    ),
    Mutation(
        "batch: of two entries as new the one without a prediction counts",
        "airflow_provider_flux/batch/row_store.py",
        r" OR \(excluded\.revision = revision AND excluded\.prediction_id IS NOT NULL\)",
        "",
        ("tests/batch/test_decisions.py",),
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
    Mutation(
        "rows that are not in today's table are forgotten",
        "airflow_provider_flux/batch/run.py",
        r"            self\._write_history\(store\)\n",
        "",
        ("tests/batch/test_memory.py",),
        "however",
    ),
    Mutation(
        "what a run has made that died before its manifest is forgotten",
        "airflow_provider_flux/batch/run.py",
        r"        store\.put_entries_as_former\(\)\n",
        "",
        ("tests/batch/test_memory.py",),
        "died",
    ),
    Mutation(
        "7.0 is another input than 7",
        "airflow_provider_flux/protocol/fingerprint.py",
        r"return int\(value\) if isinstance\(value, float\) and value\.is_integer\(\) else value",
        "return value",
        ("tests/batch/test_memory.py",),
        "equal or recognised",
    ),
    Mutation(
        "what version 0.1 has stored of 7.0 is not recognised",
        "airflow_provider_flux/protocol/fingerprint.py",
        r"    for given in inputs:\n        yield .*\n",
        "    del inputs\n",
        ("tests/batch/test_memory.py",),
        "recognised",
    ),
    Mutation(
        "a table may be the batch's own manifest",
        "airflow_provider_flux/batch/run.py",
        r"        check_table_path\(.*\)\n",
        "",
        ("tests/batch/test_memory.py",),
        "overwrite",
    ),
    Mutation(
        "any file in the manifest's place is a manifest",
        "airflow_provider_flux/batch/manifest.py",
        r'if missing := sorted\(\{"row".*:',
        "if missing := []:",
        ("tests/batch/test_memory.py",),
        "users_own",
    ),
    Mutation(
        "what a full disk did not take is not written later",
        "airflow_provider_flux/batch/ledger.py",
        r"            self\._store\.put_entries\(facts\)\n            self\._owed \+= facts\n",
        "            del facts\n",
        ("tests/batch/test_own_files.py",),
        "ids",
    ),
    Mutation(
        "a file of a picture that is not whole is left",
        "airflow_provider_flux/outputs/storing.py",
        r"            self\._path\.unlink\(missing_ok=True\)\n",
        "            pass\n",
        ("tests/batch/test_own_files.py",),
        "pictures",
    ),
)


class NotApplicable(Exception):
    """The code that a mutation changes is not there (any more)."""


def main() -> int:
    """Try every mutation; return the exit code."""
    argparse.ArgumentParser(description="Take safeguards out of a copy and see whether a test notices.").parse_args()
    with tempfile.TemporaryDirectory(prefix="flux-mutations-") as folder:
        copies: SimpleQueue[Path] = SimpleQueue()
        try:
            for number in range(AT_ONCE):
                copy = Path(folder) / f"copy-{number}"
                shutil.copytree(ROOT, copy, ignore=_ignored, symlinks=True)
                _check_that_the_copy_is_tested(copy)
                copies.put(copy)
            survived = _survivors(copies)
        except NotApplicable as error:
            print(f"cannot be tried: {error}")
            return 2
    print(f"SURVIVED: {'; '.join(survived)}" if survived else f"all {len(MUTATIONS)} mutations were caught")
    return 1 if survived else 0


def _survivors(copies: SimpleQueue[Path]) -> list[str]:
    """Try all mutations, each in a copy that no other is applied to meanwhile."""

    def is_caught(mutation: Mutation) -> bool:
        copy = copies.get()
        try:
            return _is_caught(mutation, copy)
        finally:
            copies.put(copy)

    with ThreadPoolExecutor(AT_ONCE) as threads:
        caught = list(threads.map(is_caught, MUTATIONS))
    return [mutation.name for mutation, is_noticed in zip(MUTATIONS, caught, strict=True) if not is_noticed]


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
        failed = _failed_tests(mutation.tests, mutation.only, copy)
    finally:
        file.write_text(whole)
    # A test that fails anyway has not noticed anything.
    unrelated = _failed_tests(tuple(failed), mutation.only, copy) if failed else Counter()
    caught = {test: count for test, count in sorted(failed.items()) if test not in unrelated}
    lines = [f"{mutation.name}: {f'caught by {sum(caught.values())} tests' if caught else 'SURVIVED'}"]
    lines += [f"    {test}{f' ({count} cases)' if count > 1 else ''}" for test, count in caught.items()]
    print("\n".join(lines), flush=True)
    return bool(caught)


def _failed_tests(tests: tuple[str, ...], only: str, copy: Path) -> Counter[str]:
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
        "--maxfail",
        "3",
        *(("-k", only) if only else ()),
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
