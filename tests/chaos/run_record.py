"""What happened in one run: the gateway's ledger on one side, the modelled Airflow's on the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ALIVE = frozenset({"starting", "processing"})


@dataclass(frozen=True, kw_only=True)
class Made:
    """A prediction in the gateway's ledger, as it stood after the run.

    :param outcome: the end that the emulator had decided for it.
    """

    id: str
    created: float
    status: str = "succeeded"
    ended: float | None = None
    outcome: str = "succeeded"

    @property
    def alive(self) -> bool:
        """Whether it runs on and will be billed."""
        return self.status in ALIVE


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request in the gateway's ledger."""

    kind: str
    at: float
    path: str = ""
    fault: str | None = None
    accepted: bool = False
    prediction_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process of a task.

    :param kind: ``worker`` or ``triggerer``.
    :param limit: when it had to be over, deadline and margin.
    :param deadline: when its try may give up, at the earliest.
    :param result: ``success``, ``deferred``, ``error``, ``event``, ``trigger failed``; empty if it was killed.
    :param for_good: whether Airflow fails the task at once for such an error.
    """

    task: str
    kind: str = "worker"
    try_number: int = 1
    generation: int = 2
    started: float
    ended: float
    deadline: float = float("inf")
    limit: float = float("inf")
    result: str = ""
    error: str = ""
    text: str = ""
    for_good: bool = False

    @property
    def told(self) -> bool:
        """Whether it ended by saying that nobody knows whether there is a prediction."""
        return self.error == "FluxSubmissionUnknownError" and "may have been accepted" in self.text


@dataclass(frozen=True, kw_only=True)
class Act:
    """What was done to a task from outside.

    :param until: when its effects on the running process were over.
    """

    kind: str
    task: str
    at: float
    until: float = float("inf")
    changes_input: bool = False


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run.

    :param waits: whether the operator itself waits for its prediction.
    :param has_fallbacks: whether another model may be asked where one has failed.
    :param learned: when each prediction's id was first in the state store or an XCom.
    :param states: how each task ended: ``success`` or ``failed``.
    :param given_up_faults: faults that were to be played for ever, as ``(kind, fault)``.
    :param leaks: where the key was found.
    """

    lists: bool = False
    cancels: bool = True
    waits: bool = True
    resubmits: bool = False
    has_fallbacks: bool = False
    outcome: str = "succeeded"
    predictions: tuple[Made, ...] = ()
    requests: tuple[Asked, ...] = ()
    processes: tuple[Process, ...] = ()
    acts: tuple[Act, ...] = ()
    learned: Mapping[str, float] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    for_ever: tuple[tuple[str, str], ...] = ()
    leaks: tuple[str, ...] = ()

    def asked(self, kind: str) -> list[Asked]:
        """Return the requests of one kind, oldest first."""
        return [request for request in self.requests if request.kind == kind]

    def known(self, prediction: Made, *, at: float = float("inf")) -> bool:
        """Tell whether the task had a prediction's id by then."""
        return self.learned.get(prediction.id, float("inf")) <= at and prediction.id in self.learned

    def acts_of(self, kinds: frozenset[str], *, since: float = 0.0, until: float = float("inf")) -> list[Act]:
        """Return what was done to the task that makes the prediction, of some kinds, and had effects in some time."""
        mine = (act for act in self.acts if act.task == "make" and act.kind in kinds)
        return [act for act in mine if act.at <= until and (since <= act.at or since <= act.until < float("inf"))]

    def last_worker_process(self, task: str) -> Process | None:
        """Return the process that decided how a task ended."""
        return next(
            (process for process in reversed(self.processes) if process.task == task and process.kind == "worker"), None
        )
