"""The record of a submission in Airflow's task state store, and who the running task is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_flux.protocol.resume import SubmissionRecord
from airflow_provider_flux.protocol.storable import storable

if TYPE_CHECKING:
    from airflow.sdk import Context

RECORD_KEY = "flux_prediction"
"""Name of the record in the task state store. Never renamed: a new version must find what an old one paid for."""

SHOWN = "shown"
"""Name of what is shown, within the record."""


class _Store(Protocol):
    """Airflow's task state store, as far as it is used here."""

    def get(self, key: str) -> Any: ...
    def set(self, key: str, value: Any) -> None: ...
    def delete(self, key: str) -> None: ...


class SubmissionRecords:
    """The record of one task in Airflow's task state store, and what is shown of its prediction while it runs.

    :param store: None where there is no store (Airflow 3.1 and 3.2), or none is wanted: then nothing is remembered.
    :ivar shown: the first ``flux_result``, as far as the record that was read or saved last has one. It costs no call
        of its own there, as an XCom would.
    """

    def __init__(self, store: _Store | None) -> None:
        self._store = store
        self.shown: Mapping[str, Any] | None = None

    @classmethod
    def of_task(cls, context: Context, *, durable: bool) -> SubmissionRecords:
        """Return the records of the running task."""
        # Asked for by what is there, not by version: the store came with Airflow 3.3.
        store: Any = context.get("task_state_store") if durable else None
        return cls(store)

    @property
    def are_kept(self) -> bool:
        """Whether a later try will find them."""
        return self._store is not None

    def read(self) -> SubmissionRecord | None:
        """Return the record, or None if there is none."""
        stored = self._store.get(RECORD_KEY) if self._store is not None else None
        if not isinstance(stored, dict):
            return None
        self.shown = stored.get(SHOWN)
        return SubmissionRecord.from_stored(stored)

    def read_shown(self) -> Mapping[str, Any] | None:
        """Return what is shown; None if that was not left to the record."""
        self.read()
        return self.shown

    def save(self, record: SubmissionRecord | None, shown: Mapping[str, Any] | None = None) -> None:
        """Keep a record in place of the one before; None forgets it.

        :param shown: the first ``flux_result``, where it is to be shown.
        """
        self.shown = None
        if self._store is None:
            return
        if record is None:
            self._store.delete(RECORD_KEY)
            return
        self._store.set(RECORD_KEY, storable({**asdict(record), SHOWN: shown}))
        self.shown = shown


def generation_of(context: Mapping[str, Any]) -> int:
    """Return what Airflow raises when a person clears the task, and leaves alone when it retries it."""
    return getattr(context["ti"], "max_tries", 0) or 0


def is_first_start(context: Mapping[str, Any]) -> bool:
    """Tell whether this is certainly the first time that the task has begun, so that nothing can have been recorded.

    Airflow counts the tries up whenever it schedules a task, but for one that it reschedules (``DagRun.schedule_tis``),
    and deletes the records of a run with the run.
    """
    return getattr(context["ti"], "try_number", None) == 1 and context.get("task_reschedule_count") == 0


def try_number_of(context: Mapping[str, Any]) -> int:
    """Return the number of Airflow's try."""
    return getattr(context["ti"], "try_number", 1) or 1
