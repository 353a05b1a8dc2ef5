"""How a batch gets on, as people and pages see it."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_flux.batch.model import PlannedRow, RowStatus
from airflow_provider_flux.protocol.classify import shorten
from airflow_provider_flux.protocol.messages import JSON, Log
from airflow_provider_flux.protocol.times import iso

PROGRESS_KEY = "flux_batch"
"""Name of the figures in the task state store, and of the totals in XCom."""

RECENT = 24
"""How many rows that have ended are shown."""

PROMPT_LIMIT = 120
ERROR_LIMIT = 200
"""Characters. All of it must stay below 32 KB."""

SHOWN_OF_OUTCOME = (
    *("path", "sha256", "format", "bytes", "width", "height", "cost_usd", "cost_is_at_most", "cost_source", "gateway"),
)

SHORTEST_RHYTHM = 10.0
LONGEST_RHYTHM = 300.0
"""Seconds between two lines in the log: often at first, then as often as a tenth of the time that has gone by."""


class Progress:
    """Figures that the batch changes and the task's main thread reads.

    :param counts: how many rows have each status when the batch begins.
    :param spent_usd: what earlier tries have spent.
    :param rows_at_most: of how many rows no more is known of that than that it is no more.
    :param left_out: tells which ways to make a row are left out for now.
    :param now: when it begins, in seconds since the epoch.
    """

    def __init__(
        self,
        counts: Mapping[RowStatus, int],
        manifest_path: str,
        *,
        spent_usd: float,
        rows_at_most: int = 0,
        left_out: Callable[[], list[str]] = list,
        now: float,
    ) -> None:
        self._counts = dict.fromkeys(RowStatus, 0) | dict(counts)
        self._manifest_path = manifest_path
        self._total = sum(counts.values())
        self._started_at = now
        self._ended = 0
        self._in_flight = 0
        self._spent_usd = spent_usd
        self._rows_at_most = rows_at_most
        self._left_out = left_out
        self._recent: deque[dict[str, JSON]] = deque(maxlen=RECENT)
        self._lock = threading.Lock()
        self._logged_at = now

    def begin(self) -> None:
        """Count a prediction that is being made or waited for."""
        with self._lock:
            self._in_flight += 1

    def leave(self) -> None:
        """Count one that is not any more."""
        with self._lock:
            self._in_flight -= 1

    def commit(self, usd: float, *, rows_at_most: int) -> None:
        """Take note of money: an estimate when a create is sent, its correction when the prediction has ended.

        :param rows_at_most: how many rows more there are of which no more is known than that they cost no more.
        """
        with self._lock:
            self._spent_usd += usd
            self._rows_at_most += rows_at_most

    @property
    def is_at_most(self) -> bool:
        """Whether no more is known of what is spent than that it is no more."""
        with self._lock:
            return self._rows_at_most > 0

    def end(self, row: PlannedRow, status: RowStatus, outcome: Mapping[str, JSON]) -> None:
        """Count a row that has ended."""
        prompt = row.input.get("prompt")
        error = outcome.get("error")
        shown = {
            "key": row.key,
            "status": status.value,
            "prediction_id": outcome.get("prediction_id"),
            "model": row.model,
            "prompt": shorten(prompt, PROMPT_LIMIT) if isinstance(prompt, str) else "",
            # With the sha256 the UI's picture is known to be the one that was stored.
            **{name: outcome.get(name) for name in SHOWN_OF_OUTCOME},
            "passed_over": [{**way, "error": ""} for way in json.loads(outcome.get("passed_over") or "[]")],
            "error": shorten(str(error), ERROR_LIMIT) if error else None,
        }
        with self._lock:
            self._counts[status] += 1
            self._ended += 1
            self._recent.appendleft(shown)

    def figures(self, now: float) -> dict[str, Any]:
        """Return all of it as plain JSON.

        :param now: seconds since the epoch.
        """
        with self._lock:
            elapsed = now - self._started_at
            rate = self._ended / elapsed if elapsed > 0 else 0.0
            settled = (RowStatus.SUCCEEDED, RowStatus.FAILED, RowStatus.UNKNOWN, RowStatus.KEPT)
            left = self._total - sum(self._counts[status] for status in settled)
            return {
                "total": self._total,
                "done": self._counts[RowStatus.SUCCEEDED],
                "failed": self._counts[RowStatus.FAILED],
                "unknown": self._counts[RowStatus.UNKNOWN],
                "kept": self._counts[RowStatus.KEPT],
                "in_flight": self._in_flight,
                "rate_per_minute": round(60.0 * rate, 1),
                "seconds_left": round(left / rate) if rate else None,
                "spent_usd": round(self._spent_usd, 6),
                "spent_is_at_most": self._rows_at_most > 0,
                "left_out": self._left_out(),
                "started_at": iso(self._started_at),
                "updated_at": iso(now),
                "manifest_path": self._manifest_path,
                "recent": list(self._recent),
            }

    def log(self, log: Log, now: float, *, at_once: bool = False) -> None:
        """Write a line to the log, if it is time for one."""
        pause = min(max(SHORTEST_RHYTHM, 0.1 * (now - self._started_at)), LONGEST_RHYTHM)
        if not at_once and now - self._logged_at < pause:
            return
        self._logged_at = now
        figures = self.figures(now)
        left = figures["seconds_left"]
        log.info(
            "%d of %d rows done, %d failed, %d unknown, %d kept, %d in flight; %s a minute, %s left; %s%s USD",
            *(figures[name] for name in ("done", "total", "failed", "unknown", "kept", "in_flight", "rate_per_minute")),
            "unknown time" if left is None else f"{left} s",
            "at most " if figures["spent_is_at_most"] else "",
            figures["spent_usd"],
        )
