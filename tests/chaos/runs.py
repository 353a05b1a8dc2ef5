"""Runs plans one after another, in several processes, and says what became of them."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator

from airflow_provider_flux.operators.flux import FluxPredictionOperator
from airflow_provider_flux.protocol import cancellation, lookup, schedule
from airflow_provider_flux.sensors.flux import FluxPredictionSensor
from airflow_provider_flux.tasks import pending
from tests.chaos.gateway import KEY, Gateway, running_gateway
from tests.chaos.plan import FOR_EVER, MAKE, WAIT, Plan, plan_for
from tests.chaos.processes import fork
from tests.chaos.rules import ending, violations
from tests.chaos.run_record import Asked, Made, RunRecord
from tests.chaos.storage import Journal, Kept
from tests.chaos.task_instance import OperatorTaskInstance
from tests.inputs.pictures import picture

MODEL = "black-forest-labs/flux-schnell"
MODEL_WITH_A_PHOTO = "black-forest-labs/flux-dev"
FALLBACKS = (
    {"model": "black-forest-labs/flux-dev"},
    {"flux_conn_id": "flux_other", "model": "black-forest-labs/flux-1.1-pro"},
)
ANOTHER_MODEL = "another model"
FALLBACK_PATIENCE = 1.0
"""Seconds for which a way that does not accept is tried."""
READ_TIMEOUT = 0.4
PATIENCE = 1.5
"""Seconds for which a cancel is tried."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of one run.

    :param played: faults that were met, as ``create: 500``, the kill if it came in time, and whether another model
        was asked.
    :param problems: what is wrong, by rule.
    :param record: a few lines to read when something is.
    """

    seed: int
    ending: str
    seconds: float
    played: list[str] = field(default_factory=list)
    problems: dict[str, list[str]] = field(default_factory=dict)
    record: list[str] = field(default_factory=list)


def be_impatient() -> None:
    """Shorten the provider's pauses in this process and its children."""
    for module, name, value in (
        (schedule, "BACKOFF_BASE", 0.02),
        (lookup, "LOOKS_AFTER", (0.05, 0.1, 0.3, 0.5)),
        (cancellation, "CANCEL_PATIENCE", PATIENCE),
        (pending, "QUICK_WAIT", 0.3),
        (pending, "SLOW_WAIT", 0.3),
    ):
        if not hasattr(module, name):
            raise AttributeError(f"{module.__name__} has no {name} any more")
        setattr(module, name, value)


def warm_up() -> None:
    """Import what the children would otherwise import each for itself."""
    import importlib

    for name in ("client.sync", "client.aio", "triggers.flux", "inputs.sending"):
        importlib.import_module(f"airflow_provider_flux.{name}")
    os.environ["AIRFLOW_CONN_FLUX_DEFAULT"] = json.dumps(
        {"conn_type": "flux", "host": "http://127.0.0.1", "password": KEY}
    )
    hook = FluxPredictionOperator(task_id="warm", model=MODEL, prompt="x").hook
    hook.check_input(MODEL, {"prompt": "x"})
    hook.access  # noqa: B018 (loads the secrets backends)
    assert threading.active_count() == 1, "a process with threads must not fork"


def run_plan(plan: Plan, gateway: Gateway, folder: Path) -> Report:
    """Lead one run and judge it."""
    started = time.time()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    gateway.prepare(plan)
    photo = folder / "photo.png"
    if plan.has_photo:
        photo.write_bytes(picture())
    _connect(gateway.url, gateway=plan.gateway, read_timeout=READ_TIMEOUT)
    lives = [OperatorTaskInstance(plan, Kept(folder, MAKE), lambda version: _operator(plan, version, photo))]
    state = lives[0].live()
    if plan.mode == "sensor" and state == "success":
        prediction_id = lives[0].value
        lives.append(OperatorTaskInstance(plan, Kept(folder, WAIT), lambda _: _sensor(plan, prediction_id)))
        lives[1].live()
    record = _story(plan, lives, gateway.ledger(), folder)
    return Report(
        seed=plan.seed,
        ending=ending(record),
        seconds=round(time.time() - started, 2),
        played=_played(plan, record),
        problems=violations(record),
        record=_tell(plan, record),
    )


def _connect(host: str, **extra: object) -> None:
    connection = {"conn_type": "flux", "host": host, "password": KEY, "extra": extra}
    for conn_id in ("FLUX_DEFAULT", "FLUX_OTHER"):
        os.environ[f"AIRFLOW_CONN_{conn_id}"] = json.dumps(connection)


def _operator(plan: Plan, version: int, photo: Path) -> BaseOperator:
    return FluxPredictionOperator(
        task_id=MAKE,
        model=MODEL_WITH_A_PHOTO if plan.has_photo else MODEL,
        input={"image": str(photo)} if plan.has_photo else None,
        input_transfer="upload" if plan.has_photo and plan.gateway == "replicate" else "auto",
        prompt=f"A paper boat, number {plan.seed}, version {version}.",
        wait_for_completion=plan.mode != "sensor",
        deferrable=plan.mode == "deferrable",
        wait_before_defer=plan.wait_before_defer,
        timeout=plan.timeout,
        poll_interval=plan.poll_interval,
        retries=plan.retries,
        on_unknown_submission="resubmit" if plan.resubmits else "fail",
        fallbacks=FALLBACKS if plan.has_fallbacks else (),
        patience=FALLBACK_PATIENCE,
    )


def _sensor(plan: Plan, prediction_id: str) -> BaseOperator:
    return FluxPredictionSensor(
        task_id=WAIT,
        prediction_id=prediction_id,
        deferrable=plan.sensor_defers,
        poll_interval=plan.poll_interval,
        poke_interval=max(plan.poll_interval, 0.1),
        timeout=plan.timeout,
        retries=plan.retries,
    )


def _story(plan: Plan, lives: Sequence[OperatorTaskInstance], ledger: dict[str, Any], folder: Path) -> RunRecord:
    made = tuple(
        Made(**{name: shown[name] for name in ("id", "created", "status", "ended", "outcome")})
        for shown in ledger["predictions"]
    )
    asked = tuple(
        Asked(**{name: shown[name] for name in ("kind", "at", "path", "fault", "accepted", "prediction_id")})
        for shown in ledger["requests"]
    )
    return RunRecord(
        lists=plan.lists,
        cancels=plan.cancels,
        waits=plan.mode != "sensor",
        resubmits=plan.resubmits,
        has_fallbacks=plan.has_fallbacks,
        outcome=plan.outcome,
        predictions=made,
        requests=asked,
        processes=tuple(
            sorted(
                (process for instance in lives for process in instance.processes), key=lambda process: process.started
            )
        ),
        acts=tuple(act for instance in lives for act in instance.acts),
        learned=Journal(folder / "journal.jsonl").first_mentions([prediction.id for prediction in made]),
        states={instance.kept.task_id: instance.state for instance in lives},
        for_ever=tuple((rule["on"], rule["fault"]) for rule in plan.faults if rule.get("times", 1) is FOR_EVER),
        leaks=tuple(sorted(path.name for path in folder.iterdir() if KEY.encode() in path.read_bytes())),
    )


def _played(plan: Plan, record: RunRecord) -> list[str]:
    faults = {f"{asked.kind}: {asked.fault}" for asked in record.requests if asked.fault}
    kills = {plan.kill.label} if plan.kill is not None and record.acts else set()
    models = {asked.path for asked in record.asked("create")}
    return sorted(faults | kills | ({ANOTHER_MODEL} if len(models) > 1 else set()))


def _tell(plan: Plan, record: RunRecord) -> list[str]:
    """Write the run down as lines in order of time."""
    zero = min((process.started for process in record.processes), default=0.0)
    lines = [
        (process.started, f"{process.task}/{process.try_number} {process.kind} starts") for process in record.processes
    ]
    lines += [
        (
            process.ended,
            f"{process.task}/{process.try_number} {process.kind} ends: "
            f"{process.result or 'killed'} {process.error} {process.text}",
        )
        for process in record.processes
    ]
    lines += [(act.at, f"{act.task}: {act.kind}{' (input changed)' * act.changes_input}") for act in record.acts]
    lines += [
        (a.at, f"  {a.kind}{f' [{a.fault}]' if a.fault else ''}{' accepted' * a.accepted} {a.prediction_id or ''}")
        for a in record.requests
    ]
    lines += [(at, f"  kept id {name}") for name, at in record.learned.items()]
    lines += [(m.ended, f"  {m.id} is {m.status}") for m in record.predictions if m.ended is not None]
    told = [f"{at - zero:7.3f} {text}" for at, text in sorted(lines)]
    return [f"plan: {plan}", *told, f"states: {dict(record.states)}"]


@contextmanager
def all_in(
    folder: Path, seeds: Sequence[int], jobs: int, *, photos: bool = False, fallbacks: bool = False
) -> Iterator[Iterator[Report]]:
    """Run seeds in several processes, each with an emulator of its own, and yield the reports as they come.

    :param photos: let a picture go in with every prediction.
    :param fallbacks: give every prediction two other ways to be made.
    """
    be_impatient()
    warm_up()
    folder.mkdir(parents=True)
    reading, writing = os.pipe()

    def job(number: int) -> None:
        os.close(reading)
        place = folder / f"job{number}"
        place.mkdir()
        with running_gateway(place / "emulator.log") as gateway, (folder / "turn").open("a") as turn:
            for seed in seeds[number::jobs]:
                plan = replace(plan_for(seed), has_photo=photos, has_fallbacks=fallbacks)
                report = run_plan(plan, gateway, place / "run")
                fcntl.flock(turn, fcntl.LOCK_EX)  # a long line is not written in one piece
                with os.fdopen(os.dup(writing), "wb") as pipe:
                    pipe.write(json.dumps(asdict(report)).encode() + b"\n")
                fcntl.flock(turn, fcntl.LOCK_UN)

    pids = [fork(lambda number=number: job(number), folder / f"job{number}.log") for number in range(jobs)]  # type: ignore[misc]
    os.close(writing)
    try:
        with os.fdopen(reading) as lines:
            yield (Report(**json.loads(line)) for line in lines)
    finally:
        for number, pid in enumerate(pids):
            if os.waitpid(pid, 0)[1] != 0:
                sys.stderr.write((folder / f"job{number}.log").read_text()[-4000:])
