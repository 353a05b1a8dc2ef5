"""What to do about every row, found out before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from airflow_provider_flux.batch.model import Entry, PlannedRow, RowStatus
from airflow_provider_flux.batch.read_ahead import Asked, ReadAhead
from airflow_provider_flux.batch.rendering import RowRenderer
from airflow_provider_flux.batch.row_policy import BatchPolicy, standing
from airflow_provider_flux.batch.row_store import RowStore
from airflow_provider_flux.batch.rows import Row, Table
from airflow_provider_flux.exceptions import FluxBudgetError, FluxInputError, FluxStorageError
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.inputs.picture_reading import names_files
from airflow_provider_flux.protocol.fingerprint import fingerprint_of, fingerprints_of, is_fingerprint_of
from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.picture_inputs import pictures_of
from airflow_provider_flux.protocol.pricing import estimate, price_of
from airflow_provider_flux.protocol.storable import find_unstorable

SHOWN = 10
"""How many rows an error names."""


class Planner:
    """Reads a table once, and puts each row into the store with what is to be done about it.

    :param has_budget: whether a row without a known price must be refused.
    :param is_stopped: tells whether the task is being ended.
    :ivar input_folders: of the pictures that rows are made from.
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
        self.input_folders: set[str] = set()

    def plan(self, table: Table, renderer: RowRenderer) -> None:
        """Put every row of the table's part into the store.

        :raises FluxInputError: if keys are missing or doubled, naming them, or the table cannot be read.
        :raises FluxBudgetError: if a price is not known.
        """
        with ReadAhead() as reading:
            for position, row in enumerate(table.read(renderer.columns)):
                if self._is_stopped():
                    return
                key = self._key(position, row, renderer)
                if table.holds(position) and not self._keys_at_fault:
                    asked = self._asked(position, key, row, renderer)
                    read = partial(self._hook.read_input, asked.model, asked.input, asked.input_files)
                    is_slow = names_files(asked.model, asked.input, asked.input_files)
                    for one in reading.begin(asked, read, is_slow=is_slow):
                        self._plan_row(*one)
            for one in reading.rest():
                self._plan_row(*one)
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
        unstorable = next(find_unstorable(key, "the key"), None)
        earlier = self._store.add_key(key, position) if key and unstorable is None else None
        if unstorable is not None:
            self._keys_at_fault.append(f"row {position + 1}: {unstorable}")
        elif not key:
            self._keys_at_fault.append(f"row {position + 1} has none")
        elif earlier is not None:
            self._keys_at_fault.append(f"rows {earlier + 1} and {position + 1} both have {key!r}")
        return key

    def _asked(self, position: int, key: str, row: Row, renderer: RowRenderer) -> Asked:
        """Return what a row asks for, or what is wrong with it."""
        try:
            model, given = renderer.request(row)
            # What cannot be sent has no fingerprint either.
            self._hook.check_input(model, given, against_schema=False)
            return Asked(position, key, model, given, renderer.input_files(row))
        except FluxInputError as error:
            return Asked(position, key, error=error)

    def _plan_row(self, asked: Asked, read: Callable[[], dict[str, JSON]]) -> None:
        position, key, model = asked.position, asked.key, asked.model
        planned = PlannedRow(position=position, key=key, model="", input={}, fingerprint="")
        try:
            if asked.error is not None:
                raise asked.error
            sent = read()
            self.input_folders.update(picture["path"].rpartition("/")[0] for _, picture in pictures_of(sent))
            planned = PlannedRow(
                position=position,
                key=key,
                model=model,
                input=sent,
                fingerprint=fingerprint_of(self._hook.access.gateway, model, sent),
                estimate=self._estimate(model, sent),
            )
            planned = replace(planned, entry=self._entry(planned))
            status, outcome = standing(
                planned.entry,
                self._former(planned) if self._policy.incremental else None,
                fingerprint=planned.fingerprint,
                policy=self._policy,
                all_exist=self._store.all_exist,
            )
            if status is RowStatus.NOT_STARTED and self._validate_input:
                self._hook.check_input(model, asked.input)
        except (FluxInputError, FluxStorageError) as error:
            status, outcome = RowStatus.FAILED, {"error": str(error)}
        if status is RowStatus.NOT_STARTED and self._has_budget and planned.estimate is None:
            raise FluxBudgetError(
                f"budget_usd cannot be kept: what a prediction of {planned.model} costs at {self._hook.gateway_name} "
                f"is not known (row {position + 1}, key {key!r}). Set prices in the extra of connection "
                f"{self._hook.flux_conn_id!r}, or leave out budget_usd. Nothing was sent."
            )
        self._store.add_row(planned, status, outcome)

    def _entry(self, planned: PlannedRow) -> Entry | None:
        """Return what the ledger knows of a row, with today's fingerprint if it was submitted just like that."""
        entry = self._store.entry(planned.key)
        if (
            entry is None
            or entry.fingerprint == planned.fingerprint
            or not is_fingerprint_of(entry.fingerprint, self._hook.access.gateway, planned.model, planned.input)
        ):
            return entry
        entry = replace(entry, fingerprint=planned.fingerprint, revision=entry.revision + 1)
        self._store.put_entries([entry])
        return entry

    def _former(self, planned: PlannedRow) -> dict[str, JSON] | None:
        """Return how a row was made before, if it was submitted just like that."""
        known = self._store.former_fingerprints(planned.key)
        same = fingerprints_of(self._hook.access.gateway, planned.model, planned.input) if known else ()
        for fingerprint in same:
            if fingerprint in known:
                return {**self._store.former(planned.key, fingerprint), "fingerprint": planned.fingerprint}
        return None

    def _estimate(self, model: str, input: Mapping[str, JSON]) -> float | None:
        price = price_of(self._hook.access.gateway.preset.name, model, self._hook.access.prices)
        return estimate(price, model, input)
