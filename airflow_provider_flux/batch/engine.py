"""Makes all rows of a batch, many at a time, in an event loop and thread of its own.

Airflow ends a task by calling ``on_kill`` inside a signal handler on the main thread. That must not wait for anything,
so the loop runs elsewhere and is only told to stop.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterator, Sequence

from airflow_provider_flux.batch.control import Control
from airflow_provider_flux.batch.ledger import Ledger
from airflow_provider_flux.batch.lookup import look_up
from airflow_provider_flux.batch.making import LeftError, LookUpError, Making, NotStartedError, Workshop
from airflow_provider_flux.batch.state import PlannedRow, RowStatus, RowStore
from airflow_provider_flux.cancellation import KILL_PATIENCE
from airflow_provider_flux.exceptions import FluxInputError
from airflow_provider_flux.protocol.verdicts import Failure

LOOKUP_PAUSE = 10.0
"""Seconds between two looks into the gateway's list."""

LEDGER_MARGIN = 0.7
"""Seconds of the time that Airflow grants a task that is killed which are left for the ledger and the manifest."""


class Engine:
    """The rows of a batch that are to be made, until they are or the batch stops.

    :param workshop: what all rows share; nobody else uses its store while the engine runs.
    """

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._store: RowStore = workshop.store
        self._ledger: Ledger = workshop.ledger
        self._control: Control = workshop.control
        self._found: deque[PlannedRow] = deque()
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
        from airflow_provider_flux.client.aio import shared_session

        self._loop = asyncio.get_running_loop()
        writing = asyncio.create_task(self._ledger.write())
        try:
            # Held open, so that connections are kept from one row to the next.
            async with shared_session(self._workshop.access):
                if self._control.is_killed:
                    self._leave()
                await self._count_earlier_failures()
                await self._make_all()
        finally:
            self._workshop.store_room.close()
            self._ledger.close()
            await writing

    async def _count_earlier_failures(self) -> None:
        """Count the rows that failed before anything was sent: they may be too many already."""
        for row, _, outcome in self._store.results(RowStatus.FAILED):
            self._control.note_failure(row.key, row.position, FluxInputError(str((outcome or {})["error"])))
        for row in self._store.rows(RowStatus.UNKNOWN):
            self._store.set_status(row, RowStatus.UNKNOWN, await Making(self._workshop, row).tell_unknown())

    async def _make_all(self) -> None:
        looking = asyncio.create_task(self._look_up())
        try:
            while not self._control.is_stopped:
                await self._make_rows()
                if self._control.is_stopped or not (self._found or self._store.has(RowStatus.LOOKED_UP)):
                    break
                # Only what the gateway's list must tell is left.
                await asyncio.sleep(LOOKUP_PAUSE / 2)
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
            for row in self._found:
                if row.entry is None or row.entry.prediction_id is None:
                    self._store.set_status(row, RowStatus.NOT_STARTED)

    async def _make_rows(self) -> None:
        rows = self._store.rows(RowStatus.NOT_STARTED)
        self._workers = [asyncio.create_task(self._work(rows)) for _ in range(self._workshop.workers)]
        await asyncio.gather(*self._workers, return_exceptions=True)

    async def _work(self, rows: Iterator[PlannedRow]) -> None:
        while not self._control.is_stopped:
            row = self._found.popleft() if self._found else next(rows, None)
            if row is None:
                return
            await self._make(row)

    async def _make(self, row: PlannedRow) -> None:
        self._store.set_status(row, RowStatus.IN_FLIGHT)
        try:
            status, outcome = await Making(self._workshop, row).make()
        except NotStartedError:
            self._store.set_status(row, RowStatus.NOT_STARTED)
        except LookUpError:
            self._store.set_status(row, RowStatus.LOOKED_UP)
        except LeftError:
            return
        except Exception as error:  # noqa: BLE001 (whatever it is, no more money is spent)
            self._control.stop(error)
        else:
            self._store.set_status(row, status, outcome)
            self._workshop.progress.end(row, status, outcome)

    async def _look_up(self) -> None:
        """Look for what earlier creates may have made, all of them at once, as long as the batch goes on."""
        while True:
            if self._store.has(RowStatus.LOOKED_UP):
                try:
                    await self._look_once()
                except Exception as error:  # noqa: BLE001 (whatever it is, no more money is spent)
                    self._control.stop(error)
                    return
            await asyncio.sleep(LOOKUP_PAUSE)

    async def _look_once(self) -> None:
        rows = list(self._store.rows(RowStatus.LOOKED_UP))
        finding = await look_up(self._workshop, rows)
        if finding.failure is not None:
            # A list that will not be read does not say that there is none.
            for row in rows:
                await self._give_up(row, (), finding.failure)
        for row, candidates in finding.unclear:
            await self._give_up(row, candidates)
        found: list[tuple[PlannedRow, str | None]] = [*finding.made, *((row, None) for row in finding.not_made)]
        for row, prediction_id in found:
            self._store.set_status(row, RowStatus.IN_FLIGHT)
            self._found.append(await Making(self._workshop, row).note_found(prediction_id))

    async def _give_up(self, row: PlannedRow, candidates: Sequence[str], failure: Failure | None = None) -> None:
        outcome = await Making(self._workshop, row).tell_unknown(candidates, failure)
        self._store.set_status(row, RowStatus.UNKNOWN, outcome)
        self._workshop.progress.end(row, RowStatus.UNKNOWN, outcome)

    def _leave(self) -> None:
        """Let go of what is in flight, which cancels it, and see to it that all ends in time."""
        for watch in list(self._control.watches):
            watch.cancel()
        asyncio.get_running_loop().call_later(KILL_PATIENCE - LEDGER_MARGIN, self._abandon)

    def _abandon(self) -> None:
        for worker in self._workers:
            worker.cancel()
