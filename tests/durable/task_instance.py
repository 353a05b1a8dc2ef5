"""The life of one task instance over several tries, as Airflow leads it.

Real Airflow kills no worker inside a test's process; here a try can die at any point, and what Airflow would keep for
the next one is kept: the task state store and nothing else.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any
from unittest import mock

from airflow_provider_flux.client import sync
from airflow_provider_flux.client.sync import send
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.operators.flux import FluxPredictionOperator
from airflow_provider_flux.protocol.messages import Purpose


class Store:
    """Airflow's task state store, in memory, for JSON values only as in reality."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.fails_at: set[int] = set()
        self.on_set: Callable[[Any], object] = lambda _: None
        self.gets = 0
        self._sets = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.gets += 1
        return copy.deepcopy(self.kept.get(key, default))

    def set(self, key: str, value: Any) -> None:
        self._sets += 1
        if self._sets in self.fails_at:
            raise OSError("no database")
        self.kept[key] = json.loads(json.dumps(value))
        self.on_set(value)

    def delete(self, key: str) -> None:
        self.kept.pop(key, None)


class WorkerDies(BaseException):
    """What a kill -9 is to the code that it ends: nothing after it runs."""


class Tries:
    """The tries of one task instance, as Airflow counts them."""

    def __init__(self) -> None:
        self.try_number = 1
        self.max_tries = 3
        self.reschedules = 0
        self.store = Store()
        self.xcoms: dict[str, Any] = {}

    def execute(self) -> Any:
        """Run one try from its start."""
        raise NotImplementedError

    def retry(self) -> Any:
        self.try_number += 1
        return self.execute()

    def clear(self) -> Any:
        """Run again as after a person's clear: Airflow grants the retries anew."""
        self.try_number += 1
        self.max_tries = self.try_number + 3
        return self.execute()


class OperatorTaskInstance(Tries):
    """One task instance over its tries.

    :param options: the operator's arguments; may be changed between tries.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self.options = options
        self.has_store = True
        self.operator = FluxPredictionOperator(**options)
        self._timers: list[threading.Timer] = []

    def execute(self) -> Any:
        """Run one try from its start."""
        self.xcoms.clear()
        self.operator = FluxPredictionOperator(**self.options)
        return self._run(self.operator.execute)

    def resume(self, method: str, arguments: dict[str, Any]) -> Any:
        """Go on after a deferral, on another worker."""
        self.operator = FluxPredictionOperator(**self.options)
        return self._run(lambda context: self.operator.resume_execution(method, arguments, context))

    def die_during_post(self, emulator: Emulator, fault: str = "hang_after_accept") -> None:
        """Let the worker die while the gateway works on its create."""
        emulator.add_fault(fault, on="create")
        self.operator = FluxPredictionOperator(**self.options)

        def send_and_die(session: Any, access: Any, request: Any, limit: float) -> Any:
            reply = send(session, access, request, limit)
            if request.purpose is Purpose.CREATE:
                raise WorkerDies
            return reply

        with mock.patch.object(sync, "send", send_and_die):
            try:
                self._run(self.operator.execute)
            except WorkerDies:
                return
        raise AssertionError("the worker has not died")

    def meanwhile(self, seconds: float, action: Callable[[], object]) -> None:
        """Do something while the next try runs."""
        timer = threading.Timer(seconds, action)
        self._timers.append(timer)
        timer.start()

    def _run(self, step: Callable[[Any], Any]) -> Any:
        try:
            return step(self._context())
        finally:
            for timer in self._timers:
                timer.join()
            self._timers.clear()

    def _context(self) -> dict[str, Any]:
        instance = SimpleNamespace(
            dag_id="dag",
            run_id="run",
            task_id="make",
            map_index=-1,
            try_number=self.try_number,
            max_tries=self.max_tries,
            xcom_push=self.xcoms.__setitem__,
            xcom_pull=lambda *, task_ids, key, map_indexes: self.xcoms.get(key),
        )
        run = SimpleNamespace(start_date=RUN_STARTED)
        context: dict[str, Any] = {"ti": instance, "dag_run": run, "task_reschedule_count": self.reschedules}
        if self.has_store:
            context["task_state_store"] = self.store
        return context


RUN_STARTED = datetime(2020, 1, 1, tzinfo=timezone.utc)
