"""Reading the pictures of many rows at once, while the rows keep the table's order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import TypeAlias

from airflow_provider_flux.exceptions import FluxError
from airflow_provider_flux.protocol.messages import JSON

THREADS = 8
"""Each holds one picture in memory at a time, mostly of a few MB."""

AHEAD = 2 * THREADS
"""Rows."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for in one of the ways to make a row.

    :param input: with the paths of its pictures.
    :param input_files: paths in fields that are not known to be pictures.
    """

    model: str
    input: Mapping[str, JSON]
    input_files: Mapping[str, JSON]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a row asks for.

    :param position: its place in the table, from 0.
    :param requests: one for each way to make it.
    :param error: what is wrong with it; then there is nothing else.
    """

    position: int
    key: str
    requests: Sequence[Request] = ()
    error: FluxError | None = None


Inputs: TypeAlias = "list[dict[str, JSON]]"
"""The inputs of a row, one for each way to make it, with their pictures read."""

Read: TypeAlias = "tuple[Asked, Callable[[], Inputs]]"
"""A row, and what returns its inputs, or raises."""


class ReadAhead:
    """Reads the pictures of a few rows ahead in threads. Rows come out as they went in."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="flux-read")
        self._queue: deque[Read] = deque()

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._threads.shutdown(cancel_futures=True)

    def begin(self, asked: Asked, read: Callable[[], Inputs], *, is_slow: bool) -> Iterator[Read]:
        """Take a row, and yield those whose turn it is.

        :param read: returns its inputs, with their pictures read.
        :param is_slow: whether that takes a thread.
        """
        future: Future[Inputs] | None = self._threads.submit(read) if is_slow else None
        self._queue.append((asked, read if future is None else future.result))
        while len(self._queue) > AHEAD:
            yield self._queue.popleft()

    def rest(self) -> Iterator[Read]:
        """Yield the rows that are left, once each is read."""
        while self._queue:
            yield self._queue.popleft()
