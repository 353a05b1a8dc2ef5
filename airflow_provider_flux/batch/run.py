"""One try of a batch, from its table to its manifest."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from airflow_provider_flux.batch.breaker import Breaker
from airflow_provider_flux.batch.engine import Engine
from airflow_provider_flux.batch.lease import Lease, LeaseFile
from airflow_provider_flux.batch.ledger import Ledger, read_ledger, read_made
from airflow_provider_flux.batch.line_files import join, list_names, write_lines
from airflow_provider_flux.batch.manifest import read_former, read_history, write_manifest
from airflow_provider_flux.batch.model import RowStatus
from airflow_provider_flux.batch.own_files import (
    HISTORY,
    LEDGER,
    check_manifest_path,
    check_table_path,
    history_path,
    ledger_folder,
)
from airflow_provider_flux.batch.planning import SHOWN, Planner, Way
from airflow_provider_flux.batch.progress import PROGRESS_KEY, Progress
from airflow_provider_flux.batch.resources import BatchOptions, Resources
from airflow_provider_flux.batch.row_policy import BatchPolicy, Identity
from airflow_provider_flux.batch.row_store import RowStore
from airflow_provider_flux.batch.rows import Table
from airflow_provider_flux.batch.stop_control import StopControl
from airflow_provider_flux.exceptions import FluxBudgetError, FluxKilledError, FluxLeaseLostError
from airflow_provider_flux.outputs.storing import check_output_path
from airflow_provider_flux.protocol.cancellation import KILL_PATIENCE
from airflow_provider_flux.protocol.messages import Log
from airflow_provider_flux.protocol.storable import dumps
from airflow_provider_flux.protocol.times import iso

TICK = 0.5
"""Seconds between two looks at the engine."""

PUBLISHED_EVERY = 5.0
"""Seconds between two writes of the figures into Airflow's task state store, which cost a call each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """What is to be made, and where it goes.

    :param ways: the ways to make a row, in the order in which they are taken.
    :param manifest_path: of the whole table.
    :param suffix: added to it for what belongs to this task alone.
    :param lease: what is asked for before anything is done.
    :param waits_for_others: whether to wait for a batch that works on the manifest.
    :param adopts_manifest: whether to take over the manifest of another task.
    """

    table: Table
    ways: Sequence[Way]
    manifest_path: str
    suffix: str
    lease: Lease
    waits_for_others: bool
    adopts_manifest: bool


class BatchRun:
    """One try.

    :param figures: Airflow's task state store, which gets the figures; None where there is none.
    """

    def __init__(
        self,
        *,
        plan: BatchPlan,
        policy: BatchPolicy,
        control: StopControl,
        options: BatchOptions,
        figures: Any,
        log: Log,
    ) -> None:
        self._plan = plan
        self._policy = policy
        self._control = control
        self._options = options
        self._figures = figures
        self._log = log
        self._engine: Engine | None = None
        self.input_folders: set[str] = set()
        self._published_at = 0.0
        self._started_at = time.time()
        self.manifest_path = f"{plan.manifest_path}{plan.suffix}"
        self._lease = LeaseFile(self._ledger_folder, plan.lease, self.manifest_path, log)

    def kill(self) -> None:
        """End the try soon. Returns at once, so that a signal handler may call it."""
        self._control.kill()
        if self._engine is not None:
            self._engine.kill()

    def run(self) -> dict[str, Any]:
        """Make all rows that are not made yet, as far as that goes, and write the manifest.

        :return: the totals.
        :raises FluxError: if nothing could be begun.
        """
        check_output_path(self._options.output_path)
        check_manifest_path(self._plan.manifest_path)
        check_table_path(self._plan.table.rows, self._plan.manifest_path)
        if not self._lease.acquire(
            waits=self._plan.waits_for_others,
            adopts=self._plan.adopts_manifest,
            is_stopped=lambda: self._control.is_stopped,
        ):
            raise self._control.reason or FluxKilledError("The batch was ended while it waited; nothing was sent.")
        try:
            self._lease.start_heartbeat()
            return self._run()
        finally:
            self._lease.release()

    def _run(self) -> dict[str, Any]:
        with RowStore() as store:
            names = self._remember(store)
            planner = self._planner(store)
            planner.plan(self._plan.table)
            self.input_folders = planner.input_folders
            if self._control.reason is not None:
                raise self._control.reason
            self._tell_of_removed(store)
            # Whoever has taken over meanwhile has written a later one.
            self._lease.verify()
            self._write_history(store)
            ledger = Ledger(self._ledger_folder, names, store, self._log, verify=self._lease.verify)
            is_to_do = store.has(RowStatus.NOT_STARTED) or store.has(RowStatus.UNSETTLED)
            spent_before = self._spending() if is_to_do else {}
            self._make(store, ledger)
            totals = self._measured(self._finish(store), spent_before)
            if not self._control.is_killed and not self._lease.is_lost:
                ledger.compact(of_run=self._policy.identity.run)
            return totals

    def check_result(self, totals: Mapping[str, Any]) -> None:
        """Raise what the task fails with; nothing if it succeeds.

        :param totals: what :meth:`run` returned.
        """
        # Before anything that no try would follow: it would lose the pictures.
        not_stored = self._control.not_stored_error
        if not_stored is not None and not self._control.is_killed:
            raise not_stored from self._control.reason
        if self._control.reason is not None:
            raise self._control.reason
        failed = totals["failed"] + totals["unknown"]
        if failed and failed == totals["total"]:
            raise self._control.failure_error(f"all {failed} failed")

    @property
    def _ledger_folder(self) -> str:
        return ledger_folder(self.manifest_path)

    def _remember(self, store: RowStore) -> list[str]:
        """Take note of what earlier tries and runs have done; return the names of the ledger's segments."""
        folder, _, name = self._plan.manifest_path.rpartition("/")
        others = [
            found
            for found in list_names(folder)
            # Those of other parts as well: a row that has moved between parts is not paid for again.
            if found.startswith(name) and found.endswith(LEDGER) and join(folder, found) != self._ledger_folder
        ]
        # What counts most comes last.
        for other in others:
            store.put_former(read_history(join(join(folder, other), HISTORY)))
            # An entry of this task's own may be newer, and would hide it.
            store.put_former(read_made(join(folder, other)))
        store.put_former(read_history(history_path(self.manifest_path)), is_own=True)
        names = read_ledger(self._ledger_folder, store)
        store.put_entries_as_former()
        read_former(self._plan.manifest_path, self._plan.suffix, store)
        for other in others:
            read_ledger(join(folder, other), store)
        for pictures in store.picture_folders():
            store.put_files(join(pictures, file) for file in list_names(pictures))
        return names

    def _write_history(self, store: RowStore) -> None:
        """Remember the rows with pictures that the next manifest will not list, before anything is made."""
        path = history_path(self.manifest_path)
        lines = (dumps(made) for made in store.unlisted() if not store.is_gone(made["paths"]))
        first = next(lines, None)
        if first is not None or HISTORY in list_names(self._ledger_folder):
            write_lines(path, chain([] if first is None else [first], lines))

    def _planner(self, store: RowStore) -> Planner:
        return Planner(
            self._plan.ways,
            store,
            self._policy,
            validate_input=self._options.validate_input,
            has_budget=self._options.budget_usd is not None,
            is_stopped=lambda: self._control.is_stopped,
        )

    def _tell_of_removed(self, store: RowStore) -> None:
        count, keys = store.removed(SHOWN)
        if count:
            self._log.info(
                "%d rows of the manifest are not in the table any more, such as %s; their pictures are left alone",
                count,
                ", ".join(map(repr, keys)),
            )

    def _make(self, store: RowStore, ledger: Ledger) -> None:
        breaker = Breaker([f"{way.name} at {way.hook.gateway_name}" for way in self._plan.ways], self._log)
        progress = Progress(
            store.counts(),
            self.manifest_path,
            spent_usd=store.committed_usd(self._policy.identity.run),
            rows_at_most=store.rows_at_most(self._policy.identity.run),
            left_out=lambda: breaker.out,
            now=time.time(),
        )
        self._engine = Engine(
            Resources(
                hooks=[way.hook for way in self._plan.ways],
                store=store,
                ledger=ledger,
                policy=self._policy,
                control=self._control,
                progress=progress,
                options=self._options,
                lease=self._lease,
                breaker=breaker,
                log=self._log,
            )
        )
        progress.log(self._log, time.time(), at_once=True)
        self._engine.start()
        try:
            while not self._engine.wait(TICK):
                progress.log(self._log, time.time())
                self._publish(progress)
        except BaseException:
            # Airflow's execution_timeout is raised right here.
            self._engine.kill()
            if self._engine.wait(KILL_PATIENCE):
                self._finish(store)
            raise
        progress.log(self._log, time.time(), at_once=True)
        self._publish(progress, at_once=True)

    def _spending(self) -> dict[str, float]:
        """Return what the accounts have spent that tell it, by their connections."""
        hooks = {way.hook.flux_conn_id: way.hook for way in self._plan.ways}
        spent = {name: hook.spending() for name, hook in hooks.items() if not self._control.is_killed}
        return {name: usd for name, usd in spent.items() if usd is not None}

    def _measured(self, totals: dict[str, Any], before: Mapping[str, float]) -> dict[str, Any]:
        """Add to the totals what the accounts say that they have spent while this try has run."""
        after = self._spending() if before else {}
        spent = [after[name] - usd for name, usd in before.items() if name in after]
        measured = round(sum(spent), 6) if spent else None
        if measured is not None:
            self._log.info(
                "The accounts say that %.4f USD were spent meanwhile, by whoever uses them; this run counts %s%.4f",
                measured,
                "at most " if totals["spent_is_at_most"] else "",
                totals["spent_usd"],
            )
        return {**totals, "measured_usd": measured}

    def _publish(self, progress: Progress, *, at_once: bool = False) -> None:
        """Write the figures where a page can read them, if it is time to."""
        now = time.time()
        is_due = at_once or now - self._published_at >= PUBLISHED_EVERY
        if self._figures is None or not is_due or self._control.is_killed:
            return
        self._published_at = now
        try:
            self._figures.set(PROGRESS_KEY, progress.figures(now))
        except Exception as error:  # noqa: BLE001 (figures are no reason to leave off what is paid for)
            self._log.warning("The figures could not be published: %s", error)

    def _finish(self, store: RowStore) -> dict[str, Any]:
        store.change_all(RowStatus.UNSETTLED, RowStatus.IN_FLIGHT)
        if isinstance(self._control.reason, FluxBudgetError):
            store.change_all(RowStatus.NOT_STARTED, RowStatus.OVER_BUDGET)
        try:
            # A holder that stood still may not know yet that the manifest is another batch's by now.
            self._lease.verify()
        except FluxLeaseLostError as lost:
            raise self._control.reason or lost from lost
        totals = write_manifest(self.manifest_path, store)
        removed, _ = store.removed(0)
        spent = round(store.committed_usd(self._policy.identity.run), 6)
        return {
            **totals,
            "removed": removed,
            "spent_usd": spent,
            "spent_is_at_most": store.rows_at_most(self._policy.identity.run) > 0,
            "manifest_path": self.manifest_path,
            "started_at": iso(self._started_at),
            "updated_at": iso(time.time()),
        }


__all__ = ["BatchOptions", "BatchPlan", "BatchPolicy", "BatchRun", "Identity", "Lease", "StopControl", "Table", "Way"]
