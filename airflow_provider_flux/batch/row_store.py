"""All rows of a batch in a temporary SQLite file: memory does not grow with the table."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from types import TracebackType
from typing import Any

from airflow_provider_flux.batch.model import Attempt, Entry, PlannedRow, RowStatus
from airflow_provider_flux.exceptions import FluxStorageError
from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.pricing import Cost
from airflow_provider_flux.protocol.storable import dumps

CHUNK = 200
"""Rows that are read at once."""


class RowStore:
    """All rows of a batch, on the worker's own disk. Used by one thread at a time."""

    def __init__(self) -> None:
        # No name: SQLite spills to a file that it has unlinked already, so that a killed worker leaves nothing behind.
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None, factory=_Database)
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
            "INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                row.position,
                row.key,
                row.at,
                json.dumps([asdict(attempt) for attempt in row.attempts], separators=(",", ":")),
                row.fingerprint,
                status.value,
                None if outcome is None else dumps(outcome),
            ),
        )

    def set_status(self, row: PlannedRow, status: RowStatus, outcome: dict[str, JSON] | None = None) -> None:
        """Say how a row stands now."""
        self._database.execute(
            "UPDATE rows SET status = ?, outcome = ?, at = ?, fingerprint = ? WHERE position = ?",
            (status.value, None if outcome is None else dumps(outcome), row.at, row.fingerprint, row.position),
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
            "SELECT COUNT(*) FROM rows JOIN entries USING (key)"
            " WHERE json_extract(entry, '$.fingerprint') = ? AND status IN (?, ?) AND prediction_id IS NULL"
            " AND json_extract(entry, '$.sent_at') > 0",
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
                yield _row(fields), RowStatus(fields[5]), None if fields[6] is None else json.loads(fields[6])
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

    def rows_at_most(self, run: str) -> int:
        """Return of how many rows of a run no more is known than that they cost no more than what was committed."""
        (count,) = self._database.execute(
            "SELECT COUNT(*) FROM entries WHERE run = ? AND json_extract(entry, '$.is_at_most')", (run,)
        ).fetchone()
        return int(count)

    def knows_prediction(self, prediction_id: str) -> bool:
        """Tell whether a prediction belongs to a row."""
        known = self._database.execute("SELECT 1 FROM entries WHERE prediction_id = ?", (prediction_id,))
        return known.fetchone() is not None

    def put_former(
        self, listed: Iterable[Mapping[str, JSON]], *, is_own: bool = False, is_listed: bool = False
    ) -> None:
        """Take note of rows that have pictures.

        :param is_own: whether this task has made them, and no other part of the table.
        :param is_listed: whether the manifest that this task will replace has them, or its ledger: both are there until
            the next manifest is.
        """
        self._database.execute("BEGIN")
        self._database.executemany(
            _PUT_FORMER,
            ((outcome["key"], outcome["fingerprint"], is_own, is_listed, dumps(outcome)) for outcome in listed),
        )
        self._database.execute("COMMIT")

    def former_fingerprints(self, key: str) -> set[str]:
        """Return of what a row was made before."""
        return {found for (found,) in self._database.execute("SELECT fingerprint FROM former WHERE key = ?", (key,))}

    def former(self, key: str, fingerprint: str) -> dict[str, JSON]:
        """Return how a row was made before; it must have been."""
        select = "SELECT outcome FROM former WHERE key = ? AND fingerprint = ?"
        (outcome,) = self._database.execute(select, (key, fingerprint)).fetchone()
        return dict(json.loads(outcome))

    def unlisted(self) -> Iterator[dict[str, JSON]]:
        """Yield what this task has made of rows that its next manifest will not list as they were made then.

        To be read once all rows are planned. Whatever the manifest does list is in it before and after.
        """
        key, fingerprint = "", ""
        while True:
            found = self._database.execute(_SELECT_UNLISTED, (key, fingerprint, CHUNK)).fetchall()
            for _, _, outcome in found:
                yield dict(json.loads(outcome))
            if len(found) < CHUNK:
                return
            key, fingerprint = found[-1][:2]

    def put_entries_as_former(self) -> None:
        """Take note of the rows with pictures that the ledger knows: later entries of a key would hide them."""
        made = (Entry.from_line(line).made for line in self.entries())
        self.put_former((outcome for outcome in made if outcome is not None), is_own=True, is_listed=True)

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
        query = "FROM (SELECT DISTINCT key FROM former WHERE is_listed AND key NOT IN (SELECT key FROM keys))"
        (count,) = self._database.execute(f"SELECT COUNT(*) {query}").fetchone()
        some = self._database.execute(f"SELECT key {query} ORDER BY key LIMIT ?", (limit,)).fetchall()
        return int(count), [key for (key,) in some]

    def put_files(self, paths: Iterable[str]) -> None:
        """Take note of files that exist."""
        self._database.execute("BEGIN")
        self._database.executemany("INSERT OR IGNORE INTO files VALUES (?)", ((path,) for path in paths))
        self._database.execute("COMMIT")

    def is_gone(self, paths: Sequence[str]) -> bool:
        """Tell whether a file is missing from a folder that has others.

        A folder without any may be a disk that is not mounted today.
        """
        select = "SELECT 1 FROM files WHERE path > ? || '/' AND path < ? || '0' LIMIT 1"
        folders = {path.rpartition("/")[0] for path in paths}
        seen = all(self._database.execute(select, (folder, folder)).fetchone() for folder in folders)
        return seen and not self.all_exist(paths)

    def all_exist(self, paths: Sequence[str]) -> bool:
        """Tell whether all of some files exist; there must be one at least."""
        select = "SELECT 1 FROM files WHERE path = ?"
        return bool(paths) and all(self._database.execute(select, (path,)).fetchone() for path in paths)


class _Database(sqlite3.Connection):
    def execute(self, statement: str, parameters: Any = (), /) -> sqlite3.Cursor:
        with _own_errors():
            return super().execute(statement, parameters)

    def executemany(self, statement: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        with _own_errors():
            return super().executemany(statement, parameters)


@contextmanager
def _own_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise FluxStorageError(
            f"The rows of the batch do not fit into this worker's temporary folder, or it cannot be used: {error}. "
            "What is paid for is in the ledger, and a retry goes on from there. Make room, or set SQLITE_TMPDIR to a "
            "folder on a larger disk."
        ) from error


def _row(fields: tuple[Any, ...]) -> PlannedRow:
    position, key, at, attempts, entry, *_ = fields
    row = PlannedRow(position=position, key=key, attempts=[_attempt(**one) for one in json.loads(attempts)], at=at)
    return row if entry is None else row.with_entry(Entry.from_line(entry))


def _attempt(*, estimate: Mapping[str, Any] | None, **fields: Any) -> Attempt:
    return Attempt(**fields, estimate=None if estimate is None else Cost(**estimate))


_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA locking_mode = EXCLUSIVE;
CREATE TABLE keys (key TEXT PRIMARY KEY, position INTEGER) WITHOUT ROWID;
CREATE TABLE rows (
  position INTEGER PRIMARY KEY, key TEXT, at INTEGER, attempts TEXT, fingerprint TEXT, status TEXT, outcome TEXT
);
CREATE INDEX rows_status ON rows (status, position);
CREATE INDEX rows_key ON rows (key);
CREATE TABLE entries (
  key TEXT PRIMARY KEY, revision INTEGER, prediction_id TEXT, run TEXT, committed_usd REAL, has_ended INTEGER,
  entry TEXT
) WITHOUT ROWID;
CREATE INDEX entries_prediction ON entries (prediction_id);
CREATE TABLE former (
  key TEXT, fingerprint TEXT, is_own INTEGER, is_listed INTEGER, outcome TEXT, PRIMARY KEY (key, fingerprint)
) WITHOUT ROWID;
CREATE TABLE files (path TEXT PRIMARY KEY) WITHOUT ROWID;
"""

_SELECT_ROWS = """
SELECT rows.position, rows.key, rows.at, rows.attempts, entries.entry, rows.status, rows.outcome
FROM rows LEFT JOIN entries USING (key)
"""

_PUT_FORMER = """
INSERT INTO former VALUES (?, ?, ?, ?, ?) ON CONFLICT (key, fingerprint) DO UPDATE SET
  is_own = MAX(is_own, excluded.is_own), is_listed = MAX(is_listed, excluded.is_listed), outcome = excluded.outcome
"""

_SELECT_UNLISTED = """
SELECT key, fingerprint, outcome FROM former
WHERE (is_own OR is_listed) AND (key, fingerprint) > (?, ?) AND NOT (
  is_listed AND EXISTS (
    SELECT 1 FROM rows WHERE rows.key = former.key AND rows.fingerprint = former.fingerprint
    AND rows.status IN ('succeeded', 'kept')
  )
)
ORDER BY key, fingerprint LIMIT ?
"""

# Of two workers that take the same task for theirs, the one that knows a prediction is right.
_PUT_ENTRY = """
INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET
  revision = excluded.revision, prediction_id = excluded.prediction_id, run = excluded.run,
  committed_usd = excluded.committed_usd, has_ended = excluded.has_ended, entry = excluded.entry
WHERE excluded.revision > revision OR (excluded.revision = revision AND excluded.prediction_id IS NOT NULL)
"""
