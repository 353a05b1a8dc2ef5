"""One task instance from its first try to its end, with Airflow's decisions modelled and its processes real.

================================================== ===============================================================
What happens                                       What Airflow does
================================================== ===============================================================
``AirflowFailException``, ``AirflowSensorTimeout`` the task has failed
any other error, or a worker that was killed       another try as long as ``try_number <= max_tries``, else failed
deferral                                           trigger, then a fresh operator resumes with the event
a trigger that raises                              resumes with ``__fail__``, which raises
clear of a running task                            SIGTERM, then another try in any case; ``max_tries`` stays
clear of any other task                            another try, and ``max_tries = try_number + retries``
mark failed                                        SIGTERM or the trigger's ``on_kill``; the task has failed
each new try                                       XComs are cleared, the state store is kept
================================================== ===============================================================
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from airflow.sdk import BaseOperator

from airflow_provider_flux.tasks.state_store import RECORD_KEY
from tests.chaos.plan import BY_A_PERSON, CLEAR_AT_THE_END, DEFERRAL_KILLS, Kill, Plan
from tests.chaos.processes import (
    DEFERRED,
    ERROR,
    FAILED_TRIGGER,
    SUCCESS,
    TRIGGERER_SIGNALS,
    Instance,
    Step,
    fork,
    wait_in_triggerer,
    work_on,
)
from tests.chaos.run_record import Act, Process
from tests.chaos.storage import Kept, read, write_whole

TICK = 0.004
MARGIN = 5.0
"""Seconds by which a process may outlive its deadline, or its start if that came later."""
ESCALATION = 5.0
"""Seconds after a SIGTERM until Airflow's supervisor sends SIGKILL."""
LONGEST_ON_KILL = 35.0

MakeOperator = Callable[[int], BaseOperator]
"""Makes the operator; the number says how often its input has been changed."""


@dataclass
class OperatorTaskInstance:
    """A task instance.

    :param make_operator: makes the task's operator anew, as each worker does.
    """

    plan: Plan
    kept: Kept
    make_operator: MakeOperator
    processes: list[Process] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)
    try_number: int = 1
    state: str = ""
    value: Any = None

    def __post_init__(self) -> None:
        """Take what the plan has in store for this task."""
        self.max_tries = self.plan.retries
        kill = self.plan.kill
        self._kill: Kill | None = kill if kill is not None and kill.task == self.kept.task_id else None
        self._process_number = self._worker_processes = self._deferrals = self._version = 0
        self._run_started = self._try_started = time.time()
        self._triggerers: list[tuple[int, float]] = []

    def live(self) -> str:
        """Lead the task to its end and return its state."""
        step: Step | None = Step()
        self._try_started = time.time()
        while step is not None:
            step = self._work(step) or self._after_the_end()
        for pid, since in self._triggerers:
            self._reap(pid, since + LONGEST_ON_KILL)
        return self.state

    def _work(self, step: Step) -> Step | None:
        """Run a worker process, decide as Airflow does, and return what comes next."""
        self._set_state("running")
        outcome = self._run_worker(step)
        if self.state == "failed":
            return None
        if self.state == "restarting":
            return self._next_try()
        kind = outcome.get("kind")
        if kind == SUCCESS:
            self._set_state("success")
            self.value = outcome["value"]
            return None
        if kind == DEFERRED:
            return self._defer(outcome)
        if outcome.get("for_good") or outcome.get("hung") or self.try_number > self.max_tries:
            self._set_state("failed")
            return None
        return self._next_try()

    def _next_try(self) -> Step:
        self.try_number += 1
        self._try_started = time.time()
        self._set_state("up_for_retry")
        return Step()

    def _clear(self, kill: Kill) -> Step:
        self.max_tries = self.try_number + self.plan.retries
        self._version += kill.changes_input
        self._kill = None
        return self._next_try()

    def _after_the_end(self) -> Step | None:
        kill = self._kill
        if kill is None or kill.kind != CLEAR_AT_THE_END:
            return None
        self._act(kill)
        return self._clear(kill)

    # A process on a worker

    def _run_worker(self, step: Step) -> dict[str, Any]:
        self._process_number += 1
        result = self.kept.result(self._process_number)
        instance = Instance(
            kept=self.kept,
            try_number=self.try_number,
            max_tries=self.max_tries,
            started=self._run_started,
            store_latency=self.plan.store_latency,
        )
        version = self._version
        started = time.time()
        pid = fork(lambda: work_on(lambda: self.make_operator(version), instance, step, result), self.kept.log)
        limit = max(self._deadline, started) + MARGIN
        kill = self._kill if self._hits(self._worker_processes) else None
        self._worker_processes += 1
        strike = None if kill is None else _Strike(kill, self.kept, started)
        terminated: float | None = None
        while not _has_ended(pid):
            now = time.time()
            # What comes after the result was handed in comes too late: that process hears nothing any more.
            if strike is not None and strike.is_due(now) and not result.exists():
                terminated = self._strike_worker(pid, strike.kill, now)
                strike = None
            if now > limit or (terminated is not None and now > terminated + ESCALATION):
                _send(pid, signal.SIGKILL)
            time.sleep(TICK)
        outcome: dict[str, Any] = read(result, {})
        ended = time.time()
        self._end_act(ended)
        self._note("worker", started, ended, limit, outcome)
        return {**outcome, "hung": ended > limit}

    def _hits(self, process: int) -> bool:
        kill = self._kill
        return kill is not None and kill.kind not in (*DEFERRAL_KILLS, CLEAR_AT_THE_END) and kill.process == process

    def _strike_worker(self, pid: int, kill: Kill, now: float) -> float | None:
        """Do to a worker what the plan says; return when it was told to stop, if it was."""
        self._act(kill)
        self._kill = None
        if kill.kind == "kill worker":
            _send(pid, signal.SIGKILL)
            return None
        if kill.kind in BY_A_PERSON:
            self._set_state("failed")
        elif kill.kind == "clear while running":
            # Airflow leaves max_tries alone here, so that to the provider it looks like a retry.
            self._set_state("restarting")
            self._version += kill.changes_input
        _send(pid, signal.SIGTERM)
        return now

    # A wait in the triggerer

    def _defer(self, outcome: dict[str, Any]) -> Step | None:
        self._set_state("deferred")
        class_path, arguments = outcome["trigger"]
        trigger = (class_path, arguments)
        kill = self._kill if self._kill is not None and self._kill.kind in DEFERRAL_KILLS else None
        self._deferrals += 1
        if kill is not None and kill.kind == "no triggerer to the end":
            self._act(kill)
            self._kill = None
            time.sleep(max(0.0, self._deadline - time.time()))
            return Step(method="__fail__", arguments={"error": "Trigger timeout"})
        started = time.time()
        limit = max(self._deadline, started) + MARGIN
        event, ended = self._triggerer(trigger, limit, kill)
        if ended is not None:
            return ended if isinstance(ended, Step) else None
        self._note("triggerer", started, time.time(), limit, event)
        if not event or event["kind"] == FAILED_TRIGGER:
            return Step(method="__fail__", arguments={"error": "Trigger failure"})
        return Step(method=outcome["method"], arguments={**outcome["arguments"], "event": event["event"]})

    def _triggerer(
        self, trigger: tuple[str, Any], limit: float, kill: Kill | None
    ) -> tuple[dict[str, Any], Step | bool | None]:
        """Run a trigger to its event. The second value says that it never came: the next step, or no step."""
        pid, result = self._start_triggerer(trigger)
        strike = None if kill is None else _Strike(kill, self.kept, time.time())
        while not _has_ended(pid):
            now = time.time()
            if strike is not None and strike.is_due(now) and not result.exists():
                kill, strike, self._kill = strike.kill, None, None
                self._act(kill)
                if kill.kind == "mark failed while deferred":
                    self._set_state("failed")
                    self._lose(pid)
                    return {}, True
                if kill.kind == "clear while deferred":
                    self._set_state("scheduled")
                    return {}, self._clear_while_deferred(pid, kill)
                pid, result = self._replace_triggerer(pid, kill, trigger)
            if now > limit:
                _send(pid, signal.SIGKILL)
            time.sleep(TICK)
        return read(result, {}), None

    def _start_triggerer(self, trigger: tuple[str, Any]) -> tuple[int, Any]:
        self._process_number += 1
        result = self.kept.result(self._process_number)
        # A triggerer is up long before it gets a trigger: no signal may come before it listens.
        signal.pthread_sigmask(signal.SIG_BLOCK, TRIGGERER_SIGNALS)
        pid = fork(lambda: wait_in_triggerer(trigger, self.kept, result), self.kept.log)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, TRIGGERER_SIGNALS)
        return pid, result

    def _replace_triggerer(self, pid: int, kill: Kill, trigger: tuple[str, Any]) -> tuple[int, Any]:
        if kill.kind == "stalled triggerer loses its trigger":
            # Another triggerer runs it already when the stalled one comes to itself and is told.
            started = self._start_triggerer(trigger)
            time.sleep(kill.offset / 2)
            self._lose(pid)
            return started
        _send(pid, signal.SIGKILL if kill.kind == "kill triggerer" else signal.SIGTERM)
        self._reap(pid, time.time() + ESCALATION)
        return self._start_triggerer(trigger)

    def _clear_while_deferred(self, pid: int, kill: Kill) -> Step:
        """Let the new try begin while the triggerer only then finds that the old wait is over."""
        step = self._clear(kill)
        notice = fork(lambda: _send_later(pid, kill.offset), self.kept.log)
        self._triggerers += [(notice, time.time()), (pid, time.time())]
        return step

    def _lose(self, pid: int) -> None:
        _send(pid, signal.SIGUSR1)
        self._triggerers.append((pid, time.time()))

    # Notes

    @property
    def _deadline(self) -> float:
        return self._try_started + self.plan.timeout

    def _set_state(self, state: str) -> None:
        self.state = state
        write_whole(self.kept.state, state)

    def _act(self, kill: Kill) -> None:
        self.acts.append(Act(kind=kill.kind, task=self.kept.task_id, at=time.time(), changes_input=kill.changes_input))

    def _end_act(self, now: float) -> None:
        """A worker that was stopped cancels before it ends; the next try must not."""
        for number, act in enumerate(self.acts):
            passing = act.kind in ("terminate worker", "clear while running") and not act.changes_input
            if passing and act.until == float("inf"):
                self.acts[number] = Act(
                    kind=act.kind, task=act.task, at=act.at, until=now, changes_input=act.changes_input
                )

    def _note(self, kind: str, started: float, ended: float, limit: float, outcome: dict[str, Any]) -> None:
        self.processes.append(
            Process(
                task=self.kept.task_id,
                kind=kind,
                try_number=self.try_number,
                generation=self.max_tries,
                started=started,
                ended=ended,
                deadline=self._deadline,
                limit=limit,
                result=outcome.get("kind", ""),
                error=outcome.get("error", "") if outcome.get("kind") == ERROR else "",
                text=outcome.get("text", ""),
                for_good=outcome.get("for_good", False),
            )
        )

    @staticmethod
    def _reap(pid: int, until: float) -> None:
        while not _has_ended(pid):
            if time.time() > until:
                _send(pid, signal.SIGKILL)
            time.sleep(TICK)


class _Strike:
    """Tells when the moment of a kill has come."""

    def __init__(self, kill: Kill, kept: Kept, started: float) -> None:
        self.kill = kill
        self._kept = kept
        self._from = started if kill.after == "start" else None

    def is_due(self, now: float) -> bool:
        if self._from is None and self._is_written():
            self._from = now
        return self._from is not None and now >= self._from + self.kill.delay

    def _is_written(self) -> bool:
        record = read(self._kept.store, {}).get(RECORD_KEY)
        return record is not None and (self.kill.after == "intent" or record.get("prediction_id") is not None)


def _has_ended(pid: int) -> bool:
    """Tell whether a child is gone, and reap it."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _send_later(pid: int, seconds: float) -> None:
    time.sleep(seconds)
    _send(pid, signal.SIGUSR1)
