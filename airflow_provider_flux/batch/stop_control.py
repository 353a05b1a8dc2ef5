"""Whether a batch goes on."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from airflow_provider_flux.exceptions import (
    AirflowFailException,
    FluxBatchError,
    FluxBatchRefusedError,
    FluxBudgetError,
    FluxError,
    FluxKilledError,
    FluxOutputNotStoredError,
)


class StopControl:
    """Why a batch stops, and what is in flight when it does.

    :param on_row_error: ``fail`` lets the first row that fails stop the batch.
    :param max_failures: how many rows may fail; None for any number.
    """

    def __init__(self, on_row_error: Literal["continue", "fail"], max_failures: int | None) -> None:
        self.waits: set[asyncio.Task[Any]] = set()
        self._bearable = 0 if on_row_error == "fail" else max_failures
        self._failures = 0
        self._lasting = 0
        self._first = ""
        self._not_stored = 0
        self._first_not_stored = ""
        self._reason: BaseException | None = None

    @property
    def reason(self) -> BaseException | None:
        """Why the batch stopped; None if it has not."""
        return self._reason

    @property
    def is_stopped(self) -> bool:
        """Whether no more is submitted."""
        return self._reason is not None

    @property
    def forbids_creates(self) -> bool:
        """Whether not even those creates are sent any more which the budget has room for."""
        return self.is_stopped and not isinstance(self._reason, FluxBudgetError)

    @property
    def is_killed(self) -> bool:
        """Whether nothing is waited for any more either."""
        return isinstance(self._reason, FluxKilledError)

    def stop(self, reason: BaseException) -> None:
        """Submit no more. What is in flight has been paid for, and is waited for. The first reason counts."""
        if self._reason is None:
            self._reason = reason

    def kill(self) -> None:
        """Wait for nothing any more."""
        self._reason = FluxKilledError(
            "The batch was ended before all rows were made. What is done is in its ledger, and another try goes on "
            "from there."
        )

    def note_failure(self, key: str, position: int, error: FluxError) -> None:
        """Take note of a row that failed, which may be one too many.

        :param position: the row's place in the table, from 0.
        """
        self._failures += 1
        self._lasting += isinstance(error, AirflowFailException)
        told = f"Row {key!r} (row {position + 1} of the table): {error}"
        self._first = self._first or told
        if isinstance(error, FluxOutputNotStoredError):
            self._not_stored += 1
            self._first_not_stored = self._first_not_stored or told
        if self._bearable is not None and self._failures > self._bearable:
            self.stop(self.failure_error(f"{self._failures} failed, and no more were submitted"))

    @property
    def not_stored_error(self) -> FluxBatchError | None:
        """The error for pictures that are paid for and not stored; None if there are none."""
        if not self._not_stored:
            return None
        return FluxBatchError(
            f"{self._first_not_stored} Of the rows, {self._not_stored} are made and paid for like this one, and not "
            "stored yet. Another try of this task fetches them without paying again, as long as their URLs live."
        )

    def failure_error(self, what: str) -> FluxBatchError:
        """Build the error for rows that failed.

        :param what: how many of them.
        """
        # If no row could do better, another try would fail just the same.
        error_type = FluxBatchRefusedError if self._lasting == self._failures else FluxBatchError
        return error_type(f"{self._first} Of the rows, {what}. The manifest tells of each.")
