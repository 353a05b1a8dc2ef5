"""What has been submitted for which row, on storage that outlives the worker.

The ledger is a folder of segments, each written whole and never changed. Whatever must be durable waits for the next
segment, so that many rows share one write; when segments have become many, they are written together as one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from uuid import uuid4

from airflow_provider_flux.batch.line_files import join, list_names, read_records, remove, write_lines
from airflow_provider_flux.batch.model import Entry
from airflow_provider_flux.batch.row_store import RowStore
from airflow_provider_flux.protocol.messages import JSON, Log

COMMIT_PAUSE = 0.05
"""Seconds between two segments: what many rows wait for together is written together."""

SEGMENTS_LIMIT = 256
"""So many segments are made into one."""

_ENDING = ".jsonl"


def read_ledger(folder: str, store: RowStore) -> list[str]:
    """Take note of all that a ledger knows, and return the names of the segments that there are.

    :raises FluxRecordError: if a line of it cannot be read.
    :raises FluxStorageError: if a segment cannot be read.
    """
    read: set[str] = set()
    while unread := _unread(folder, read):
        for segment in unread:
            store.put_entries(read_records(segment, Entry.from_stored))
    return sorted(read)


def read_made(folder: str) -> Iterator[dict[str, JSON]]:
    """Yield the rows with pictures that a ledger knows, as a manifest lists them.

    :raises FluxRecordError: if a line of it cannot be read.
    :raises FluxStorageError: if a segment cannot be read.
    """
    read: set[str] = set()
    while unread := _unread(folder, read):
        for segment in unread:
            entries = read_records(segment, Entry.from_stored)
            yield from (entry.made for entry in entries if entry.made is not None)


def _unread(folder: str, read: set[str]) -> list[str]:
    """List a ledger, and return the paths of the segments that are to be read yet.

    To be asked until there is none: a holder that stood still, and does not know yet that it has lost the lease, may
    put one segment in the place of all others meanwhile.

    :param read: the names that were listed before; becomes those that are.
    """
    names = sorted(name for name in list_names(folder) if name.endswith(_ENDING) and not name.startswith("."))
    unread = [join(folder, name) for name in names if name not in read]
    read.clear()
    read.update(names)
    return unread


class Ledger:
    """The ledger of one task, which alone adds to it.

    :param folder: where its segments are, anything ``ObjectStoragePath`` takes.
    :param names: the segments that have been read from there. No other one is ever deleted.
    :param store: holds what it knows.
    :param verify: raises if another batch has taken over. Called once intents are written: whoever takes over reads
        the ledger when its lease is there, so that an intent is seen by it, or not relied on here.
    """

    def __init__(
        self, folder: str, names: Iterable[str], store: RowStore, log: Log, *, verify: Callable[[], None] = lambda: None
    ) -> None:
        self._folder = folder
        self._names = list(names)
        self._store = store
        self._log = log
        self._verify = verify
        self._waiting: list[tuple[Entry, bool, asyncio.Future[None]]] = []
        self._owed: list[Entry] = []
        self._wake = asyncio.Event()
        self._closing = False
        # Two workers that both take the task for theirs must not overwrite each other's segments.
        self._writer = uuid4().hex[:12]
        self._next = 1 + max((_number(name) for name in self._names), default=0)

    async def add(self, entry: Entry, *, is_intent: bool = False) -> None:
        """Return once an entry is durable.

        :param is_intent: whether a create follows.
        :raises FluxLeaseLostError: for an intent, if another batch has taken over.
        :raises FluxStorageError: if it could not be written. Nobody may rely on an intent then; anything else goes with
            the next segment.
        """
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, is_intent, written))
        self._wake.set()
        await written

    async def write(self) -> None:
        """Write what is added, until :meth:`close`."""
        while not (self._closing and not self._waiting):
            await self._wake.wait()
            self._wake.clear()
            if self._waiting:
                await self._commit()
            if not self._closing:
                await asyncio.sleep(COMMIT_PAUSE)
        if self._owed:
            owed = ", ".join(f"{entry.key!r}: {entry.prediction_id}" for entry in self._owed)
            if (error := await self._written([])) is not None:
                self._log.warning(
                    "The ledger %s could not take note of predictions (%s): %s", self._folder, owed, error
                )

    def close(self) -> None:
        """Let :meth:`write` end when all is written."""
        self._closing = True
        self._wake.set()

    def compact(self, *, of_run: str | None = None) -> None:
        """Write what is known as one segment, in place of those there are.

        :param of_run: forget what has ended in any other run; the manifest has it.
        """
        earlier = list(self._names)
        self._write_segment(self._store.entries(of_run=of_run))
        # Should the worker die in between, the rest says nothing new.
        remove(join(self._folder, name) for name in earlier)
        self._names = self._names[-1:]

    async def _commit(self) -> None:
        together, self._waiting = self._waiting, []
        error = await self._written([entry for entry, _, _ in together])
        if error is not None:
            # What has happened is true whether it could be written or not: it goes with the next segment.
            facts = [entry for entry, is_intent, _ in together if not is_intent]
            self._store.put_entries(facts)
            self._owed += facts
        has_intents = any(is_intent for _, is_intent, _ in together)
        intents_error = await self._verified() if error is None and has_intents else error
        for _, is_intent, written in together:
            if written.done():
                continue
            failed = intents_error if is_intent else error
            if failed is None:
                written.set_result(None)
            else:
                written.set_exception(failed)
        if len(self._names) >= SEGMENTS_LIMIT:
            await self._try_to_compact()

    async def _written(self, entries: list[Entry]) -> Exception | None:
        """Write a segment with what is owed from before, and return what went wrong."""
        try:
            await asyncio.to_thread(self._write_segment, [entry.as_line() for entry in [*self._owed, *entries]])
        except Exception as error:  # noqa: BLE001 (handed to everyone who waits for it)
            return error
        self._owed.clear()
        self._store.put_entries(entries)
        return None

    async def _verified(self) -> Exception | None:
        try:
            await asyncio.to_thread(self._verify)
        except Exception as error:  # noqa: BLE001 (handed to everyone who waits for it)
            return error
        return None

    async def _try_to_compact(self) -> None:
        try:
            await asyncio.to_thread(self.compact)
        except Exception as error:  # noqa: BLE001 (all of it is still there, in many segments)
            self._log.warning("The ledger %s could not be made smaller: %s", self._folder, error)

    def _write_segment(self, lines: Iterable[str]) -> None:
        name = f"{self._next:010d}-{self._writer}{_ENDING}"
        write_lines(join(self._folder, name), lines)
        self._next += 1
        self._names.append(name)


def _number(name: str) -> int:
    digits = name.partition("-")[0]
    return int(digits) if digits.isdigit() else 0
