"""What has been submitted for which row, on storage that outlives the worker.

The ledger is a folder of segments, each written whole and never changed. Whatever must be durable waits for the next
segment, so that many rows share one write; when segments have become many, they are written together as one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from uuid import uuid4

from airflow_provider_flux.batch.line_files import join, list_names, read_lines, remove, write_lines
from airflow_provider_flux.batch.model import Entry
from airflow_provider_flux.batch.row_store import RowStore
from airflow_provider_flux.protocol.messages import Log

COMMIT_PAUSE = 0.05
"""Seconds between two segments: what many rows wait for together is written together."""

SEGMENTS_LIMIT = 256
"""So many segments are made into one."""

_ENDING = ".jsonl"


def read_ledger(folder: str, store: RowStore) -> list[str]:
    """Take note of all that a ledger knows, and return the names of the segments that were read."""
    names = sorted(name for name in list_names(folder) if name.endswith(_ENDING) and not name.startswith("."))
    for name in names:
        store.put_entries(Entry.from_line(line) for line in read_lines(join(folder, name)))
    return names


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
        self._wake = asyncio.Event()
        self._closing = False
        # Two workers that both take the task for theirs must not overwrite each other's segments.
        self._writer = uuid4().hex[:12]
        self._next = 1 + max((_number(name) for name in self._names), default=0)

    async def add(self, entry: Entry, *, is_intent: bool = False) -> None:
        """Return once an entry is durable.

        :param is_intent: whether a create follows.
        :raises FluxLeaseLostError: for an intent, if another batch has taken over.
        :raises Exception: whatever the storage raises. Nobody may rely on the entry then.
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
        """Write a segment, and return what went wrong."""
        try:
            await asyncio.to_thread(self._write_segment, [entry.as_line() for entry in entries])
        except Exception as error:  # noqa: BLE001 (handed to everyone who waits for it)
            return error
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
