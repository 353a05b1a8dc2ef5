"""All rows of a batch in a temporary SQLite file: memory does not grow with the table."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any

from airflow_provider_flux.batch.model import Entry, PlannedRow, RowStatus
from airflow_provider_flux.protocol.messages import JSON

CHUNK = 200
"""Rows that are read at once."""


class RowStore:
    """All rows of a batch, on the worker's own disk. Used by one thread at a time."""

    def __init__(self) -> None:
        # No name: SQLite spills to a file that it has unlinked already, so that a killed worker leaves nothing behind.
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._database.executescript(_SCHEMA)

    def __enter__(self) -> RowStore:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._database.close()

    def add_key(self, key: str, position: int) -> int | None:
        """Take note of a key. Return the position of another row that has it, or None."""
        added = self._database.execute("INSERT OR IGNORE INTO keys VALUES (?, ?)", (key, position)).rowcount
        if added:
            return None
        (earlier,) = self._database.execute("SELECT position FROM keys WHERE key = ?", (key,)).fetchone()
        return int(earlier)

    def add_row(self, row: PlannedRow, status: RowStatus, outcome: dict[str, JSON] | None = None) -> None:
        """Add a row, in the table's order."""
        self._database.execute(
            "INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                row.position,
                row.key,
                row.model,
                json.dumps(row.input, separators=(",", ":")),
                row.fingerprint,
                row.estimate,
                status.value,
                None if outcome is None else json.dumps(outcome),
            ),
        )

    def set_status(self, row: PlannedRow, status: RowStatus, outcome: dict[str, JSON] | None = None) -> None:
        """Say how a row stands now."""
        self._database.execute(
            "UPDATE rows SET status = ?, outcome = ? WHERE position = ?",
            (status.value, None if outcome is None else json.dumps(outcome), row.position),
        )

    def change_all(self, before: RowStatus, after: RowStatus) -> int:
        """Give all rows of one status another, and return how many they are."""
        return self._database.execute(
            "UPDATE rows SET status = ? WHERE status = ?", (after.value, before.value)
        ).rowcount

    def rows(self, status: RowStatus) -> Iterator[PlannedRow]:
        """Yield the rows of a status in the table's order. Statuses may change meanwhile."""
        position = -1
        while True:
            found = self._database.execute(
                f"{_SELECT_ROWS} WHERE rows.status = ? AND rows.position > ? ORDER BY rows.position LIMIT ?",
                (status.value, position, CHUNK),
            ).fetchall()
            for fields in found:
                yield _row(fields)
            if len(found) < CHUNK:
                return
            position = found[-1][0]

    def has(self, status: RowStatus) -> bool:
        """Tell whether any row has a status."""
        found = self._database.execute("SELECT 1 FROM rows WHERE status = ? LIMIT 1", (status.value,))
        return found.fetchone() is not None

    def unsettled(self, fingerprint: str) -> int:
        """Return how many creates of just this have an outcome that is not known yet."""
        (count,) = self._database.execute(
            "SELECT COUNT(*) FROM rows JOIN entries USING (key) WHERE fingerprint = ? AND status IN (?, ?)"
            " AND prediction_id IS NULL AND json_extract(entry, '$.sent_at') > 0",
            (fingerprint, RowStatus.UNSETTLED.value, RowStatus.IN_FLIGHT.value),
        ).fetchone()
        return int(count)

    def counts(self) -> dict[RowStatus, int]:
        """Return how many rows have each status."""
        counted = self._database.execute("SELECT status, COUNT(*) FROM rows GROUP BY status")
        return {RowStatus(status): int(count) for status, count in counted}

    def results(
        self, status: RowStatus | None = None
    ) -> Iterator[tuple[PlannedRow, RowStatus, dict[str, JSON] | None]]:
        """Yield the rows with how they stand, in the table's order.

        :param status: only those of this status; all if not given.
        """
        position = -1
        while True:
            found = self._database.execute(
                f"{_SELECT_ROWS} WHERE rows.position > :position AND (:status IS NULL OR rows.status = :status)"
                " ORDER BY rows.position LIMIT :chunk",
                {"position": position, "status": None if status is None else status.value, "chunk": CHUNK},
            ).fetchall()
            for fields in found:
                yield _row(fields), RowStatus(fields[7]), None if fields[8] is None else json.loads(fields[8])
            if len(found) < CHUNK:
                return
            position = found[-1][0]

    def put_entries(self, entries: Iterable[Entry]) -> None:
        """Take note of what the ledger knows. Entries that are older than what is known are left out."""
        self._database.execute("BEGIN")
        self._database.executemany(
            _PUT_ENTRY,
            (
                (
                    entry.key,
                    entry.revision,
                    entry.prediction_id,
                    entry.run,
                    entry.committed_usd,
                    entry.outcome is not None,
                    entry.as_line(),
                )
                for entry in entries
            ),
        )
        self._database.execute("COMMIT")

    def entry(self, key: str) -> Entry | None:
        """Return what the ledger knows of a row."""
        found = self._database.execute("SELECT entry FROM entries WHERE key = ?", (key,)).fetchone()
        return None if found is None else Entry.from_line(found[0])

    def entries(self, *, of_run: str | None = None) -> Iterator[str]:
        """Yield what the ledger knows, a line of JSON for each row.

        :param of_run: leave out what has ended in any other run.
        """
        key = ""
        while True:
            found = self._database.execute(
                "SELECT key, entry FROM entries WHERE key > :key AND (:run IS NULL OR run = :run OR NOT has_ended)"
                " ORDER BY key LIMIT :chunk",
                {"key": key, "run": of_run, "chunk": CHUNK},
            ).fetchall()
            for _, entry in found:
                yield entry
            if len(found) < CHUNK:
                return
            key = found[-1][0]

    def committed_usd(self, run: str) -> float:
        """Return what a run has spent, estimates of what has not ended included."""
        (total,) = self._database.execute("SELECT TOTAL(committed_usd) FROM entries WHERE run = ?", (run,)).fetchone()
        return float(total)

    def knows_prediction(self, prediction_id: str) -> bool:
        """Tell whether a prediction belongs to a row."""
        known = self._database.execute("SELECT 1 FROM entries WHERE prediction_id = ?", (prediction_id,))
        return known.fetchone() is not None

    def put_former(self, listed: Iterable[dict[str, JSON]], *, is_own: bool) -> None:
        """Take note of an older manifest's rows that have pictures.

        :param is_own: whether it is the manifest that this task will replace.
        """
        self._database.execute("BEGIN")
        self._database.executemany(
            "INSERT OR REPLACE INTO former VALUES (?, ?, ?, ?)",
            ((outcome["key"], outcome["fingerprint"], is_own, json.dumps(outcome)) for outcome in listed),
        )
        self._database.execute("COMMIT")

    def former(self, key: str, fingerprint: str) -> dict[str, JSON] | None:
        """Return how a row stands in an older manifest, if it was submitted just like that."""
        found = self._database.execute(
            "SELECT outcome FROM former WHERE key = ? AND fingerprint = ?", (key, fingerprint)
        ).fetchone()
        return None if found is None else dict(json.loads(found[0]))

    def picture_folders(self) -> list[str]:
        """Return the folders of all pictures that older manifests and ledgers list."""
        found = self._database.execute(
            "SELECT DISTINCT rtrim(path, replace(path, '/', '')) FROM ("
            " SELECT json_extract(outcome, '$.path') AS path FROM former"
            " UNION ALL SELECT json_extract(entry, '$.outcome.path') FROM entries"
            ") WHERE path IS NOT NULL"
        )
        return [folder.rstrip("/") for (folder,) in found]

    def removed(self, limit: int) -> tuple[int, list[str]]:
        """Return how many rows of the older manifest are not in the table any more, and some of their keys."""
        query = "FROM (SELECT DISTINCT key FROM former WHERE is_own AND key NOT IN (SELECT key FROM keys))"
        (count,) = self._database.execute(f"SELECT COUNT(*) {query}").fetchone()
        some = self._database.execute(f"SELECT key {query} ORDER BY key LIMIT ?", (limit,)).fetchall()
        return int(count), [key for (key,) in some]

    def put_files(self, paths: Iterable[str]) -> None:
        """Take note of files that exist."""
        self._database.execute("BEGIN")
        self._database.executemany("INSERT OR IGNORE INTO files VALUES (?)", ((path,) for path in paths))
        self._database.execute("COMMIT")

    def all_exist(self, paths: Sequence[str]) -> bool:
        """Tell whether all of some files exist; there must be one at least."""
        select = "SELECT 1 FROM files WHERE path = ?"
        return bool(paths) and all(self._database.execute(select, (path,)).fetchone() for path in paths)


def _row(fields: tuple[Any, ...]) -> PlannedRow:
    position, key, model, sent, fingerprint, estimate, entry, *_ = fields
    return PlannedRow(
        position=position,
        key=key,
        model=model,
        input=json.loads(sent),
        fingerprint=fingerprint,
        estimate=estimate,
        entry=None if entry is None else Entry.from_line(entry),
    )


_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA locking_mode = EXCLUSIVE;
CREATE TABLE keys (key TEXT PRIMARY KEY, position INTEGER) WITHOUT ROWID;
CREATE TABLE rows (
  position INTEGER PRIMARY KEY, key TEXT, model TEXT, input TEXT, fingerprint TEXT, estimate REAL,
  status TEXT, outcome TEXT
);
CREATE INDEX rows_status ON rows (status, position);
CREATE TABLE entries (
  key TEXT PRIMARY KEY, revision INTEGER, prediction_id TEXT, run TEXT, committed_usd REAL, has_ended INTEGER,
  entry TEXT
) WITHOUT ROWID;
CREATE INDEX entries_prediction ON entries (prediction_id);
CREATE TABLE former (
  key TEXT, fingerprint TEXT, is_own INTEGER, outcome TEXT, PRIMARY KEY (key, fingerprint)
) WITHOUT ROWID;
CREATE TABLE files (path TEXT PRIMARY KEY) WITHOUT ROWID;
"""

_SELECT_ROWS = """
SELECT rows.position, rows.key, rows.model, rows.input, rows.fingerprint, rows.estimate, entries.entry,
  rows.status, rows.outcome
FROM rows LEFT JOIN entries USING (key)
"""

# Of two workers that take the same task for theirs, the one that knows a prediction is right.
_PUT_ENTRY = """
INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET
  revision = excluded.revision, prediction_id = excluded.prediction_id, run = excluded.run,
  committed_usd = excluded.committed_usd, has_ended = excluded.has_ended, entry = excluded.entry
WHERE excluded.revision > revision OR (excluded.revision = revision AND excluded.prediction_id IS NOT NULL)
"""
