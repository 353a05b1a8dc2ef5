"""What to do about every row, found out before anything is sent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_flux.batch.rendering import RowRenderer
from airflow_provider_flux.batch.rows import Row, Table
from airflow_provider_flux.batch.state import Entry, PlannedRow, RowStatus, RowStore
from airflow_provider_flux.durable import Step, SubmissionRecord, decide, fingerprint_of
from airflow_provider_flux.exceptions import FluxBudgetError, FluxInputError
from airflow_provider_flux.hooks.flux import FluxHook, OnUnknownSubmission
from airflow_provider_flux.pricing import estimate, price_of
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus
from airflow_provider_flux.protocol.wire import JSON

SHOWN = 10
"""How many rows an error names."""

OTHER_GENERATION = -1
"""Stands for the generation of any other run: a new run may try again what has failed."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who writes into a ledger.

    :param run: the task instance, the same in every try.
    :param generation: changes when a person clears the task.
    :param try_number: counts Airflow's tries.
    """

    run: str
    generation: int
    try_number: int

    @classmethod
    def of_task(cls, context: Mapping[str, Any]) -> Identity:
        """Return the identity of the running task."""
        instance = context["ti"]
        parts = (instance.dag_id, instance.run_id, instance.task_id, str(instance.map_index))
        return cls(
            hashlib.sha256("/".join(parts).encode()).hexdigest()[:16],
            # Airflow raises it when a person clears the task, and leaves it alone when it retries.
            getattr(instance, "max_tries", 0) or 0,
            getattr(instance, "try_number", 1) or 1,
        )


@dataclass(frozen=True, slots=True)
class Deciding:
    """Decides about rows as :func:`airflow_provider_flux.durable.decide` does about a single prediction."""

    identity: Identity
    can_list: bool
    on_unknown_submission: OnUnknownSubmission
    incremental: bool

    def known(self, entry: Entry | None) -> Entry | None:
        """Return an entry if it counts: those of other runs do only if the batch is incremental."""
        if entry is None or entry.run == self.identity.run or self.incremental:
            return entry
        return None

    def step(
        self, entry: Entry | None, fingerprint: str, seen: Prediction | None = None, *, gone: bool = False
    ) -> Step:
        """Decide what to do about a row.

        :param entry: what the ledger knows of it.
        :param seen: its prediction as the gateway describes it now, or as the ledger says that it has ended.
        :param gone: whether the gateway knows no such prediction.
        """
        return decide(
            self._record(self.known(entry)),
            fingerprint=fingerprint,
            generation=self.identity.generation,
            can_list=self.can_list,
            resubmits=self.on_unknown_submission == "resubmit",
            seen=seen,
            gone=gone,
        )

    def _record(self, entry: Entry | None) -> SubmissionRecord | None:
        if entry is None or (entry.prediction_id is None and not entry.sent_at):
            return None
        is_own = entry.run == self.identity.run
        return SubmissionRecord(
            fingerprint=entry.fingerprint,
            generation=entry.generation if is_own else OTHER_GENERATION,
            try_number=entry.try_number,
            sent_at=entry.sent_at,
            prediction_id=entry.prediction_id,
            # A new run is no person who takes the risk of paying twice.
            told=entry.told and is_own,
        )


class Planner:
    """Reads a table once, and puts each row into the store with what is to be done about it.

    :param has_budget: whether a row without a known price must be refused.
    :param is_stopped: tells whether the task is being ended.
    """

    def __init__(
        self,
        hook: FluxHook,
        store: RowStore,
        deciding: Deciding,
        *,
        validate_input: bool,
        has_budget: bool,
        is_stopped: Callable[[], bool],
    ) -> None:
        self._hook = hook
        self._store = store
        self._deciding = deciding
        self._validate_input = validate_input
        self._has_budget = has_budget
        self._is_stopped = is_stopped
        self._keys_at_fault: list[str] = []

    def plan(self, table: Table, renderer: RowRenderer) -> None:
        """Put every row of the table's part into the store.

        :raises FluxInputError: if keys are missing or doubled, naming them, or the table cannot be read.
        :raises FluxBudgetError: if a price is not known.
        """
        for position, row in enumerate(table.read()):
            if self._is_stopped():
                return
            key = self._key(position, row, renderer)
            if table.holds(position) and not self._keys_at_fault:
                self._plan_row(position, key, row, renderer)
        if self._keys_at_fault:
            shown = "; ".join(self._keys_at_fault[:SHOWN])
            more = len(self._keys_at_fault) - SHOWN
            raise FluxInputError(
                f"Every row needs a key of its own, by which it is found again: {shown}"
                f"{f'; and {more} more' if more > 0 else ''}. Nothing was sent."
            )

    def _key(self, position: int, row: Row, renderer: RowRenderer) -> str:
        try:
            key = renderer.key(row)
        except FluxInputError as error:
            raise FluxInputError(f"Row {position + 1} of the table: {error}. Nothing was sent.") from error
        earlier = self._store.add_key(key, position) if key else None
        if not key:
            self._keys_at_fault.append(f"row {position + 1} has none")
        elif earlier is not None:
            self._keys_at_fault.append(f"rows {earlier + 1} and {position + 1} both have {key!r}")
        return key

    def _plan_row(self, position: int, key: str, row: Row, renderer: RowRenderer) -> None:
        planned = PlannedRow(position=position, key=key, model="", input={}, fingerprint="")
        try:
            model, sent = renderer.request(row)
            # What cannot be sent has no fingerprint either.
            self._hook.check_input(model, sent, against_schema=False)
            planned = PlannedRow(
                position=position,
                key=key,
                model=model,
                input=sent,
                fingerprint=fingerprint_of(self._hook.access.gateway, model, sent),
                estimate=self._estimate(model, sent),
                entry=self._store.entry(key),
            )
            status, outcome = self._look_back(planned)
            if status is RowStatus.NOT_STARTED and self._validate_input:
                self._hook.check_input(model, sent)
        except FluxInputError as error:
            status, outcome = RowStatus.FAILED, {"error": str(error)}
        if status is RowStatus.NOT_STARTED and self._has_budget and planned.estimate is None:
            raise FluxBudgetError(
                f"budget_usd cannot be kept: what a prediction of {planned.model} costs at {self._hook.gateway_name} "
                f"is not known (row {position + 1}, key {key!r}). Set prices in the extra of connection "
                f"{self._hook.flux_conn_id!r}, or leave budget_usd away. Nothing was sent."
            )
        self._store.add_row(planned, status, outcome)

    def _estimate(self, model: str, input: Mapping[str, JSON]) -> float | None:
        price = price_of(self._hook.access.gateway.preset.name, model, self._hook.access.prices)
        return estimate(price, model, input)

    def _look_back(self, row: PlannedRow) -> tuple[RowStatus, dict[str, JSON] | None]:
        """Return how a row stands after what was done about it before."""
        entry = self._deciding.known(row.entry)
        if entry is not None and entry.fingerprint == row.fingerprint and entry.outcome is not None:
            found = self._of_outcome(row, entry, entry.outcome)
            if found is not None:
                return found
        former = self._store.former(row.key, row.fingerprint)
        if former is not None and self._store.all_exist(former["paths"]):
            return RowStatus.KEPT, former
        return self._of_intent(row, entry), None

    def _of_outcome(
        self, row: PlannedRow, entry: Entry, outcome: dict[str, JSON]
    ) -> tuple[RowStatus, dict[str, JSON]] | None:
        is_own = entry.run == self._deciding.identity.run
        if outcome["status"] == RowStatus.SUCCEEDED.value:
            if self._store.all_exist(outcome["paths"]):
                return RowStatus.SUCCEEDED if is_own else RowStatus.KEPT, outcome
            return None
        same_generation = is_own and entry.generation == self._deciding.identity.generation
        # The same input would be refused again, until a person clears the task.
        return (RowStatus.FAILED, outcome) if outcome["is_lasting"] and same_generation else None

    def _of_intent(self, row: PlannedRow, entry: Entry | None) -> RowStatus:
        seen = prediction_of(entry)
        step = self._deciding.step(row.entry, row.fingerprint, seen)
        return {Step.LOOK_UP: RowStatus.LOOKED_UP, Step.REFUSE: RowStatus.UNKNOWN}.get(step, RowStatus.NOT_STARTED)


def prediction_of(entry: Entry | None) -> Prediction | None:
    """Return the prediction of a row as far as the ledger knows how it has ended."""
    if entry is None or entry.prediction_id is None or entry.outcome is None:
        return None
    status = entry.outcome.get("prediction_status")
    if status is None:
        return None
    if status == PredictionStatus.SUCCEEDED.value and entry.outcome["status"] == RowStatus.SUCCEEDED.value:
        # Its stored pictures are gone; whether the service still has them only the gateway can tell.
        return None
    # A success that failed all the same has no picture that could be stored.
    return Prediction(
        id=entry.prediction_id, status=PredictionStatus(status), error=str(entry.outcome.get("error") or "")
    )
