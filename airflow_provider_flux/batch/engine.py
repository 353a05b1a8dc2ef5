"""Makes all rows of a batch, many at a time, in an event loop and thread of its own.

Airflow ends a task by calling ``on_kill`` inside a signal handler on the main thread. That must not wait for anything,
so the loop runs elsewhere and is only told to stop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import chain

from airflow_provider_flux.batch.consequences import LeftError, NotStartedError
from airflow_provider_flux.batch.ledger import Ledger
from airflow_provider_flux.batch.model import PlannedRow, RowStatus
from airflow_provider_flux.batch.resources import Resources
from airflow_provider_flux.batch.row_run import RowRun
from airflow_provider_flux.batch.row_store import RowStore
from airflow_provider_flux.batch.stop_control import StopControl
from airflow_provider_flux.client.aio import shared_session
from airflow_provider_flux.exceptions import FluxInputError
from airflow_provider_flux.protocol.cancellation import KILL_PATIENCE

LEDGER_MARGIN = 0.7
"""Seconds of the time that Airflow grants a task that is killed which are left for the ledger and the manifest."""


class Engine:
    """The rows of a batch that are to be made, until they are or the batch stops.

    :param resources: what all rows share; nobody else uses its store while the engine runs.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._store: RowStore = resources.store
        self._ledger: Ledger = resources.ledger
        self._control: StopControl = resources.control
        self._workers: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = threading.Event()
        self._crash: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="flux-batch", daemon=True)

    def start(self) -> None:
        """Begin, in another thread."""
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait for the end, and tell whether it has come.

        :raises Exception: what ended the engine, if it is no row's fault.
        """
        if not self._ended.wait(seconds):
            return False
        self._thread.join()
        if self._crash is not None:
            raise self._crash
        return True

    def kill(self) -> None:
        """Stop, and cancel what is in flight. Returns at once, so that a signal handler may call it."""
        self._control.kill()
        if self._loop is None:
            return
        try:
            self._loop.call_soon_threadsafe(self._leave)
        except RuntimeError:
            # The loop is closed: all has ended by itself.
            return

    def _run(self) -> None:
        try:
            asyncio.run(self._go())
        except BaseException as crash:  # noqa: BLE001 (raised again on the main thread)
            self._crash = crash
        finally:
            self._ended.set()

    async def _go(self) -> None:
        self._loop = asyncio.get_running_loop()
        writing = asyncio.create_task(self._ledger.write())
        try:
            # Held open, so that connections are kept from one row to the next.
            async with AsyncExitStack() as sessions:
                for way in self._resources.ways:
                    await sessions.enter_async_context(shared_session(way.access))
                if self._control.is_killed:
                    self._leave()
                await self._make_all()
        finally:
            for way in self._resources.ways:
                way.picture_threads.close()
            self._ledger.close()
            await writing

    async def _make_all(self) -> None:
        # Rows that failed before anything was sent: they may be too many already.
        for row, _, outcome in self._store.results(RowStatus.FAILED):
            self._control.note_failure(row.key, row.position, FluxInputError(str((outcome or {})["error"])))
        # What may be paid for already is settled before anything more is paid for.
        rows = chain(self._store.rows(RowStatus.UNSETTLED), self._store.rows(RowStatus.NOT_STARTED))
        self._workers = [asyncio.create_task(self._work(rows)) for _ in range(self._resources.workers)]
        await asyncio.gather(*self._workers, return_exceptions=True)

    async def _work(self, rows: Iterator[PlannedRow]) -> None:
        while not self._control.is_stopped:
            row = next(rows, None)
            if row is None:
                return
            await self._make(row)

    async def _make(self, row: PlannedRow) -> None:
        before = RowStatus.UNSETTLED if self._resources.policy.is_unsettled(row) else RowStatus.NOT_STARTED
        self._store.set_status(row, RowStatus.IN_FLIGHT)
        run = RowRun(self._resources, row)
        try:
            status, outcome = await run.make()
        except NotStartedError:
            self._store.set_status(row, before)
        except LeftError:
            return
        except Exception as error:  # noqa: BLE001 (whatever it is, no more money is spent)
            self._control.stop(error)
        else:
            self._store.set_status(run.row, status, outcome)
            self._resources.progress.end(run.row, status, outcome)

    def _leave(self) -> None:
        """Let go of what is in flight, which cancels it, and see to it that all ends in time."""
        for watch in list(self._control.waits):
            watch.cancel()
        asyncio.get_running_loop().call_later(KILL_PATIENCE - LEDGER_MARGIN, self._abandon)

    def _abandon(self) -> None:
        for worker in self._workers:
            worker.cancel()
