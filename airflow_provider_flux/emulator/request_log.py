"""The record of what was asked of the emulator: exact counters and the latest requests."""

from __future__ import annotations

import threading
import weakref
from asyncio import BaseTransport
from collections import deque
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
    :param kind: ``create``, ``get``, ``cancel``, ``list``, ``file``, ``models``, ``balance``, ``other``, ``page``,
        ``unknown`` or, on the second origin, ``foreign``.
    :param connection: the number of the connection it came through, counted from 1.
    :param had_authorization: whether it carried an ``Authorization``, ``Proxy-Authorization`` or ``x-key`` header,
        or the key anywhere in its address or headers.
    :param key_ok: whether the key was right; ``None`` when none was sent or none is needed.
    :param status: the HTTP status sent; ``None`` while it is answered and when no answer was sent.
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
    """Keeps the records and counters; safe to read from any thread.

    :param keep: how many request records are kept.
    """

    def __init__(self, keep: int) -> None:
        self._lock = threading.Lock()
        self._records: deque[RequestRecord] = deque(maxlen=keep)
        self._deliveries: deque[dict[str, Any]] = deque(maxlen=keep)
        self._counters = Counters()
        self._connections: weakref.WeakKeyDictionary[BaseTransport, int] = weakref.WeakKeyDictionary()

    def open(self, transport: BaseTransport | None, **fields: Any) -> RequestRecord:
        """Note a request that has just come.

        :param transport: the connection that it came through.
        :param fields: the fields of :class:`RequestRecord` but ``index`` and ``connection``.
        """
        with self._lock:
            connection = self._number(transport)
            counters = self._counters
            counters.requests += 1
            record = RequestRecord(index=counters.requests, connection=connection, **fields)
            if (counter := _COUNTED_KINDS.get(record.kind)) is not None:
                setattr(counters, counter, getattr(counters, counter) + 1)
            if record.origin == "foreign":
                counters.foreign_requests += 1
                counters.foreign_requests_with_authorization += record.had_authorization
            self._records.append(record)
            return record

    def accept(self, record: RequestRecord, prediction_id: str) -> None:
        """Note that a request made a prediction.

        :param record: the request.
        :param prediction_id: the prediction.
        """
        with self._lock:
            record.accepted, record.prediction_id = True, prediction_id
            self._counters.accepted += 1

    def fault(self, record: RequestRecord, name: str) -> None:
        """Note that a fault was played on a request.

        :param record: the request.
        :param name: the fault's name.
        """
        with self._lock:
            record.fault = name
            self._counters.faults += 1

    def refuse_key(self, record: RequestRecord) -> None:
        """Note that a request was refused for its key.

        :param record: the request.
        """
        with self._lock:
            self._counters.unauthorized += 1

    def delivered(self, **fields: Any) -> None:
        """Note a webhook call.

        :param fields: what is known of it.
        """
        with self._lock:
            self._deliveries.append(fields)

    @property
    def counters(self) -> Counters:
        """A copy of the counters."""
        with self._lock:
            return replace(self._counters)

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
            self._counters = Counters()
            self._connections = weakref.WeakKeyDictionary()

    def as_json(self, limit: int) -> dict[str, Any]:
        """Return counters, the latest requests and the webhook calls.

        :param limit: how many requests to show at most.
        """
        requests = self.requests[-limit:] if limit else []
        return {
            "counters": asdict(self.counters),
            "requests": [asdict(record) for record in requests],
            "webhooks": self.deliveries,
        }

    def _number(self, transport: BaseTransport | None) -> int:
        if transport is None:
            return 0
        if transport not in self._connections:
            self._counters.connections += 1
            self._connections[transport] = self._counters.connections
        return self._connections[transport]
