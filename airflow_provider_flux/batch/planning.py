"""What to do about every row, found out before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from airflow_provider_flux.batch.model import Attempt, Entry, PlannedRow, RowStatus, attempt_of
from airflow_provider_flux.batch.read_ahead import Asked, Inputs, ReadAhead, Request
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
from airflow_provider_flux.protocol.pricing import Cost, estimate, price_of
from airflow_provider_flux.protocol.storable import find_unstorable

SHOWN = 10
"""How many rows an error names."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to make the rows of a table: the first, or a fallback.

    :param name: the model, as the DAG's author writes it.
    :param renderer: makes what is asked for of a row.
    :param hook: whom it is asked of.
    """

    name: str
    renderer: RowRenderer
    hook: FluxHook

    def estimate(self, model: str, input: Mapping[str, JSON]) -> Cost | None:
        """Return what a prediction will cost; None if that is not known."""
        access = self.hook.access
        return estimate(price_of(access.gateway.preset.name, model, access.prices, access.listed_prices), model, input)


class Planner:
    """Reads a table once, and puts each row into the store with what is to be done about it.

    :param ways: the ways to make a row, in the order in which they are taken.
    :param has_budget: whether a row without a known price must be refused.
    :param is_stopped: tells whether the task is being ended.
    :ivar input_folders: of the pictures that rows are made from.
    """

    def __init__(
        self,
        ways: Sequence[Way],
        store: RowStore,
        policy: BatchPolicy,
        *,
        validate_input: bool,
        has_budget: bool,
        is_stopped: Callable[[], bool],
    ) -> None:
        self._ways = ways
        self._store = store
        self._policy = policy
        self._validate_input = validate_input
        self._has_budget = has_budget
        self._is_stopped = is_stopped
        self._keys_at_fault: list[str] = []
        self.input_folders: set[str] = set()

    def plan(self, table: Table) -> None:
        """Put every row of the table's part into the store.

        :raises FluxInputError: if keys are missing or doubled, naming them, or the table cannot be read.
        :raises FluxBudgetError: if a price is not known.
        """
        with ReadAhead() as reading:
            for position, row in enumerate(table.read(self._columns())):
                if self._is_stopped():
                    return
                key = self._key(position, row)
                if table.holds(position) and not self._keys_at_fault:
                    asked = self._asked(position, key, row)
                    is_slow = any(names_files(one.model, one.input, one.input_files) for one in asked.requests)
                    for one in reading.begin(asked, partial(self._read, asked), is_slow=is_slow):
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

    def _columns(self) -> frozenset[str] | None:
        columns: set[str] = set()
        for way in self._ways:
            if way.renderer.columns is None:
                return None
            columns |= way.renderer.columns
        return frozenset(columns)

    def _key(self, position: int, row: Row) -> str:
        try:
            key = self._ways[0].renderer.key(row)
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

    def _asked(self, position: int, key: str, row: Row) -> Asked:
        """Return what a row asks for, or what is wrong with it."""
        try:
            requests = [self._request(at, way, row) for at, way in enumerate(self._ways)]
        except FluxInputError as error:
            return Asked(position, key, error=error)
        return Asked(position, key, requests)

    def _request(self, at: int, way: Way, row: Row) -> Request:
        model, given = way.renderer.request(row)
        if at:
            # A fallback with an input of its own has the prompt of the first way.
            given = {**self._prompt(row), **given}
        # What cannot be sent has no fingerprint either.
        way.hook.check_input(model, given, against_schema=False)
        way.hook.check_model(model)
        return Request(model, given, way.renderer.input_files(row))

    def _prompt(self, row: Row) -> dict[str, JSON]:
        _, given = self._ways[0].renderer.request(row)
        return {name: value for name, value in given.items() if name == "prompt"}

    def _read(self, asked: Asked) -> Inputs:
        return [
            way.hook.read_input(request.model, request.input, request.input_files)
            for way, request in zip(self._ways, asked.requests, strict=True)
        ]

    def _plan_row(self, asked: Asked, read: Callable[[], Inputs]) -> None:
        planned = PlannedRow(position=asked.position, key=asked.key, attempts=[_NOTHING])
        try:
            if asked.error is not None:
                raise asked.error
            planned = replace(planned, attempts=self._attempts(asked, read()))
            planned = planned.with_entry(self._entry(planned))
            former = self._former(planned) if self._policy.incremental else None
            status, outcome = standing(
                planned.entry,
                former,
                fingerprint=planned.fingerprint,
                policy=self._policy,
                at=planned.at,
                all_exist=self._store.all_exist,
            )
            if status is RowStatus.KEPT and former is not None and outcome == former:
                made = [attempt.fingerprint for attempt in planned.attempts].index(former["fingerprint"])
                planned = replace(planned, at=made)
            if status is RowStatus.NOT_STARTED and self._validate_input:
                for at, (way, request) in enumerate(zip(self._ways, asked.requests, strict=True)):
                    way.hook.check_input(request.model, request.input, known_fields_only=at > 0)
        except (FluxInputError, FluxStorageError) as error:
            status, outcome = RowStatus.FAILED, {"error": str(error)}
        if status is RowStatus.NOT_STARTED and self._has_budget:
            self._check_prices(planned)
        self._store.add_row(planned, status, outcome)

    def _attempts(self, asked: Asked, inputs: Inputs) -> list[Attempt]:
        for sent in inputs:
            self.input_folders.update(picture["path"].rpartition("/")[0] for _, picture in pictures_of(sent))
        return [
            Attempt(
                model=request.model,
                input=sent,
                fingerprint=fingerprint_of(way.hook.access.gateway, request.model, sent),
                estimate=way.estimate(request.model, sent),
            )
            for way, request, sent in zip(self._ways, asked.requests, inputs, strict=True)
        ]

    def _check_prices(self, planned: PlannedRow) -> None:
        for way, attempt in zip(self._ways, planned.attempts, strict=True):
            if attempt.estimate is None:
                raise FluxBudgetError(
                    f"budget_usd cannot be kept: what a prediction of {attempt.model} costs at {way.hook.gateway_name} "
                    f"is not known (row {planned.position + 1}, key {planned.key!r}). Put its price in USD into the "
                    f"extra of connection {way.hook.flux_conn_id!r}, such as "
                    f'{{"prices": {{"{attempt.model}": 0.04}}}}, or leave out budget_usd. Nothing was sent.'
                )

    def _entry(self, planned: PlannedRow) -> Entry | None:
        """Return what the ledger knows of a row, with today's fingerprint if it was submitted just like that."""
        entry = self._store.entry(planned.key)
        if entry is None or attempt_of(entry, [attempt.fingerprint for attempt in planned.attempts]) is not None:
            return entry
        for way, attempt in zip(self._ways, planned.attempts, strict=True):
            if is_fingerprint_of(entry.fingerprint, way.hook.access.gateway, attempt.model, attempt.input):
                entry = replace(entry, fingerprint=attempt.fingerprint, revision=entry.revision + 1)
                self._store.put_entries([entry])
                return entry
        return entry

    def _former(self, planned: PlannedRow) -> dict[str, JSON] | None:
        """Return how a row was made before, if it was submitted in one of these ways."""
        known = self._store.former_fingerprints(planned.key)
        for way, attempt in zip(self._ways, planned.attempts, strict=True) if known else ():
            for fingerprint in fingerprints_of(way.hook.access.gateway, attempt.model, attempt.input):
                if fingerprint in known:
                    former = self._store.former(planned.key, fingerprint)
                    return {"model": attempt.model, **former, "fingerprint": attempt.fingerprint}
        return None


_NOTHING = Attempt(model="", input={}, fingerprint="")
"""Stands for what a row asks for of which that cannot be told."""
