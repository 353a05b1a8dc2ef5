"""Storing the pictures of many rows in threads, over connections that are kept from one row to the next."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from airflow_provider_flux.outputs.fetching import FetchRules
from airflow_provider_flux.outputs.storing import PictureStore

T = TypeVar("T")

STORES_AT_ONCE = 16
"""Of how many rows the pictures are fetched and stored at a time, besides the predictions in flight."""


class PictureThreads:
    """Threads, and a picture store for each that is busy."""

    def __init__(self, rules: FetchRules) -> None:
        self._rules = rules
        self._threads = ThreadPoolExecutor(STORES_AT_ONCE, thread_name_prefix="flux-store")
        self._idle: list[PictureStore] = []
        self._lock = threading.Lock()
        self._is_closed = False

    async def lend(self, use: Callable[[PictureStore], T]) -> T:
        """Call a function with a picture store in a thread, and return what it returns."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._use, use)

    def close(self) -> None:
        """Begin nothing any more. What a thread still does goes on."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for store in idle:
            store.close()

    def _use(self, use: Callable[[PictureStore], T]) -> T:
        with self._lock:
            # The one used last, whose connections are the freshest.
            store = self._idle.pop() if self._idle else None
        if store is None:
            store = PictureStore(self._rules)
        try:
            return use(store)
        finally:
            self._take_back(store)

    def _take_back(self, store: PictureStore) -> None:
        with self._lock:
            if not self._is_closed:
                self._idle.append(store)
                return
        store.close()
