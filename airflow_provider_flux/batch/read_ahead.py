"""Reading the pictures of many rows at once, while the rows keep the table's order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import TypeAlias

from airflow_provider_flux.exceptions import FluxError
from airflow_provider_flux.protocol.messages import JSON

THREADS = 8
"""Each holds one picture in memory at a time, mostly of a few MB."""

AHEAD = 2 * THREADS
"""Rows."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a row asks for.

    :param position: its place in the table, from 0.
    :param input: with the paths of its pictures.
    :param input_files: paths in fields that are not known to be pictures.
    :param error: what is wrong with it; then there is nothing else.
    """

    position: int
    key: str
    model: str = ""
    input: Mapping[str, JSON] = field(default_factory=dict)
    input_files: Mapping[str, JSON] = field(default_factory=dict)
    error: FluxError | None = None


Read: TypeAlias = "tuple[Asked, Callable[[], dict[str, JSON]]]"
"""A row, and what returns its input, or raises."""


class ReadAhead:
    """Reads the pictures of a few rows ahead in threads. Rows come out as they went in."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="flux-read")
        self._queue: deque[Read] = deque()

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._threads.shutdown(cancel_futures=True)

    def begin(self, asked: Asked, read: Callable[[], dict[str, JSON]], *, is_slow: bool) -> Iterator[Read]:
        """Take a row, and yield those whose turn it is.

        :param read: returns its input, with its pictures read.
        :param is_slow: whether that takes a thread.
        """
        future: Future[dict[str, JSON]] | None = self._threads.submit(read) if is_slow else None
        self._queue.append((asked, read if future is None else future.result))
        while len(self._queue) > AHEAD:
            yield self._queue.popleft()

    def rest(self) -> Iterator[Read]:
        """Yield the rows that are left, once each is read."""
        while self._queue:
            yield self._queue.popleft()
