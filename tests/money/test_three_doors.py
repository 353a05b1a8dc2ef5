"""One money path, three doors: whatever happens to a create, hook, operator and batch pay the same and say the same.

The expectation stands once for each event. After it, a person clears the task, and nothing goes wrong any more; the
hook has no second try.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import (
    AirflowFailException,
    FluxError,
    FluxSubmissionUnknownError,
)
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.protocol import cancellation, lookup
from airflow_provider_flux.protocol.prediction import PredictionStatus
from airflow_provider_flux.tasks.results import ending_error
from tests.batch.life import SCHNELL, BatchLife, table
from tests.conftest import Connect
from tests.durable.tries import TaskLife

Outcome = Literal["picture", "unknown", "lasting error", "error that may pass"]
PROMPT = "A studio photo of thing 0"
TIMEOUT = 3.0
"""Seconds until the deadline of events that last longer than any deadline."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happens, and what must come of it.

    :param faults: what requests meet: fault, kind of request, how often (None: always).
    :param outcome: how predictions end, other than well; the first of them.
    :param twins: how many predictions of the same input somebody else makes at the moment of the create.
    :param first: POSTs and accepted predictions of the first try, and its outcome.
    :param cleared: the same in all, once a person has cleared the task.
    :param cancels: cancel requests of the first try.
    """

    gateway: str = "deerapi"
    faults: tuple[tuple[str, str, int | None], ...] = ()
    outcome: str = ""
    resubmits: bool = False
    twins: int = 0
    is_late: bool = False
    first: tuple[int, int, Outcome]
    cleared: tuple[int, int, Outcome]
    cancels: int = 0


def lost(fault: str = "reset_after_accept", times: int | None = 1) -> tuple[tuple[str, str, int | None], ...]:
    return ((fault, "create", times),)


REFUSALS = ("402", "403", "403_quota", "404", "413", "422", "500_invalid_request", "503_model_not_found")

EVENTS: dict[str, Event] = {
    "nothing goes wrong": Event(first=(1, 1, "picture"), cleared=(1, 1, "picture")),
    "429, then accepted": Event(faults=(("429", "create", 1),), first=(2, 1, "picture"), cleared=(2, 1, "picture")),
    **{
        f"refused with {fault}": Event(
            faults=((fault, "create", 1),), first=(1, 0, "lasting error"), cleared=(2, 1, "picture")
        )
        for fault in REFUSALS
    },
    **{
        f"{fault}: of a wrong URL one cannot be quite sure": Event(
            faults=((fault, "create", 1),), first=(1, 0, "lasting error"), cleared=(1, 0, "unknown")
        )
        for fault in ("redirect", "html")
    },
    **{
        f"{fault}, no list": Event(faults=lost(fault), first=(1, 1, "unknown"), cleared=(2, 2, "picture"))
        for fault in ("reset_after_accept", "hang_after_accept", "502_after_accept", "truncated_after_accept")
    },
    "lost answer, no list, resubmit": Event(
        faults=lost(), resubmits=True, first=(2, 2, "picture"), cleared=(2, 2, "picture")
    ),
    "every answer lost, no list, resubmit": Event(
        faults=lost(times=2), resubmits=True, first=(2, 2, "unknown"), cleared=(3, 3, "picture")
    ),
    **{
        f"{fault}, the list has it{', resubmit' if resubmits else ''}": Event(
            gateway="replicate",
            faults=lost(fault),
            resubmits=resubmits,
            first=(1, 1, "picture"),
            cleared=(1, 1, "picture"),
        )
        for fault in ("reset_after_accept", "hang_after_accept", "502_after_accept")
        for resubmits in (False, True)
    },
    **{
        f"nothing was made, as the list tells{', resubmit' if resubmits else ''}": Event(
            gateway="replicate",
            faults=lost("500"),
            resubmits=resubmits,
            first=(2, 1, "picture"),
            cleared=(2, 1, "picture"),
        )
        for resubmits in (False, True)
    },
    **{
        f"lost answer, the list is refused{', resubmit' if resubmits else ''}": Event(
            gateway="replicate",
            faults=(*lost(), ("403", "list", None)),
            resubmits=resubmits,
            first=(1, 1, "unknown"),
            # A person who clears the task after its error has told of it takes the risk, unless the list tells by then.
            cleared=(1, 1, "picture"),
        )
        for resubmits in (False, True)
    },
    "lost answer, the list is out": Event(
        gateway="replicate",
        faults=(*lost(), ("503", "list", None)),
        is_late=True,
        first=(1, 1, "unknown"),
        cleared=(1, 1, "picture"),
    ),
    **{
        f"lost answer, two in the list could be it{', resubmit' if resubmits else ''}": Event(
            gateway="replicate",
            faults=lost(),
            resubmits=resubmits,
            twins=1,
            first=(2, 2, "unknown"),
            cleared=(3, 3, "picture"),
        )
        for resubmits in (False, True)
    },
    "refused content": Event(outcome="E005", first=(1, 1, "lasting error"), cleared=(2, 2, "picture")),
    "a failure that may pass": Event(outcome="PA", first=(1, 1, "error that may pass"), cleared=(2, 2, "picture")),
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "LOOKS_AFTER", (0.05, 0.2, 0.6))
    monkeypatch.setattr(lookup, "GRACE", 0.3)
    monkeypatch.setattr(cancellation, "CANCEL_PATIENCE", 1.0)


def outcome_of(error: FluxError) -> Outcome:
    if isinstance(error, FluxSubmissionUnknownError):
        return "unknown"
    return "lasting error" if isinstance(error, AirflowFailException) else "error that may pass"


class HookDoor:
    """The hook. It has no second try."""

    has_second_try = False

    def __init__(self, folder: Path, event: Event) -> None:
        self._event = event

    def first(self) -> Outcome:
        hook = FluxHook()
        deadline = time.time() + (TIMEOUT if self._event.is_late else 30)
        try:
            made = hook.create_prediction(
                SCHNELL,
                {"prompt": PROMPT},
                on_unknown_submission="resubmit" if self._event.resubmits else "fail",
                deadline=deadline,
            )
            ended = hook.wait_for_prediction(made.id, model=SCHNELL, deadline=deadline, poll_interval=0.05)
            assert ended is not None
            if ended.status is not PredictionStatus.SUCCEEDED:
                raise ending_error(ended)
        except FluxError as error:
            return outcome_of(error)
        return "picture"


class OperatorDoor:
    """The operator."""

    has_second_try = True

    def __init__(self, folder: Path, event: Event) -> None:
        self._life = TaskLife(
            {
                "task_id": "make",
                "model": SCHNELL,
                "prompt": PROMPT,
                "wait_for_completion": True,
                "poll_interval": 0.05,
                "timeout": TIMEOUT if event.is_late else 30,
                "on_unknown_submission": "resubmit" if event.resubmits else "fail",
            }
        )

    def first(self) -> Outcome:
        return self._outcome(self._life.execute)

    def cleared(self) -> Outcome:
        return self._outcome(self._life.clear)

    @staticmethod
    def _outcome(step: Callable[[], Any]) -> Outcome:
        try:
            step()
        except FluxError as error:
            return outcome_of(error)
        return "picture"


class BatchDoor:
    """A row of a batch."""

    has_second_try = True

    def __init__(self, folder: Path, event: Event) -> None:
        self._life = BatchLife(
            folder,
            rows=table(1),
            poll_interval=0.05,
            timeout=TIMEOUT if event.is_late else 30,
            on_unknown_submission="resubmit" if event.resubmits else "fail",
        )

    def first(self) -> Outcome:
        return self._outcome(self._life.execute)

    def cleared(self) -> Outcome:
        return self._outcome(self._life.clear)

    def _outcome(self, step: Callable[[], Any]) -> Outcome:
        try:
            step()
        except FluxError as error:
            return "unknown" if self._life.statuses() == ["unknown"] else outcome_of(error)
        assert self._life.statuses() == ["succeeded"]
        return "picture"


DOORS = (HookDoor, OperatorDoor, BatchDoor)


@pytest.mark.parametrize("door", DOORS, ids=["hook", "operator", "batch"])
@pytest.mark.parametrize("name", EVENTS)
def test_an_event_costs_the_same_at_every_door(
    name: str, door: type[Any], emulator: Emulator, connect: Connect, tmp_path: Path
) -> None:
    """POST: read timeout, reset, 5xx after sending"""
    event = EVENTS[name]
    connect(emulator.url, gateway=event.gateway, read_timeout=0.5)
    for _ in range(event.twins):
        FluxHook().create_prediction(SCHNELL, {"prompt": PROMPT})
    for fault, on, times in event.faults:
        emulator.add_fault(fault, on=on, times=times)
    if event.outcome:
        emulator.add_outcome(event.outcome, times=1)
    entered = door(tmp_path, event)
    assert (entered.first(), emulator.posts, emulator.accepted) == (event.first[2], *event.first[:2])
    assert emulator.cancels == event.cancels
    if not entered.has_second_try:
        return
    emulator.clear_rules()
    assert (entered.cleared(), emulator.posts, emulator.accepted) == (event.cleared[2], *event.cleared[:2])
