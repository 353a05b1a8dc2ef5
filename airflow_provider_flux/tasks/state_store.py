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


class _Store(Protocol):
    """Airflow's task state store, as far as it is used here."""

    def get(self, key: str) -> Any: ...
    def set(self, key: str, value: Any) -> None: ...
    def delete(self, key: str) -> None: ...


class SubmissionRecords:
    """The record of one task in Airflow's task state store.

    :param store: None where there is no store (Airflow 3.1 and 3.2), or none is wanted: then nothing is remembered.
    """

    def __init__(self, store: _Store | None) -> None:
        self._store = store

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
        return SubmissionRecord.from_stored(stored) if isinstance(stored, dict) else None

    def save(self, record: SubmissionRecord | None) -> None:
        """Keep a record in place of the one before; None forgets it."""
        if self._store is None:
            return
        if record is None:
            self._store.delete(RECORD_KEY)
        else:
            self._store.set(RECORD_KEY, storable(asdict(record)))


def generation_of(context: Mapping[str, Any]) -> int:
    """Return what Airflow raises when a person clears the task, and leaves alone when it retries it."""
    return getattr(context["ti"], "max_tries", 0) or 0


def try_number_of(context: Mapping[str, Any]) -> int:
    """Return the number of Airflow's try."""
    return getattr(context["ti"], "try_number", 1) or 1
