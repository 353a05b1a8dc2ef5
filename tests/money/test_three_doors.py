"""One money path, three doors: whatever happens to a create, hook, operator and batch pay the same and say the same.

The expectation stands once for each event. After it, the task is retried or a person clears it; the hook has no second
try. An Airflow retry after a lasting error comes about where the worker dies before it can report the error.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest

from airflow_provider_flux.batch import ledger, list_lookups
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
from tests.batch.task_instance import SCHNELL, BatchTaskInstance, table
from tests.conftest import Connect
from tests.durable.task_instance import OperatorTaskInstance
from tests.servers import LateGateway

Outcome = Literal["picture", "unknown", "refused", "rejected", "unreachable", "failed", "canceled", "deadline"]
LASTING = frozenset({"unknown", "refused", "rejected"})
"""Outcomes that Airflow does not retry by itself."""
PROMPT = "A studio photo of thing 0"
NO_DEADLINE = "create, wait and cancel are calls of their own at the hook: it has no deadline that cancels"


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happens, and what must come of it.

    :param faults: what requests meet: fault, kind of request, how often (None: always).
    :param outcome: how predictions end, other than well; the first of them.
    :param twins: how many predictions of the same input somebody else makes at the moment of the create.
    :param opens: when a connection can be made: always, a little after the first try has begun, or after its end.
    :param cancel: how the gateway cancels, as the emulator's setting of this name says.
    :param timeout: seconds until the deadline.
    :param lasts: whether what requests meet goes on in the second try.
    :param first: POSTs and accepted predictions of the first try, and its outcome.
    :param retried: the same in all, once Airflow has retried the task.
    :param batch_retried: the same for a batch, where it cannot be the same, with the reason beside it.
    :param cleared: the same in all, once a person has cleared the task.
    :param cancels: cancel requests of the first try.
    :param not_at_hook: why the hook cannot have the event; empty if it can.
    """

    gateway: str = "deerapi"
    faults: tuple[tuple[str, str, int | None], ...] = ()
    outcome: str = ""
    resubmits: bool = False
    twins: int = 0
    opens: Literal["always", "during", "after"] = "always"
    cancel: str = "works"
    timeout: float = 30.0
    lasts: bool = False
    first: tuple[int, int, Outcome]
    retried: tuple[int, int, Outcome]
    batch_retried: tuple[int, int, Outcome] | None = None
    cleared: tuple[int, int, Outcome]
    cancels: int = 0
    not_at_hook: str = ""


def lost(fault: str = "reset_after_accept", times: int | None = 1) -> tuple[tuple[str, str, int | None], ...]:
    return ((fault, "create", times),)


REFUSED_ACCOUNTS = ("401", "402", "403", "403_quota")
REFUSED_INPUTS = ("404", "413", "422", "500_invalid_request", "503_model_not_found")
RESUBMITS = {"": False, ", resubmit": True}

EVENTS: dict[str, Event] = {
    "nothing goes wrong": Event(first=(1, 1, "picture"), retried=(1, 1, "picture"), cleared=(1, 1, "picture")),
    "no connection at first": Event(
        opens="during", first=(1, 1, "picture"), retried=(1, 1, "picture"), cleared=(1, 1, "picture")
    ),
    "no connection until the deadline": Event(
        opens="after",
        timeout=1.0,
        first=(0, 0, "unreachable"),
        retried=(1, 1, "picture"),
        cleared=(1, 1, "picture"),
    ),
    "429, then accepted": Event(
        faults=(("429", "create", 1),), first=(2, 1, "picture"), retried=(2, 1, "picture"), cleared=(2, 1, "picture")
    ),
    **{
        f"refused with {fault}": Event(
            faults=((fault, "create", 1),),
            first=(1, 0, "refused"),
            retried=(2, 1, "picture"),
            cleared=(2, 1, "picture"),
        )
        for fault in REFUSED_ACCOUNTS
    },
    **{
        f"refused with {fault}": Event(
            faults=((fault, "create", 1),),
            first=(1, 0, "refused"),
            retried=(2, 1, "picture"),
            # A batch is retried for the sake of its other rows, and remembers which were refused for good.
            batch_retried=(1, 0, "refused"),
            cleared=(2, 1, "picture"),
        )
        for fault in REFUSED_INPUTS
    },
    **{
        f"{fault}: of a wrong URL one cannot be quite sure": Event(
            faults=((fault, "create", 1),),
            first=(1, 0, "refused"),
            retried=(1, 0, "unknown"),
            # The intent was not told of yet when the person cleared the task: no error has named the risk.
            cleared=(1, 0, "unknown"),
        )
        for fault in ("redirect", "html")
    },
    **{
        f"{fault}, no list": Event(
            faults=lost(fault), first=(1, 1, "unknown"), retried=(1, 1, "unknown"), cleared=(2, 2, "picture")
        )
        for fault in ("reset_after_accept", "hang_after_accept", "502_after_accept", "truncated_after_accept")
    },
    "reset before anything was made, no list": Event(
        faults=lost("reset_before_accept"),
        first=(1, 0, "unknown"),
        retried=(1, 0, "unknown"),
        cleared=(2, 1, "picture"),
    ),
    **{
        f"{fault}, no list, resubmit": Event(
            faults=lost(fault),
            resubmits=True,
            first=(2, 2, "picture"),
            retried=(2, 2, "picture"),
            cleared=(2, 2, "picture"),
        )
        for fault in ("reset_after_accept", "hang_after_accept", "502_after_accept")
    },
    "every answer lost, no list, resubmit": Event(
        faults=lost(times=2),
        resubmits=True,
        first=(2, 2, "unknown"),
        retried=(3, 3, "picture"),
        cleared=(3, 3, "picture"),
    ),
    **{
        f"{fault}, the list has it{how}": Event(
            gateway="replicate",
            faults=lost(fault),
            resubmits=resubmits,
            first=(1, 1, "picture"),
            retried=(1, 1, "picture"),
            cleared=(1, 1, "picture"),
        )
        for fault in ("reset_after_accept", "hang_after_accept", "502_after_accept")
        for how, resubmits in RESUBMITS.items()
    },
    **{
        f"{fault}: nothing was made, as the list tells{how}": Event(
            gateway="replicate",
            faults=lost(fault),
            resubmits=resubmits,
            first=(2, 1, "picture"),
            retried=(2, 1, "picture"),
            cleared=(2, 1, "picture"),
        )
        for fault in ("500", "reset_before_accept")
        for how, resubmits in RESUBMITS.items()
    },
    **{
        f"lost answer, the list is refused{how}": Event(
            gateway="replicate",
            faults=(*lost(), ("403", "list", None)),
            resubmits=resubmits,
            first=(1, 1, "unknown"),
            # By then the list tells.
            retried=(1, 1, "picture"),
            cleared=(1, 1, "picture"),
        )
        for how, resubmits in RESUBMITS.items()
    },
    **{
        f"lost answer, the list is refused for ever{how}": Event(
            gateway="replicate",
            faults=(*lost(), ("403", "list", None)),
            resubmits=resubmits,
            lasts=True,
            first=(1, 1, "unknown"),
            retried=(1, 1, "unknown"),
            # A person who clears the task after its error has told of it takes the risk.
            cleared=(2, 2, "picture"),
        )
        for how, resubmits in RESUBMITS.items()
    },
    **{
        f"lost answer, the list is out until the deadline{how}": Event(
            gateway="replicate",
            faults=(*lost(), ("503", "list", None)),
            resubmits=resubmits,
            timeout=1.0,
            first=(1, 1, "unknown"),
            retried=(1, 1, "picture"),
            cleared=(1, 1, "picture"),
        )
        for how, resubmits in RESUBMITS.items()
    },
    **{
        f"lost answer, two in the list could be it{how}": Event(
            gateway="replicate",
            faults=lost(),
            resubmits=resubmits,
            twins=1,
            first=(2, 2, "unknown"),
            retried=(2, 2, "unknown"),
            cleared=(3, 3, "picture"),
        )
        for how, resubmits in RESUBMITS.items()
    },
    "refused content": Event(
        outcome="E005", first=(1, 1, "rejected"), retried=(1, 1, "rejected"), cleared=(2, 2, "picture")
    ),
    "a failure that may pass": Event(
        outcome="PA", first=(1, 1, "failed"), retried=(2, 2, "picture"), cleared=(2, 2, "picture")
    ),
    **{
        f"{outcome} by the service": Event(
            outcome=outcome, first=(1, 1, "canceled"), retried=(2, 2, "picture"), cleared=(2, 2, "picture")
        )
        for outcome in ("canceled", "aborted")
    },
    **{
        f"deadline, the cancel works, {gateway}": Event(
            gateway=gateway,
            outcome="stuck",
            timeout=1.0,
            first=(1, 1, "deadline"),
            retried=(2, 2, "picture"),
            cleared=(2, 2, "picture"),
            cancels=1,
            not_at_hook=NO_DEADLINE,
        )
        for gateway in ("deerapi", "replicate")
    },
    "deadline, the cancel finds a picture": Event(
        faults=(("503", "get", None),),
        timeout=1.0,
        first=(1, 1, "picture"),
        retried=(1, 1, "picture"),
        cleared=(1, 1, "picture"),
        cancels=1,
        not_at_hook=NO_DEADLINE,
    ),
    "deadline, no cancel route": Event(
        outcome="stuck",
        timeout=1.0,
        cancel="404",
        first=(1, 1, "deadline"),
        # It went on, was paid for, and is done by then.
        retried=(1, 1, "picture"),
        cleared=(1, 1, "picture"),
        cancels=1,
        not_at_hook=NO_DEADLINE,
    ),
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "LOOKS_AFTER", (0.05, 0.2, 0.4))
    monkeypatch.setattr(ledger, "COMMIT_PAUSE", 0.01)
    monkeypatch.setattr(list_lookups, "SHORTEST_PAUSE", 0.1)
    monkeypatch.setattr(lookup, "GRACE", 0.3)
    monkeypatch.setattr(cancellation, "CANCEL_PATIENCE", 1.0)


def outcome_of(error: FluxError) -> Outcome:
    """Return what an error says, in a word: a batch repeats the error of its row."""
    text = str(error)
    is_lasting = isinstance(error, AirflowFailException)
    outcome: Outcome
    if "may have been accepted and billed" in text:
        outcome = "unknown"
    elif "did not end in time" in text:
        outcome = "deadline"
    elif "was canceled" in text or "was aborted" in text:
        outcome = "canceled"
    elif re.search(r"Prediction \S+ failed", text):
        outcome = "rejected" if is_lasting else "failed"
    else:
        outcome = "refused" if is_lasting else "unreachable"
    assert is_lasting == (outcome in LASTING)
    assert not isinstance(error, FluxSubmissionUnknownError) or outcome == "unknown"
    return outcome


class HookDoor:
    """The hook. It has no second try."""

    def __init__(self, folder: Path, event: Event, model: str = SCHNELL) -> None:
        self._event, self._model = event, model

    def first(self) -> Outcome:
        hook = FluxHook()
        deadline = time.time() + self._event.timeout
        try:
            made = hook.create_prediction(
                self._model,
                {"prompt": PROMPT},
                on_unknown_submission="resubmit" if self._event.resubmits else "fail",
                deadline=deadline,
            )
            ended = hook.wait_for_prediction(made.id, model=self._model, deadline=deadline, poll_interval=0.05)
            assert ended is not None
            if ended.status is not PredictionStatus.SUCCEEDED:
                raise ending_error(ended)
        except FluxError as error:
            return outcome_of(error)
        return "picture"


class OperatorDoor:
    """The operator."""

    def __init__(self, folder: Path, event: Event, model: str = SCHNELL) -> None:
        self._life = OperatorTaskInstance(
            {
                "task_id": "make",
                "model": model,
                "prompt": PROMPT,
                "wait_for_completion": True,
                "poll_interval": 0.05,
                "timeout": event.timeout,
                "on_unknown_submission": "resubmit" if event.resubmits else "fail",
            }
        )

    def first(self) -> Outcome:
        return self._outcome(self._life.execute)

    def retried(self) -> Outcome:
        return self._outcome(self._life.retry)

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

    def __init__(self, folder: Path, event: Event, model: str = SCHNELL) -> None:
        self._life = BatchTaskInstance(
            folder,
            model=model,
            rows=table(1),
            poll_interval=0.05,
            timeout=event.timeout,
            on_unknown_submission="resubmit" if event.resubmits else "fail",
        )

    def first(self) -> Outcome:
        return self._outcome(self._life.execute)

    def retried(self) -> Outcome:
        return self._outcome(self._life.retry)

    def cleared(self) -> Outcome:
        return self._outcome(self._life.clear)

    def _outcome(self, step: Callable[[], Any]) -> Outcome:
        try:
            step()
        except FluxError as error:
            outcome = outcome_of(error)
            assert (self._life.statuses() == ["unknown"]) == (outcome == "unknown")
            return outcome
        assert self._life.statuses() == ["succeeded"]
        return "picture"


DOORS: dict[str, type[Any]] = {"hook": HookDoor, "operator": OperatorDoor, "batch": BatchDoor}
WAYS = [("hook", None), *((door, again) for door in ("operator", "batch") for again in ("retried", "cleared"))]


@pytest.mark.parametrize("way", WAYS, ids=[f"{door}-{again or 'once'}" for door, again in WAYS])
@pytest.mark.parametrize("name", EVENTS)
def test_an_event_costs_the_same_at_every_door(
    name: str, way: tuple[str, str | None], emulator: Emulator, connect: Connect, tmp_path: Path
) -> None:
    """POST: read timeout, reset, 5xx after sending"""
    event, (door, _) = EVENTS[name], way
    if door == "hook" and event.not_at_hook:
        pytest.skip(event.not_at_hook)
    play_at_a_door(event, way, emulator, connect, folder=tmp_path)


def play_at_a_door(
    event: Event,
    way: tuple[str, str | None],
    emulator: Emulator,
    connect: Connect,
    *,
    folder: Path,
    model: str = SCHNELL,
) -> None:
    """Let an event happen, and after it what comes next, and compare what that has cost."""
    door, again = way
    with LateGateway(urlsplit(emulator.url).port or 0) as gateway:
        url = emulator.url if event.opens == "always" else gateway.url
        connect(url, gateway=event.gateway, read_timeout=0.3)
        play(event, emulator, model)
        entered = DOORS[door](folder, event, model)
        if event.opens == "during":
            threading.Timer(0.2, gateway.open).start()
        assert (entered.first(), emulator.posts, emulator.accepted) == (event.first[2], *event.first[:2])
        assert emulator.cancels == event.cancels
        if again is None:
            return
        if event.opens == "after":
            gateway.open()
        if not event.lasts:
            emulator.clear_rules()
        for prediction in emulator.predictions:
            if not prediction.ended:
                emulator.finish(prediction.id, "succeeded")
        expected = event.cleared
        if again == "retried":
            expected = (event.batch_retried if door == "batch" else None) or event.retried
        assert (getattr(entered, again)(), emulator.posts, emulator.accepted) == (expected[2], *expected[:2])


def play(event: Event, emulator: Emulator, model: str = SCHNELL) -> None:
    """Let the emulator do what the event says."""
    emulator.settings(cancel=event.cancel)
    for _ in range(event.twins):
        FluxHook().create_prediction(model, {"prompt": PROMPT})
    for fault, on, times in event.faults:
        emulator.add_fault(fault, on=on, times=times)
    if event.outcome:
        emulator.add_outcome(event.outcome, times=1)
