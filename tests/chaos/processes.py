"""The processes of a task: a process on a worker, and a wait in a triggerer, each in a forked child."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import TaskDeferred
from airflow.triggers.base import BaseTrigger

from airflow_provider_flux.exceptions import AirflowFailException, AirflowSensorTimeout
from tests.chaos.storage import FileStore, FileXComs, Kept, read, write_whole

RUN_ID = "chaos"
DAG_ID = "chaos"
EVENT, FAILED_TRIGGER = "event", "trigger failed"
TRIGGERER_SIGNALS = (signal.SIGUSR1, signal.SIGTERM)
SUCCESS, DEFERRED, ERROR = "success", "deferred", "error"


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a worker is to do: begin a try, or go on after a deferral.

    :param method: the method to resume with; empty to begin.
    :param arguments: its arguments.
    """

    method: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Instance:
    """The task instance that a worker is given.

    :param started: when the DAG run began.
    """

    kept: Kept
    try_number: int
    max_tries: int
    started: float
    store_latency: float

    def context(self) -> dict[str, Any]:
        """Return what the operator is given."""
        xcoms = FileXComs(self.kept)
        instance = SimpleNamespace(
            dag_id=DAG_ID,
            task_id=self.kept.task_id,
            run_id=RUN_ID,
            map_index=-1,
            try_number=self.try_number,
            max_tries=self.max_tries,
            xcom_push=xcoms.push,
            xcom_pull=lambda *, task_ids, key, map_indexes: xcoms.pull(key),
        )
        return {
            "ti": instance,
            "task_instance": instance,
            "run_id": RUN_ID,
            "dag_run": SimpleNamespace(
                run_id=RUN_ID, start_date=datetime.fromtimestamp(self.started, timezone.utc), clear_number=0
            ),
            "task_reschedule_count": 0,
            "task_state_store": FileStore(self.kept, self.store_latency),
        }


def fork(work: Callable[[], None], log: Path) -> int:
    """Run something in a child process with its output in a file, and return the child's id."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with log.open("ab") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        work()
        code = 0
    except BaseException:  # noqa: BLE001 (nothing of the child may get into the parent's code)
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def work_on(make_operator: Callable[[], BaseOperator], instance: Instance, step: Step, result: Path) -> None:
    """Run one process as a worker does, and write down how it ended."""
    operator = make_operator()
    # As Airflow's task runner does it: the signal ends nothing by itself.
    signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())
    context: Any = instance.context()
    try:
        if step.method:
            value = operator.resume_execution(step.method, dict(step.arguments), context)
        else:
            FileXComs(instance.kept).clear()
            value = operator.execute(context)
    except TaskDeferred as deferral:
        class_path, arguments = deferral.trigger.serialize()
        outcome = {
            "kind": DEFERRED,
            "trigger": [class_path, arguments],
            "method": deferral.method_name,
            "arguments": deferral.kwargs or {},
            "timeout": deferral.timeout.total_seconds() if deferral.timeout else None,
        }
    except Exception as error:  # noqa: BLE001 (whatever it is, Airflow decides by its type)
        traceback.print_exc()
        outcome = {
            "kind": ERROR,
            "error": type(error).__name__,
            "for_good": isinstance(error, (AirflowFailException, AirflowSensorTimeout)),
            "text": str(error),
        }
    else:
        FileXComs(instance.kept).push("return_value", value)
        outcome = {"kind": SUCCESS, "value": value}
    write_whole(result, outcome)


def wait_in_triggerer(trigger: tuple[str, Mapping[str, Any]], kept: Kept, result: Path) -> None:
    """Run a trigger as a triggerer does.

    SIGUSR1 stands for a triggerer that finds the trigger taken away from it, SIGTERM for one that is shut down.
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    def states(**_: Any) -> dict[str, Any]:
        return {RUN_ID: {kept.task_id: read(kept.state)}}

    setattr(RuntimeTaskInstance, "get_task_states", staticmethod(states))  # noqa: B010 (its type differs)
    module, _, name = trigger[0].rpartition(".")
    made: BaseTrigger = getattr(importlib.import_module(module), name)(**json.loads(json.dumps(trigger[1])))
    instance: Any = SimpleNamespace(dag_id=DAG_ID, task_id=kept.task_id, run_id=RUN_ID, map_index=-1)
    made.task_instance = instance
    asyncio.run(_serve(made, result))


async def _serve(trigger: BaseTrigger, result: Path) -> None:
    loop = asyncio.get_running_loop()
    waiting = asyncio.create_task(_first_event(trigger))
    taken_away = False

    def take_away() -> None:
        nonlocal taken_away
        taken_away = True
        waiting.cancel()

    loop.add_signal_handler(signal.SIGUSR1, take_away)
    loop.add_signal_handler(signal.SIGTERM, waiting.cancel)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TRIGGERER_SIGNALS)
    try:
        outcome = {"kind": EVENT, "event": await waiting}
    except asyncio.CancelledError:
        if taken_away:
            await _kill(trigger)
        await trigger.cleanup()
        return
    except Exception:  # noqa: BLE001 (as the triggerer does: the task resumes and fails)
        outcome = {"kind": FAILED_TRIGGER, "text": traceback.format_exc()}
    write_whole(result, json.loads(json.dumps(outcome)))
    await trigger.cleanup()


async def _first_event(trigger: BaseTrigger) -> Any:
    async for event in trigger.run():
        return event.payload
    raise RuntimeError("the trigger has exited without an event")


async def _kill(trigger: BaseTrigger) -> None:
    """Call ``on_kill`` as the triggerer does: a second cancel comes about a second later."""
    killing = asyncio.create_task(asyncio.wait_for(trigger.on_kill(), 30))
    await asyncio.wait([killing], timeout=1.0)
    killing.cancel()
    with suppress(asyncio.CancelledError):
        try:
            await killing
        except Exception:  # noqa: BLE001 (the triggerer logs it)
            traceback.print_exc()
