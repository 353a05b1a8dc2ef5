"""What the rows of a batch share."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TypeVar

from airflow_provider_flux.batch.breaker import Breaker
from airflow_provider_flux.batch.input_room import InputRoom
from airflow_provider_flux.batch.lease import LeaseFile
from airflow_provider_flux.batch.ledger import Ledger
from airflow_provider_flux.batch.list_lookups import ListLookups
from airflow_provider_flux.batch.model import Entry, PlannedRow
from airflow_provider_flux.batch.picture_threads import STORES_AT_ONCE, PictureThreads
from airflow_provider_flux.batch.progress import Progress
from airflow_provider_flux.batch.row_policy import BatchPolicy
from airflow_provider_flux.batch.row_store import RowStore
from airflow_provider_flux.batch.stop_control import StopControl
from airflow_provider_flux.client import aio
from airflow_provider_flux.exceptions import FluxBudgetError
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.inputs.transfer import InputTransfer
from airflow_provider_flux.outputs.fetching import FetchRules
from airflow_provider_flux.protocol.flows import Conversation, Flow
from airflow_provider_flux.protocol.messages import JSON, Log
from airflow_provider_flux.protocol.picture_inputs import pictures_of
from airflow_provider_flux.protocol.submission import NotSubmitted

T = TypeVar("T")

CREATES_AT_ONCE = 32
"""How many creates may be on their way: of so many at most nobody knows the outcome when the worker dies."""

BUDGET_TOLERANCE_USD = 1e-9
"""Binary fractions of a cent add up to a little more than they should."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """How rows are made; see :class:`airflow_provider_flux.operators.batch.FluxBatchOperator`.

    :param timeout: seconds from a prediction's submission to its deadline.
    :param fallback_on: for what the next way to make a row is taken.
    :param patience: seconds for which a way is tried before that.
    """

    output_path: str
    max_in_flight: int
    budget_usd: float | None
    timeout: float
    poll_interval: float | None
    validate_input: bool
    cancel_on_kill: bool
    write_sidecars: bool
    input_transfer: InputTransfer = "auto"
    fallback_on: Sequence[str] = ()
    patience: float = 0.0


class WayResources:
    """What the rows of a batch share that are made in one way."""

    def __init__(self, hook: FluxHook, store: RowStore, being_created: Counter[str], log: Log) -> None:
        self.hook = hook
        self.access = hook.access
        self.conversation = Conversation(self.access.gateway, log)
        self.lookups = ListLookups(self.conversation, self.run, store, being_created)
        self.picture_threads = PictureThreads(
            FetchRules(allow_private=self.access.allow_private_outputs, ca_file=self.access.ca_file)
        )

    async def run(self, flow: Flow[T]) -> T:
        """Run a flow over the shared session."""
        return await aio.run(flow, self.access)


class Resources:
    """What the rows of a batch share.

    :param hooks: whom each way to make a row asks, in the order in which the ways are taken.
    """

    def __init__(
        self,
        *,
        hooks: Sequence[FluxHook],
        store: RowStore,
        ledger: Ledger,
        policy: BatchPolicy,
        control: StopControl,
        progress: Progress,
        options: BatchOptions,
        lease: LeaseFile,
        breaker: Breaker,
        log: Log,
    ) -> None:
        self.store = store
        self.ledger = ledger
        self.policy = policy
        self.control = control
        self.progress = progress
        self.options = options
        self.lease = lease
        self.log = log
        self.limited_log = LimitedLog(log)
        self.workers = options.max_in_flight + STORES_AT_ONCE
        self.places = asyncio.Semaphore(options.max_in_flight)
        self.creates = asyncio.Semaphore(CREATES_AT_ONCE)
        self.input_room = InputRoom()
        self.being_created: Counter[str] = Counter()
        shared: dict[str, WayResources] = {}
        for hook in hooks:
            if hook.flux_conn_id not in shared:
                shared[hook.flux_conn_id] = WayResources(hook, store, self.being_created, self.limited_log)
        self.ways = [shared[hook.flux_conn_id] for hook in hooks]
        self.breaker = breaker
        self._committed_usd = store.committed_usd(policy.identity.run)

    async def input_to_send(
        self, way: WayResources, input: Mapping[str, JSON], held: AsyncExitStack, *, deadline: float
    ) -> Mapping[str, JSON]:
        """Return a row's input with something that the gateway can read in the place of each picture.

        :param way: whose gateway is meant.
        :param held: keeps the room that the pictures take, until they are sent.
        """
        await held.enter_async_context(self.input_room.take(sum(picture["bytes"] for _, picture in pictures_of(input))))
        transfer, log = self.options.input_transfer, self.limited_log
        return await asyncio.to_thread(way.hook.input_to_send, input, transfer, deadline=deadline, log=log)

    def commit(self, before: Entry, after: Entry) -> None:
        """Take note of money that is spent on a row, or not spent after all.

        :param before: what was known of the row.
        :param after: what is known now.
        """
        usd = after.committed_usd - before.committed_usd
        self._committed_usd += usd
        self.progress.commit(usd, rows_at_most=after.is_at_most - before.is_at_most)

    def check_budget(self, row: PlannedRow) -> None:
        """Stop the batch before its budget is crossed.

        :raises NotSubmitted: if the row would cross it.
        """
        budget = self.options.budget_usd
        if budget is None or self._committed_usd + row.estimate <= budget + BUDGET_TOLERANCE_USD:
            return
        is_at_most = self.progress.is_at_most or row.is_at_most
        known = " All that is known of these costs is that they are no higher." if is_at_most else ""
        self.control.stop(
            FluxBudgetError(
                f"{self._committed_usd:.4f} of {budget:g} USD are spent, and row {row.key!r} would cost "
                f"{row.estimate:.4f} more.{known} What was in flight is made and stored; the rest is over_budget in "
                "the manifest. Raise budget_usd and clear this task to go on with it."
            )
        )
        raise NotSubmitted("the budget is spent")


class LimitedLog:
    """Tells of problems with single predictions, but not of each when there are many.

    :param limit: how many warnings are told.
    """

    def __init__(self, log: Log, limit: int = 50) -> None:
        self._log = log
        self._left = limit

    def info(self, message: str, /, *args: object) -> None:
        """Say nothing: one line for each change of thousands of predictions is too much."""

    def warning(self, message: str, /, *args: object) -> None:
        """Tell, unless too much has been told already."""
        self._left -= 1
        if self._left >= 0:
            self._log.warning(message, *args)
        if self._left == 0:
            self._log.warning("More warnings about single predictions are not shown")
