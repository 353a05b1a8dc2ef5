"""What happens to one prediction, drawn from a seed: gateway, mode, faults, outcome, and what is killed when."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from airflow_provider_flux.emulator.rules import FAULTS, OUTCOMES

MAKE, WAIT = "make", "wait"
"""The operator's task, and the sensor's."""

NEVER_ENDS = frozenset({"stuck", "stuck_starting", "unknown_status"})
CANNOT_CANCEL = ("404", "405", "html", "redirect", "ignored")
FOR_EVER = None
STEPS = ("create", "get", "cancel", "list")
SCENES = tuple((step, fault) for fault in FAULTS for step in STEPS)
LOST_WITHOUT_A_WORD = ("hang", "reset", "truncated", "cut_body", "500", "504", "wrong_shape", "empty")

WORKER_KILLS = ("kill worker", "terminate worker", "mark failed while running", "clear while running")
DEFERRAL_KILLS = (
    "kill triggerer",
    "restart triggerer",
    "stalled triggerer loses its trigger",
    "mark failed while deferred",
    "clear while deferred",
    "no triggerer to the end",
)
CLEAR_AT_THE_END = "clear after the end"
BY_A_PERSON = frozenset({"mark failed while running", "mark failed while deferred"})
CLEARS = frozenset({"clear while running", "clear while deferred", CLEAR_AT_THE_END})


@dataclass(frozen=True, kw_only=True)
class Kill:
    """What is done to a task from outside, once.

    :param kind: one of the kinds above.
    :param task: ``make`` or ``wait``.
    :param process: which worker process or deferral of the task it hits, from 0.
    :param after: the moment it counts from: ``start`` of the process, ``intent`` or ``id`` in the store.
    :param delay: seconds from then on.
    :param offset: seconds between a clear and the moment at which the triggerer notices it.
    :param changes_input: whether the person also changes the prompt when clearing.
    """

    kind: str
    task: str = MAKE
    process: int = 0
    after: str = "start"
    delay: float = 0.0
    offset: float = 0.0
    changes_input: bool = False

    @property
    def label(self) -> str:
        """A short name for the table."""
        where = f" of the sensor, {self.kind}" if self.task == WAIT else f" {self.kind}"
        moment = {"intent": " after the intent", "id": " after the id"}.get(self.after, "")
        return f"kill:{where}{moment}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run.

    :param mode: ``wait``, ``deferrable`` or ``sensor`` (fire and forget, with a sensor that waits).
    :param faults: rules for the emulator, as its control route takes them.
    :param outcome: how the first prediction ends; later ones succeed.
    :param has_photo: whether a picture goes in, uploaded where the gateway takes files.
    :param has_fallbacks: whether two other ways to make the picture are given.
    """

    seed: int
    gateway: str
    settings: dict[str, Any]
    mode: str
    sensor_defers: bool
    faults: tuple[dict[str, Any], ...]
    outcome: str
    kill: Kill | None
    resubmits: bool
    retries: int
    timeout: float
    wait_before_defer: float
    poll_interval: float
    store_latency: float
    has_photo: bool = False
    has_fallbacks: bool = False

    @property
    def lists(self) -> bool:
        """Whether the gateway lists predictions."""
        return self.gateway == "replicate"

    @property
    def cancels(self) -> bool:
        """Whether the gateway cancels when it is asked to."""
        return self.lists or self.settings["cancel"] == "works"


def plan_for(seed: int) -> Plan:
    """Draw a run. The same seed always gives the same plan; what the clock makes of it can differ a little.

    Seeds in a row go through every fault at every step in turn, and the scene is set so that the step is reached.
    """
    chance = random.Random(seed)
    scene = SCENES[seed % len(SCENES)] if chance.random() < 0.88 else None
    step = scene[0] if scene else ""
    gateway = "replicate" if step == "list" else chance.choice(("deerapi", "replicate"))
    mode = chance.choice(("wait", "deferrable") if step == "cancel" else ("wait", "deferrable", "deferrable", "sensor"))
    sensor_defers = chance.random() < 0.5
    kill = _ending_that_cancels(chance, mode) if step == "cancel" else _kill(chance, mode, sensor_defers)
    outcome = _outcome(chance, step, kill)
    faults = _faults(chance, scene, kill)
    waits_in_vain = outcome in NEVER_ENDS or any(rule.get("times", 1) is FOR_EVER for rule in faults)
    quick = waits_in_vain or (kill is not None and kill.kind == "no triggerer to the end")
    return Plan(
        seed=seed,
        gateway=gateway,
        settings={
            "run_time": round(chance.uniform(0.1, 1.0), 3),
            "latency": chance.choice((0.0, 0.0, 0.05, 0.15)),
            "cancel": "works" if gateway == "replicate" or chance.random() < 0.6 else chance.choice(CANNOT_CANCEL),
            "shape": chance.choice(("prediction", "envelope")) if gateway == "deerapi" else "prediction",
            "alias": gateway == "deerapi" and chance.random() < 0.2,
        },
        mode=mode,
        sensor_defers=sensor_defers,
        faults=faults,
        outcome=outcome,
        kill=kill,
        resubmits=chance.random() < 0.08,
        retries=2 if quick else chance.choice((2, 3)),
        timeout=round(chance.uniform(1.8, 2.4) if quick else chance.uniform(6, 10), 2),
        wait_before_defer=chance.choice((0.0, 0.3)),
        poll_interval=chance.choice((0.05, 0.1, 0.2)),
        store_latency=chance.choice((0.0, 0.0, 0.03)),
    )


def _outcome(chance: random.Random, step: str, kill: Kill | None) -> str:
    by_a_person = kill is not None and kill.kind in BY_A_PERSON
    if step == "cancel" or (by_a_person and chance.random() < 0.5):
        return "stuck"  # only what still runs is canceled
    return "succeeded" if chance.random() < 0.6 else chance.choice(sorted(OUTCOMES))


def _faults(chance: random.Random, scene: tuple[str, str] | None, kill: Kill | None) -> tuple[dict[str, Any], ...]:
    rules = [_fault(chance, *scene)] if scene else []
    for _ in range(chance.choices((0, 1, 2), (60, 27, 13))[0] if scene else 0):
        rules.append(_fault(chance, *chance.choice(SCENES)))
    killed_in_the_post = kill is not None and kill.after == "intent" and chance.random() < 0.6
    if killed_in_the_post or (scene is not None and scene[0] == "list"):
        # The gateway makes the prediction and its answer is lost, which leaves the list to look it up in; a worker can
        # be killed meanwhile.
        fault = "hang_after_accept" if killed_in_the_post else f"{chance.choice(LOST_WITHOUT_A_WORD)}_after_accept"
        rules.insert(0, {"fault": fault, "on": "create"})
    return tuple(rules)


def _fault(chance: random.Random, on: str, fault: str) -> dict[str, Any]:
    times = chance.choices((1, 2, 3, FOR_EVER), (62, 20, 10, 8))[0]
    if times is FOR_EVER and on == "create":
        times = 1
    rule: dict[str, Any] = {"fault": fault, "on": on, "times": times, "delay": chance.choice((0.1, 0.3, 0.6))}
    rule["skip"] = chance.choice((0, 0, 1, 2, 4)) if on == "get" else 0
    if fault.startswith("429"):
        rule["retry_after"] = chance.choice((0, 0.2, 1))
    return rule


def _ending_that_cancels(chance: random.Random, mode: str) -> Kill | None:
    """Choose how a prediction that never ends is given up: a person, or (None) the deadline."""
    kinds = ["mark failed while running", "terminate worker", None]
    if mode == "deferrable":
        kinds += ["mark failed while deferred", "mark failed while deferred"]
    kind = chance.choice(kinds)
    if kind is None:
        return None
    return Kill(kind=kind, after="start" if "deferred" in kind else "id", delay=round(chance.uniform(0, 0.4), 3))


def _kill(chance: random.Random, mode: str, sensor_defers: bool) -> Kill | None:
    if chance.random() < 0.2:
        return None
    task = WAIT if mode == "sensor" and chance.random() < 0.4 else MAKE
    defers = mode == "deferrable" if task == MAKE else sensor_defers
    if chance.random() < 0.1:
        return Kill(kind=CLEAR_AT_THE_END, task=task, changes_input=task == MAKE and chance.random() < 0.3)
    draws_change = task == MAKE and chance.random() < 0.25
    if defers and chance.random() < 0.8:
        kind = chance.choice(DEFERRAL_KILLS)
        return Kill(
            kind=kind,
            task=task,
            delay=round(chance.uniform(0, 0.7), 3),
            offset=round(chance.uniform(0, 0.6), 3),
            changes_input=draws_change and kind in CLEARS,
        )
    after = chance.choice(("start", "intent", "id")) if task == MAKE else "start"
    kind = chance.choice(WORKER_KILLS)
    return Kill(
        kind=kind,
        task=task,
        process=1 if defers and after == "start" and chance.random() < 0.4 else 0,
        after=after,
        delay=round(chance.uniform(0, 0.6 if after == "start" else 0.3), 3),
        changes_input=draws_change and kind in CLEARS,
    )
