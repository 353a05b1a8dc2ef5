"""The same events in every dialect: whatever a gateway is asked in, it costs the same.

Where a dialect has no such answer, what differs stands here, with the reason beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.emulator.served_models import MODELS
from tests.batch.task_instance import SCHNELL
from tests.conftest import Connect
from tests.money.test_three_doors import EVENTS, NO_DEADLINE, impatient, play_at_a_door

__all__ = ["impatient"]

pytestmark = pytest.mark.money

VERSION = MODELS[SCHNELL].version_id

GOES_ON: dict[str, Any] = {
    "first": (1, 1, "deadline"),
    # BFL has no cancel: the prediction went on, was paid for, and is done by then.
    "retried": (1, 1, "picture"),
    "cleared": (1, 1, "picture"),
    "cancels": 0,
    "not_at_hook": NO_DEADLINE,
}
FAILS: dict[str, Any] = {"first": (1, 1, "failed")}
IN_BFLS_STYLE: Mapping[str, Mapping[str, Any]] = {
    **{name: GOES_ON for name in EVENTS if name.startswith("deadline")},
    # BFL has one word for all ends but success and refused content.
    "canceled by the service": FAILS,
    "aborted by the service": FAILS,
}


@dataclass(frozen=True)
class Dialect:
    """A way to ask.

    :param events_of: whose events are played: those of a gateway with a list of predictions, or without.
    :param differs: what of an event is otherwise.
    """

    gateway: str
    model: str
    events_of: str = "deerapi"
    doors: tuple[str, ...] = ("operator",)
    differs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


DIALECTS: Mapping[str, Dialect] = {
    "a version at a gateway": Dialect("cometapi", f"{SCHNELL}:{VERSION}"),
    "BFL's style at a gateway": Dialect("deerapi", "flux-dev", differs=IN_BFLS_STYLE),
    "BFL itself": Dialect(
        "bfl",
        "flux-2-pro",
        doors=("operator", "batch"),
        differs={
            **IN_BFLS_STYLE,
            # BFL's errors have no code that says that nothing was made.
            "refused with 500_invalid_request": {
                "first": (1, 0, "unknown"),
                "retried": (1, 0, "unknown"),
                "batch_retried": None,
                "cleared": (2, 1, "picture"),
            },
        },
    ),
    "a version at Replicate": Dialect("replicate", VERSION, events_of="replicate"),
    "a deployment": Dialect("replicate", "deployments/acme/flux-schnell", events_of="replicate"),
}

CASES = [
    (dialect, name, door)
    for dialect, asked in DIALECTS.items()
    for name, event in EVENTS.items()
    for door in asked.doors
    if (event.gateway == "replicate") == (asked.events_of == "replicate")
]


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_an_event_costs_the_same_in_every_dialect(
    case: tuple[str, str, str], emulator: Emulator, connect: Connect, tmp_path: Path
) -> None:
    """POST: read timeout, reset, 5xx after sending"""
    dialect, name, door = case
    asked, event = DIALECTS[dialect], EVENTS[name]
    event = replace(event, gateway=asked.gateway, **asked.differs.get(name, {}))
    again = "retried" if len(name) % 2 else "cleared"
    play_at_a_door(event, (door, again), emulator, connect, folder=tmp_path, model=asked.model)
