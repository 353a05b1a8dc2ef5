"""What a run, a task instance, or everything the user may see has to show, gathered from Airflow's public REST API."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from airflow_provider_flux.batch.progress import PROGRESS_KEY
from airflow_provider_flux.links import PREDICTION_OPERATORS
from airflow_provider_flux.plugin import records
from airflow_provider_flux.plugin.records import Record
from airflow_provider_flux.plugin.rest import ALL, PAGE, AirflowRest, run_path, task_path
from airflow_provider_flux.tasks.results import RESULT_KEY, RETURN_VALUE_KEY
from airflow_provider_flux.tasks.state_store import RECORD_KEY, SHOWN

BATCH_OPERATOR = "FluxBatch"
"""What the names of operators contain that may have live figures."""

AT_ONCE = 8
"""How many values are asked for at a time: Airflow answers in threads, of which others need some too."""

ENDED_KEPT = 5000
"""How many predictions that have ended are remembered, about 1 kB each."""

TERMINAL = frozenset({"succeeded", "failed", "canceled", "aborted"})
RUN_ENDED = frozenset({"success", "failed"})
TASK_ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
HAS_STATE_STORE = find_spec("airflow.models.task_state_store") is not None
"""Whether this is Airflow 3.3 or later."""

UNSETTLED = ("scheduled", "queued", "running", "deferred", "restarting", "up_for_retry", "up_for_reschedule", "failed")
"""States of a task instance whose prediction may be told of by its record alone."""

_WHERE = (
    *("dag_id", "run_id", "task_id", "map_index"),
    *("timestamp", "run_after", "dag_display_name", "task_display_name"),
)

_ended: dict[tuple[Any, ...], Record] = {}


@dataclass(frozen=True)
class Scope:
    """What is looked at: a task instance, a run, or (with ``~``) more.

    :param map_index: None for every instance of the task.
    """

    dag_id: str
    run_id: str = ALL
    task_id: str = ALL
    map_index: int | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """What narrows a list to the scope."""
        return {} if self.map_index is None else {"map_index": self.map_index}


async def predictions(rest: AirflowRest, scope: Scope, *, offset: int, limit: int, since: str | None) -> dict[str, Any]:
    """Return some predictions, and how many there are in all.

    :param since: leave out runs from before this time.
    """
    listing = await _list(rest, scope, RESULT_KEY, offset=offset, limit=limit, since=since)
    values = await _gather(_prediction(rest, entry) for entry in listing["xcom_entries"])
    found = [_where(entry) | value for entry, value in zip(listing["xcom_entries"], values, strict=True) if value]
    return {"total": listing["total_entries"], "next": offset + len(values), "predictions": found}


async def unsettled(rest: AirflowRest, scope: Scope, *, offset: int, since: str | None) -> dict[str, Any]:
    """Return predictions as the records of task instances have them that have not pushed what became of them.

    :param since: leave out runs from before this time.
    """
    if not HAS_STATE_STORE:
        return {"total": 0, "next": 0, "predictions": []}
    parameters: dict[str, Any] = scope.parameters | {"state": UNSETTLED, "limit": PAGE, "offset": offset}
    parameters |= {"operator": [name for _, name in PREDICTION_OPERATORS], "order_by": "-start_date"}
    if since:
        parameters["run_after_gte"] = since
    if scope.task_id != ALL:
        parameters["task_id"] = scope.task_id
    listing = await rest.get(f"{run_path(scope.dag_id, scope.run_id)}/taskInstances", **parameters)
    tasks = [task | {"run_id": task["dag_run_id"]} for task in listing["task_instances"]]
    shown = await _gather(_shown(rest, _scope_of(task)) for task in tasks)
    found = [_where(task) | record for task, record in zip(tasks, shown, strict=True) if record]
    return {"total": listing["total_entries"], "next": offset + len(tasks), "predictions": found}


async def state(rest: AirflowRest, scope: Scope) -> dict[str, Any]:
    """Return how far the run or the task instance is, for as long as someone looks."""
    if scope.task_id == ALL:
        run = await rest.get(run_path(scope.dag_id, scope.run_id))
        return {"state": run["state"], "ended": run["state"] in RUN_ENDED}
    task = await rest.get(_instance_path(scope))
    return {"state": task["state"], "ended": task["state"] in TASK_ENDED, "operator": task.get("operator_name")}


async def batches(rest: AirflowRest, scope: Scope, *, since: str | None) -> list[Record]:
    """Return the figures of the batches: final ones, and live ones where Airflow has a task state store."""
    listing = await _list(rest, scope, PROGRESS_KEY, since=since)
    values = await _gather(_xcom(rest, _scope_of(entry), PROGRESS_KEY) for entry in listing["xcom_entries"])
    final = [
        _where(entry) | figures | {"ended": True}
        for entry, value in zip(listing["xcom_entries"], values, strict=True)
        if (figures := records.batch(value))
    ]
    if scope.run_id == ALL:
        return final
    known = {(batch["task_id"], batch["map_index"]) for batch in final}
    tasks = [task for task in await _batch_tasks(rest, scope) if (task["task_id"], task["map_index"]) not in known]
    live = await _gather(_live(rest, task) for task in tasks)
    return final + [batch for batch in live if batch]


async def manifest_of(rest: AirflowRest, scope: Scope) -> tuple[str, str] | None:
    """Return where the manifest of an ended batch is, and a version of it; None if there is none."""
    listing = await _list(rest, scope, PROGRESS_KEY)
    if not listing["xcom_entries"]:
        return None
    entry = listing["xcom_entries"][0]
    figures = records.batch(await _xcom(rest, scope, PROGRESS_KEY)) or {}
    path = figures.get("manifest_path") or await _xcom(rest, scope, RETURN_VALUE_KEY)
    return (path, str(entry["timestamp"])) if isinstance(path, str) else None


async def recorded_paths(rest: AirflowRest, scope: Scope, sha256: str) -> list[str]:
    """Return the paths that a task instance itself recorded for a picture, its batch's manifest left aside."""
    result = records.prediction(await _xcom(rest, scope, RESULT_KEY)) or await _shown(rest, scope)
    if result:
        return paths_of(sha256, [result])
    figures = records.batch(await _stored(rest, scope, PROGRESS_KEY))
    return paths_of(sha256, figures["recent"] if figures else [])


def paths_of(sha256: str, shown: Iterable[Record]) -> list[str]:
    """Return where a picture is, by what predictions and rows say of their files."""
    return [
        entry["path"]
        for record in shown
        for entry in (*record["stored"], *record["inputs"])
        if entry.get("sha256") == sha256
    ]


async def _list(
    rest: AirflowRest, scope: Scope, key: str, *, offset: int = 0, limit: int = PAGE, since: str | None = None
) -> dict[str, Any]:
    parameters = scope.parameters | {"xcom_key": key, "limit": limit, "offset": offset}
    if since:
        # Airflow 3.1 knows no order, and ignores the wish.
        parameters |= {"run_after_gte": since, "order_by": "-timestamp"}
    return await rest.get(f"{task_path(scope.dag_id, scope.run_id, scope.task_id)}/xcomEntries", **parameters)


async def _prediction(rest: AirflowRest, entry: Record) -> Record | None:
    key = tuple(entry[name] for name in ("dag_id", "run_id", "task_id", "map_index", "timestamp"))
    # Whoever could list the entry may read it: Airflow asks for the same permission.
    if key in _ended:
        return _ended[key]
    record = records.prediction(await _xcom(rest, _scope_of(entry), RESULT_KEY))
    if record and record.get("status") in TERMINAL:
        if len(_ended) >= ENDED_KEPT:
            del _ended[next(iter(_ended))]
        _ended[key] = record
    return record


async def _xcom(rest: AirflowRest, scope: Scope, key: str) -> Any:
    path = f"{task_path(scope.dag_id, scope.run_id, scope.task_id)}/xcomEntries/{key}"
    # Without a map index Airflow means -1 here, not all of them.
    entry = await rest.find(path, deserialize="true", **scope.parameters)
    return entry["value"] if entry else None


async def _batch_tasks(rest: AirflowRest, scope: Scope) -> list[dict[str, Any]]:
    if scope.task_id != ALL:
        return [await rest.get(_instance_path(scope))]
    found = await rest.get(f"{run_path(scope.dag_id, scope.run_id)}/taskInstances", limit=PAGE)
    return [task for task in found["task_instances"] if BATCH_OPERATOR in (task.get("operator_name") or "")]


async def _live(rest: AirflowRest, task: dict[str, Any]) -> Record | None:
    task = task | {"run_id": task["dag_run_id"]}
    figures = records.batch(await _stored(rest, _scope_of(task), PROGRESS_KEY))
    return figures and _where(task) | figures | {"ended": task["state"] in TASK_ENDED}


async def _shown(rest: AirflowRest, scope: Scope) -> Record | None:
    record = await _stored(rest, scope, RECORD_KEY)
    return records.prediction(record.get(SHOWN)) if isinstance(record, dict) else None


async def _stored(rest: AirflowRest, scope: Scope, key: str) -> Any:
    path = f"{task_path(scope.dag_id, scope.run_id, scope.task_id)}/state-store/{key}"
    # Below Airflow 3.3 there is no such path, hence nothing.
    entry = await rest.find(path, **scope.parameters)
    return entry["value"] if entry else None


def _instance_path(scope: Scope) -> str:
    path = task_path(scope.dag_id, scope.run_id, scope.task_id)
    return path if scope.map_index in (None, -1) else f"{path}/{scope.map_index}"


def _scope_of(entry: dict[str, Any]) -> Scope:
    return Scope(entry["dag_id"], entry["run_id"], entry["task_id"], entry["map_index"])


def _where(entry: dict[str, Any]) -> Record:
    return {name: entry[name] for name in _WHERE if name in entry}


async def _gather(calls: Iterable[Any]) -> list[Any]:
    turns = asyncio.Semaphore(AT_ONCE)

    async def in_turn(call: Any) -> Any:
        async with turns:
            return await call

    return await asyncio.gather(*map(in_turn, calls))
