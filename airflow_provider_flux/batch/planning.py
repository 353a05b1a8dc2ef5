"""What to do about every row, found out before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from airflow_provider_flux.batch.model import PlannedRow, RowStatus
from airflow_provider_flux.batch.rendering import RowRenderer
from airflow_provider_flux.batch.row_policy import BatchPolicy, standing
from airflow_provider_flux.batch.row_store import RowStore
from airflow_provider_flux.batch.rows import Row, Table
from airflow_provider_flux.exceptions import FluxBudgetError, FluxInputError
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.pricing import estimate, price_of
from airflow_provider_flux.protocol.resume import fingerprint_of

SHOWN = 10
"""How many rows an error names."""


class Planner:
    """Reads a table once, and puts each row into the store with what is to be done about it.

    :param has_budget: whether a row without a known price must be refused.
    :param is_stopped: tells whether the task is being ended.
    """

    def __init__(
        self,
        hook: FluxHook,
        store: RowStore,
        policy: BatchPolicy,
        *,
        validate_input: bool,
        has_budget: bool,
        is_stopped: Callable[[], bool],
    ) -> None:
        self._hook = hook
        self._store = store
        self._policy = policy
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
            status, outcome = standing(
                planned.entry,
                self._store.former(key, planned.fingerprint),
                fingerprint=planned.fingerprint,
                policy=self._policy,
                all_exist=self._store.all_exist,
            )
            if status is RowStatus.NOT_STARTED and self._validate_input:
                self._hook.check_input(model, sent)
        except FluxInputError as error:
            status, outcome = RowStatus.FAILED, {"error": str(error)}
        if status is RowStatus.NOT_STARTED and self._has_budget and planned.estimate is None:
            raise FluxBudgetError(
                f"budget_usd cannot be kept: what a prediction of {planned.model} costs at {self._hook.gateway_name} "
                f"is not known (row {position + 1}, key {key!r}). Set prices in the extra of connection "
                f"{self._hook.flux_conn_id!r}, or leave out budget_usd. Nothing was sent."
            )
        self._store.add_row(planned, status, outcome)

    def _estimate(self, model: str, input: Mapping[str, JSON]) -> float | None:
        price = price_of(self._hook.access.gateway.preset.name, model, self._hook.access.prices)
        return estimate(price, model, input)
