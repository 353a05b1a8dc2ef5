"""The trigger: waits for one prediction in the triggerer."""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any, ClassVar, TypeVar

from airflow.sdk import BaseHook
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_flux.access import GatewayAccess, read_connection
from airflow_provider_flux.cancellation import cancel
from airflow_provider_flux.exceptions import FluxConnectionError
from airflow_provider_flux.protocol.catalogue import typical_run_time
from airflow_provider_flux.protocol.flows import CallFailed, Conversation, DeadlinePassed, Flow
from airflow_provider_flux.protocol.prediction import Prediction
from airflow_provider_flux.protocol.schedule import PollSchedule
from airflow_provider_flux.waiting import CANNOT_TELL, TIMED_OUT, PendingPrediction

CLIENT = "airflow_provider_flux.client.aio"
"""Imported where it is used: the first import of aiohttp takes a good part of a second, too long for the loop that all
triggers share."""

T = TypeVar("T")


async def _in_own_thread(work: Callable[[], T]) -> T:
    """Run something that blocks. It goes on to its end even if the wait for it is interrupted.

    Not ``asyncio.to_thread``: its few threads are shared with Airflow's own logging, which waits in the same queue
    before it calls ``on_kill``, and work that still stands in the queue is dropped when its wait is interrupted.
    """
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            outcome.set_result(context.run(work))
        except Exception as error:  # noqa: BLE001 (it is raised where the outcome is waited for)
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(outcome)


class FluxPredictionTrigger(BaseTrigger):
    """Wait for one prediction, then say how it ended.

    Its arguments and its event are stored by Airflow as plain text and logged, so they hold ids and numbers only. The
    task that resumes asks the gateway for the rest.

    :param flux_conn_id: the connection, looked up once per run, never stored.
    :param prediction_id: which prediction.
    :param model: fits the poll times to the model's usual run time; empty if not known.
    :param submitted_at: when the prediction was made, in seconds since the epoch.
    :param deadline: when to give up, in seconds since the epoch.
    :param poll_interval: exactly this many seconds between polls, instead of the fitted times.
    :param cancel_on_kill: cancel the prediction when a person ends the task.
    """

    _client: ClassVar[Any] = None

    def __init__(
        self,
        *,
        flux_conn_id: str,
        prediction_id: str,
        model: str,
        submitted_at: float,
        deadline: float,
        poll_interval: float | None = None,
        cancel_on_kill: bool = False,
    ) -> None:
        super().__init__()
        self.flux_conn_id = flux_conn_id
        self.prediction_id = prediction_id
        self.poll_interval = poll_interval
        self.cancel_on_kill = cancel_on_kill
        self.pending = PendingPrediction(
            prediction_id=prediction_id,
            flux_conn_id=flux_conn_id,
            model=model,
            submitted_at=submitted_at,
            deadline=deadline,
        )
        self._access: GatewayAccess | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make this trigger again."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {**asdict(self.pending), "poll_interval": self.poll_interval, "cancel_on_kill": self.cancel_on_kill},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll to the end, the deadline or a refusal, and yield one :meth:`PendingPrediction.event`."""
        yield TriggerEvent(self.pending.event(await self._wait()))

    async def _wait(self) -> str:
        if FluxPredictionTrigger._client is None:
            FluxPredictionTrigger._client = await _in_own_thread(lambda: importlib.import_module(CLIENT))
        try:
            access = self._access = read_connection(await BaseHook.aget_connection(self.flux_conn_id))
            prediction = await self._client.run(self._watch(access), access)
        except DeadlinePassed:
            self.log.warning("Prediction %s has not ended by its deadline", self.prediction_id)
            return TIMED_OUT
        except (CallFailed, FluxConnectionError) as error:
            self.log.warning("Prediction %s: %s; the task goes on with it on a worker", self.prediction_id, error)
            return CANNOT_TELL
        except Exception:
            # Airflow would fail the task for it, and a retry might pay again for what is merely not watched here.
            self.log.exception("Prediction %s cannot be watched here; the task goes on with it", self.prediction_id)
            return CANNOT_TELL
        status: str = prediction.status.value
        return status

    def _watch(self, access: GatewayAccess) -> Flow[Prediction]:
        return Conversation(access.gateway, self.log).watch(
            self.prediction_id,
            PollSchedule(typical_run_time(self.pending.model), interval=self.poll_interval),
            model=self.pending.model,
            submitted_at=self.pending.submitted_at,
            deadline=self.pending.deadline,
            at_once=False,
        )

    async def on_kill(self) -> None:
        """Cancel the prediction of a task that a person ended (Airflow 3.3 and later call this).

        It is one call in a thread, because Airflow interrupts an ``await`` here again after about a second.
        """
        if self.cancel_on_kill:
            await _in_own_thread(self._cancel_unless_still_deferred)

    def _cancel_unless_still_deferred(self) -> None:
        if self._is_still_deferred():
            self.log.info("Prediction %s goes on: its task still waits for it elsewhere", self.prediction_id)
            return
        access = self._access or read_connection(BaseHook.get_connection(self.flux_conn_id))
        self.log.info("%s", cancel(access, self.prediction_id, self.log).report)

    def _is_still_deferred(self) -> bool:
        """Tell whether the task still waits.

        Airflow 3.3.0 to 3.3.2 call ``on_kill`` also when a stalled triggerer loses its triggers to another one (its
        pull request 73454). If the state cannot be read, the prediction is kept: a picture that nobody waits for costs
        less than one that is canceled under a task that does.
        """
        task_instance = self.task_instance
        if task_instance is None:
            return False
        try:
            from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

            states = RuntimeTaskInstance.get_task_states(
                dag_id=task_instance.dag_id,
                task_ids=[task_instance.task_id],
                run_ids=[task_instance.run_id],
                map_index=task_instance.map_index,
            )
        except Exception:
            self.log.exception("The state of the task could not be read; prediction %s goes on", self.prediction_id)
            return True
        state = next(iter((states.get(task_instance.run_id) or {}).values()), None)
        return str(getattr(state, "value", state)) == "deferred"
