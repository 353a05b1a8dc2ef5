"""The trigger: waits for one prediction in the triggerer."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import importlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from dataclasses import asdict
from types import ModuleType
from typing import Any, ClassVar, TypeVar

from airflow.configuration import conf
from airflow.sdk import BaseHook
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_provider_flux.client.cancel import cancel_prediction
from airflow_provider_flux.client.connection import GatewayAccess, read_connection
from airflow_provider_flux.client.connection_cache import look_up
from airflow_provider_flux.exceptions import FluxConnectionError
from airflow_provider_flux.protocol.classify import Reason
from airflow_provider_flux.protocol.flows import CallFailed, Conversation, DeadlinePassed
from airflow_provider_flux.protocol.prediction import Prediction
from airflow_provider_flux.tasks.pending import CANNOT_TELL, TIMED_OUT, PendingPrediction
from airflow_provider_flux.tasks.results import RETURN_VALUE_KEY, push_xcoms, xcoms_of_success
from airflow_provider_flux.telemetry import note_seen, set_up_in_triggerer, waiting_for

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


def _prepare() -> ModuleType:
    set_up_in_triggerer()
    # One logger for all of them: Airflow knows from its own context which trigger logs.
    FluxPredictionTrigger.logger()
    client = importlib.import_module(CLIENT)
    if conf.getboolean("flux", "freeze_loaded_objects", fallback=True):
        # A full collection walks over all of Airflow, and holds up the loop of all triggers for 0.1 to 0.3 s.
        gc.collect()
        gc.freeze()
    return client


class FluxPredictionTrigger(BaseTrigger):
    """Wait for one prediction, then say how it ended.

    Its arguments and its event are stored by Airflow as plain text and logged, so they hold ids and numbers only. The
    task that resumes asks the gateway for the rest.

    :param flux_conn_id: the connection, looked up once per run, never stored.
    :param prediction_id: which prediction.
    :param model: fits the poll times to how long the model's runs take; empty if not known.
    :param submitted_at: when the prediction was made, in seconds since the epoch.
    :param deadline: when to give up, in seconds since the epoch.
    :param poll_interval: exactly this many seconds between polls, instead of the fitted times.
    :param cancel_on_kill: cancel the prediction when a person ends the task.
    :param end_task: end the task here if the prediction succeeds, instead of resuming it on a worker.
    :param push_return_value: whether a task that ends here has a ``return_value``, as its ``do_xcom_push`` says.
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
        end_task: bool = False,
        push_return_value: bool = True,
    ) -> None:
        super().__init__()
        self.flux_conn_id = flux_conn_id
        self.prediction_id = prediction_id
        self.poll_interval = poll_interval
        self.cancel_on_kill = cancel_on_kill
        self.end_task = end_task
        self.push_return_value = push_return_value
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
            {
                **asdict(self.pending),
                "poll_interval": self.poll_interval,
                "cancel_on_kill": self.cancel_on_kill,
                "end_task": self.end_task,
                "push_return_value": self.push_return_value,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll to the end, the deadline or a refusal, and yield one event: the task's end, or the word to resume it."""
        outcome = await self._wait()
        if isinstance(outcome, str):
            yield self._resume(outcome)
        else:
            ended = await self._end_task(outcome)
            yield TaskSuccessEvent() if ended else self._resume(outcome.status.value)

    def _resume(self, status: str) -> TriggerEvent:
        return TriggerEvent(self.pending.event(status))

    async def _end_task(self, prediction: Prediction) -> bool:
        """Push what the task would have pushed, so that it can end here; tell whether it can."""
        # `dag.test()` hands triggers no task instance, and takes any event for the word to resume (Airflow 3.1 to 3.3).
        if not self.end_task or self.task_instance is None or self._access is None:
            return False
        xcoms = xcoms_of_success(prediction, self._access, model=self.pending.model)
        if xcoms is None:
            return False
        if not self.push_return_value:
            del xcoms[RETURN_VALUE_KEY]
        task_instance = self.task_instance
        try:
            await _in_own_thread(lambda: push_xcoms(task_instance, xcoms))
        except Exception:
            self.log.exception("Prediction %s: its XComs cannot be pushed from here; a worker will", prediction.id)
            return False
        self.log.info("Prediction %s: the task ends here, with %d files", prediction.id, len(prediction.outputs))
        return True

    async def _wait(self) -> Prediction | str:
        """Return the prediction that has ended; the status of an event if it has not been seen to end."""
        if FluxPredictionTrigger._client is None:
            FluxPredictionTrigger._client = await _in_own_thread(_prepare)
        try:
            with waiting_for(self.prediction_id, self.pending.model):
                prediction = await self._watch(await look_up(self.flux_conn_id))
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
        return prediction

    async def _watch(self, access: GatewayAccess) -> Prediction:
        self._access = access
        pending = self.pending
        conversation = Conversation(access.gateway, self.log)
        flow = conversation.watch(
            self.prediction_id,
            conversation.schedule(pending.model, interval=self.poll_interval),
            model=pending.model,
            submitted_at=pending.submitted_at,
            deadline=pending.deadline,
            at_once=False,
            keeps_echo=False,
        )
        try:
            prediction: Prediction = await self._client.run(flow, access)
        except CallFailed as failed:
            if failed.failure.reason is not Reason.KEY:
                raise
            renewed = await look_up(self.flux_conn_id, refused=access)
            if renewed == access:
                raise
            self.log.info("Prediction %s: going on with the connection's new key", self.prediction_id)
            return await self._watch(renewed)
        note_seen(access.gateway, prediction, pending.model, waited=time.time() - pending.submitted_at)
        return prediction

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
        self.log.info("%s", cancel_prediction(access, self.prediction_id, self.log).report)

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
