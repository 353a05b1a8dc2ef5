"""How much of the input pictures a batch holds in memory at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

ROOM = 64_000_000
"""Bytes. A picture counts thrice: as it was read, as text, and in the request."""


class InputRoom:
    """Room for pictures that are on their way, shared by all rows; first come, first served."""

    def __init__(self) -> None:
        self._left = ROOM
        self._queue = asyncio.Lock()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def take(self, size: int) -> AsyncIterator[None]:
        """Wait until there is room for pictures of a row, and hold it.

        :param size: bytes; what is larger than all of the room is given all of it.
        """
        wanted = min(3 * size, ROOM)
        async with self._queue:
            while self._left < wanted:
                self._freed.clear()
                await self._freed.wait()
            self._left -= wanted
        try:
            yield
        finally:
            self._left += wanted
            self._freed.set()
