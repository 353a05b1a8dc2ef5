"""What must be true after every run. Each rule is a pure function that returns what is wrong, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

from airflow_provider_flux.emulator.rules import AFTER_ACCEPT
from airflow_provider_flux.protocol.flows import DOUBTFUL_LIMIT
from tests.chaos.plan import BY_A_PERSON, CLEARS, MAKE, WAIT
from tests.chaos.run_record import Act, Asked, Made, Process, RunRecord

Rule = Callable[[RunRecord], list[str]]

ENDED_WITHOUT_PICTURE = frozenset({"failed", "canceled", "aborted"})
REFUSED_CONTENT = frozenset({"E005", "NSFW"})
"""Outcomes that other models would meet as well."""

FAILS_FOR_GOOD = REFUSED_CONTENT | {"E1001"}
"""Outcomes that the same input would meet again (the provider's ``can_pass``)."""

GONE = frozenset({"data_removed", "forgotten"})
"""Outcomes after which a clear may make another prediction."""

NO_URL = frozenset({"data_uri", "null_output", "empty_list", "data_removed"})
"""Successes that hold no URL to hand on."""

CLEARLY_REFUSED = frozenset(
    {"400", "401", "402", "403", "403_quota", "404", "409", "413", "422", "500_invalid_request", "503_model_not_found"}
    | {"429", "429_header", "429_date", "429_body", "429_text", "429_upstream"}
    | {"html", "redirect", "redirect_302", "redirect_307", "failure_in_200", "slow"}
)
"""Faults of a create by which the gateway says that it made nothing, and ``slow``, which says all."""

DENIED = frozenset({"html_after_accept", "redirect_after_accept", "failure_in_200_after_accept"})
"""Answers that deny a prediction that was made: no client can tell them from the truth."""

REFUSALS = frozenset(
    {"400", "401", "402", "403", "403_quota", "413", "422", "500_invalid_request", "503_model_not_found"}
    | {"redirect", "redirect_302", "redirect_307", "failure_in_200"}
)
"""Faults of a query by which the gateway says that asking again would not help."""

NOT_THERE = frozenset({"404", "empty_envelope"})
"""Faults of a query by which the gateway says that it knows no such prediction."""

KILL_LIMIT = 6.0
"""Seconds within which a canceled prediction must have ended: Airflow kills a worker after 5 s."""


def paid_twice(record: RunRecord) -> list[str]:
    """Find a second prediction where the first was not over and done with."""
    return [
        f"{later.id} was made although {earlier.id} ({earlier.status}, outcome {earlier.outcome}) was made before"
        for earlier, later in pairwise(record.predictions)
        if not _may_follow(record, earlier, later)
    ]


def _may_follow(record: RunRecord, earlier: Made, later: Made) -> bool:
    cleared = record.acts_of(CLEARS, since=earlier.created, until=later.created)
    if any(act.changes_input for act in cleared):
        return True
    known = record.known(earlier, at=later.created)
    if not known:
        return (
            record.resubmits
            or (bool(cleared) and _unknown_was_told(record, earlier, later))
            or _denied(record, earlier)
        )
    if earlier.status in ENDED_WITHOUT_PICTURE and earlier.ended is not None and earlier.ended <= later.created:
        for_good = REFUSED_CONTENT if record.has_fallbacks else FAILS_FOR_GOOD
        return earlier.status != "failed" or earlier.outcome not in for_good or bool(cleared)
    return bool(cleared) and (earlier.outcome in GONE or _said_to_be_gone(record, earlier, later))


def _said_to_be_gone(record: RunRecord, earlier: Made, later: Made) -> bool:
    """Tell whether the gateway said it so often that it had to be believed."""
    said = [
        query
        for query in record.asked("get")
        if query.prediction_id == earlier.id
        and query.at <= later.created
        and (query.fault or "").removesuffix(AFTER_ACCEPT) in NOT_THERE
    ]
    return len(said) >= DOUBTFUL_LIMIT


def _unknown_was_told(record: RunRecord, earlier: Made, later: Made) -> bool:
    return any(process.told and earlier.created <= process.ended <= later.created for process in record.processes)


def sent_again_in_doubt(record: RunRecord) -> list[str]:
    """Find a create that followed one whose outcome nobody could know, where no list could tell."""
    if record.lists or record.resubmits:
        return []
    creates = record.asked("create")
    return [
        f"a create was sent after one that met {earlier.fault}"
        for earlier, later in pairwise(creates)
        if _in_doubt(earlier) and not record.acts_of(CLEARS, since=earlier.at, until=later.at)
    ]


def orphans(record: RunRecord) -> list[str]:
    """Find predictions that run or have run to success and that no task knows, without a word about it."""
    return [
        f"{made.id} is {made.status} and no task knows it"
        for made in unknown_predictions(record)
        if not _told_about(record, made) and not _denied(record, made) and not record.resubmits
    ]


def unknown_predictions(record: RunRecord) -> list[Made]:
    """Return what was made and cost money, and is in no store and no XCom."""
    return [m for m in record.predictions if (m.alive or m.status == "succeeded") and not record.known(m)]


def _told_about(record: RunRecord, made: Made) -> bool:
    return any(process.told and process.ended >= made.created for process in record.processes)


def _denied(record: RunRecord, made: Made) -> bool:
    return any(create.prediction_id == made.id and create.fault in DENIED for create in record.asked("create"))


def lost_outputs(record: RunRecord) -> list[str]:
    """Find a task that failed although its prediction succeeded and nothing explains it."""
    failed = next((task for task in (MAKE, WAIT) if record.states.get(task) == "failed"), None)
    if failed is None or any(act.kind in BY_A_PERSON and act.task == failed for act in record.acts):
        return []
    process = record.last_worker_process(failed)
    lost = [made for made in record.predictions if made.status == "succeeded" and record.known(made)]
    if lost and not (process is not None and _explained(record, process, lost[-1])):
        why = f"{process.error}: {process.text}" if process is not None else "no process"
        return [f"{failed} failed although {lost[-1].id} succeeded ({lost[-1].outcome}): {why}"]
    if process is not None and process.told and _could_be_found(record):
        return [f"{failed} says that nobody can know, but the list would have shown it: {process.text}"]
    return []


def _explained(record: RunRecord, process: Process, made: Made) -> bool:
    if process.error in ("FluxOutputError", "FluxOutputExpiredError"):
        return made.outcome in NO_URL
    if process.error in ("FluxDeadlineError", "AirflowSensorTimeout"):
        late = made.ended is None or made.ended > process.deadline - 0.5
        return late or _queries_fail_for_ever(record)
    if process.error in ("FluxRefusedError", "AirflowFailException"):
        return made.outcome == "forgotten" or _was_refused(record, process) or _queries_fail_for_ever(record)
    if process.error == "FluxGatewayError":
        return _queries_fail_for_ever(record)
    if process.error == "FluxSubmissionUnknownError":
        # About a create after the one that made this picture, which a clear can lead to.
        return any(_in_doubt(create) for create in _later_creates(record, process, made))
    return False


def _later_creates(record: RunRecord, process: Process, made: Made) -> list[Asked]:
    creates = [create for create in record.asked("create") if process.started <= create.at <= process.ended]
    return [create for create in creates if create.prediction_id != made.id]


def _in_doubt(create: Asked) -> bool:
    return create.fault is not None and create.fault not in CLEARLY_REFUSED | DENIED


def _was_refused(record: RunRecord, process: Process) -> bool:
    return any(
        request.kind in ("create", "get", "list")
        and (request.fault or "").removesuffix(AFTER_ACCEPT) in REFUSALS
        and process.started <= request.at <= process.ended
        for request in record.requests
    )


def _queries_fail_for_ever(record: RunRecord) -> bool:
    return any(kind == "get" for kind, _ in record.for_ever)


def _could_be_found(record: RunRecord) -> bool:
    list_met_a_fault = any(request.fault for request in record.asked("list"))
    return record.lists and not list_met_a_fault and len(unknown_predictions(record)) == 1


def wrongly_canceled(record: RunRecord) -> list[str]:
    """Find cancels of predictions whose task was still wanted."""
    return [
        f"{cancel.prediction_id} was canceled while its task was wanted"
        for cancel in record.asked("cancel")
        if not any(_permits(act, cancel, record) for act in record.acts if act.task == MAKE)
        and not any(
            process.task == MAKE and cancel.at >= process.deadline for process in _processes_around(record, cancel)
        )
    ]


def _permits(act: Act, cancel: Asked, record: RunRecord) -> bool:
    if not act.at <= cancel.at <= act.until:
        return False
    created = next((made.created for made in record.predictions if made.id == cancel.prediction_id), 0.0)
    if act.kind in CLEARS:
        return created <= act.at or act.kind == "clear while running"
    return act.kind in BY_A_PERSON or act.kind == "terminate worker"


def _processes_around(record: RunRecord, request: Asked) -> list[Process]:
    return [process for process in record.processes if process.started <= request.at <= process.ended + 1.0]


def hangs(record: RunRecord) -> list[str]:
    """Find processes that went on after their deadline and a margin."""
    return [
        f"{process.kind} process of {process.task}, try {process.try_number}, "
        f"ran {process.ended - process.started:.1f} s"
        for process in record.processes
        if process.ended > process.limit
    ]


def left_running(record: RunRecord) -> list[str]:
    """Find predictions that run on although their task is over and the gateway would have canceled them."""
    if not record.cancels or any(request.fault for request in record.asked("cancel")):
        return []
    ended = [act for act in record.acts if act.kind in BY_A_PERSON and act.task == MAKE]
    left = []
    for made in record.predictions:
        if not record.known(made):
            continue
        in_time = ended and made.ended is not None and made.ended <= ended[0].at + KILL_LIMIT
        if ended and made.created <= ended[0].until and not in_time:
            left.append(f"{made.id} is {made.status} although a person ended its task")
        elif not ended and made.alive and _nobody_waits(record):
            left.append(f"{made.id} is {made.status} although its task is over")
    return left


def _nobody_waits(record: RunRecord) -> bool:
    if not record.waits or any(act.changes_input for act in record.acts):
        return False
    process = record.last_worker_process(MAKE)
    return record.states.get(MAKE) == "success" or (process is not None and process.error == "FluxDeadlineError")


def leaks(record: RunRecord) -> list[str]:
    """Find the key where it must never be."""
    return [f"the key is in {where}" for where in record.leaks]


RULES: Mapping[str, Rule] = {
    "double POSTs": paid_twice,
    "sent again in doubt": sent_again_in_doubt,
    "orphans": orphans,
    "lost outputs": lost_outputs,
    "wrongly canceled": wrongly_canceled,
    "left running": left_running,
    "hangs": hangs,
    "keys leaked": leaks,
}


def violations(record: RunRecord) -> dict[str, list[str]]:
    """Return what is wrong with a run, by rule.

    A run that was cut short at a hang had no chance to keep some of them.
    """
    cut_short = {"double POSTs", "orphans", "lost outputs", "left running"} if hangs(record) else set()
    found = {name: rule(record) for name, rule in RULES.items() if name not in cut_short}
    return {name: problems for name, problems in found.items() if problems}


def ending(record: RunRecord) -> str:
    """Name how a run ended, for the table."""
    if any(act.kind in BY_A_PERSON for act in record.acts):
        return "ended by person"
    if set(record.states.values()) == {"success"}:
        return "picture"
    if any(process.told for process in record.processes):
        return "unknown, told"
    return "denied" if any(_denied(record, made) for made in unknown_predictions(record)) else "failed"
