"""The record of what was asked of the emulator: exact counters and the latest requests."""

from __future__ import annotations

import threading
import weakref
from asyncio import BaseTransport
from collections import Counter, deque
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass
class RequestRecord:
    """One request. The key itself is never kept, nor the query string that could hold it.

    :param index: counts up from 1 over both origins.
    :param at: when it came, in seconds of the emulator's clock.
    :param origin: ``gateway`` or ``foreign``.
    :param method: the HTTP method.
    :param path: the path without its query string.
    :param kind: ``create``, ``get``, ``cancel``, ``list``, ``file``, ``models``, ``balance``, ``upload``,
        ``other``, ``page``, ``unknown`` or, on the second origin, ``foreign``.
    :param connection: the number of the connection it came through, counted from 1.
    :param had_authorization: whether it carried an ``Authorization``, ``Proxy-Authorization`` or ``x-key`` header,
        or the key anywhere in its address or headers.
    :param key_ok: whether the key was right; ``None`` when none was sent or none is needed.
    :param status: the HTTP status sent; ``None`` until then and when no response was sent.
    :param fault: the fault played on it.
    :param accepted: whether it made a prediction.
    :param prediction_id: the prediction that it made or asked about.
    :param prefer: its ``Prefer`` header.
    """

    index: int
    at: float
    origin: str
    method: str
    path: str
    kind: str
    connection: int
    had_authorization: bool
    key_ok: bool | None = None
    status: int | None = None
    fault: str | None = None
    accepted: bool = False
    prediction_id: str | None = None
    prefer: str | None = None


@dataclass
class Counters:
    """Exact counts since the start or the last reset.

    :param requests: requests on both origins, the emulator's own control routes apart.
    :param posts: create requests received, whatever became of them.
    :param accepted: predictions made.
    :param gets: queries for one prediction.
    :param cancels: cancel requests received.
    :param lists: list requests received.
    :param files: file requests received.
    :param connections: connections that carried at least one request.
    :param unauthorized: requests refused for their key.
    :param faults: faults played.
    :param foreign_requests: requests on the second origin, for files and for anything else.
    :param foreign_requests_with_authorization: those of them that carried a key.
    """

    requests: int = 0
    posts: int = 0
    accepted: int = 0
    gets: int = 0
    cancels: int = 0
    lists: int = 0
    files: int = 0
    connections: int = 0
    unauthorized: int = 0
    faults: int = 0
    foreign_requests: int = 0
    foreign_requests_with_authorization: int = 0


_COUNTED_KINDS = {"create": "posts", "get": "gets", "cancel": "cancels", "list": "lists", "file": "files"}


class Ledger:
    """Keeps the counters and the latest records; safe to read from any thread."""

    def __init__(self, keep: int) -> None:
        self._lock = threading.Lock()
        self._records: deque[RequestRecord] = deque(maxlen=keep)
        self._deliveries: deque[dict[str, Any]] = deque(maxlen=keep)
        self._counts: Counter[str] = Counter()
        self._connections: weakref.WeakKeyDictionary[BaseTransport, int] = weakref.WeakKeyDictionary()

    def open(self, transport: BaseTransport | None, **fields: Any) -> RequestRecord:
        """Note a request that has just come, given most fields of :class:`RequestRecord`."""
        with self._lock:
            counts, connection = self._counts, 0
            counts["requests"] += 1
            if transport is not None:
                counts["connections"] += transport not in self._connections
                connection = self._connections.setdefault(transport, counts["connections"])
            record = RequestRecord(index=counts["requests"], connection=connection, **fields)
            if record.kind in _COUNTED_KINDS:
                counts[_COUNTED_KINDS[record.kind]] += 1
            if record.origin == "foreign":
                counts["foreign_requests"] += 1
                counts["foreign_requests_with_authorization"] += record.had_authorization
            self._records.append(record)
            return record

    def count(self, counter: str, record: RequestRecord, **changes: Any) -> None:
        """Count what became of a request, and change its record."""
        with self._lock:
            self._counts[counter] += 1
            for name, value in changes.items():
                setattr(record, name, value)

    def delivered(self, **fields: Any) -> None:
        with self._lock:
            self._deliveries.append(fields)

    @property
    def counters(self) -> Counters:
        """A copy of the counters."""
        with self._lock:
            return Counters(**self._counts)

    @property
    def requests(self) -> list[RequestRecord]:
        """Copies of the records kept, oldest first."""
        with self._lock:
            return [replace(record) for record in self._records]

    @property
    def deliveries(self) -> list[dict[str, Any]]:
        """The webhook calls made, oldest first."""
        with self._lock:
            return [dict(delivery) for delivery in self._deliveries]

    def clear(self) -> None:
        """Forget everything and count from 0 again; connections already open count anew when next used."""
        with self._lock:
            self._records.clear()
            self._deliveries.clear()
            self._counts.clear()
            self._connections.clear()

    def as_json(self, limit: int) -> dict[str, Any]:
        """Return counters, the latest requests and the webhook calls."""
        requests = [asdict(record) for record in (self.requests[-limit:] if limit else [])]
        return {"counters": asdict(self.counters), "requests": requests, "webhooks": self.deliveries}
