"""How many requests may be on their way at once, given in the order in which they are asked for.

aiohttp has such a queue too, but what has waited there in vain counts as sent, so that a create would be in doubt.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from airflow_provider_flux.protocol.messages import Delivery, TransportFailure

Offer: TypeAlias = Callable[[], bool]
"""Is called when a place is free; tells whether it is taken."""


class Places:
    """The places of those who share the connections of an origin.

    :param count: how many.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = count
        self._queue: deque[Offer] = deque()

    def ask(self, offer: Offer) -> None:
        """Offer a place as soon as there is one, which may be at once. One that is taken has to be given back."""
        self._queue.append(offer)
        if self._free:
            self._free -= 1
            self.give_back()

    async def take(self, seconds: float) -> bool:
        """Wait for a place, which then has to be given back. Tell whether one came free within these seconds."""
        loop = asyncio.get_running_loop()
        place: asyncio.Future[bool] = loop.create_future()
        self.ask(lambda: _settle(place, result=True))
        if place.done():
            return True
        timer = loop.call_later(max(0.0, seconds), _settle, place, False)
        try:
            return await place
        except asyncio.CancelledError:
            if not place.cancelled() and place.result():
                self.give_back()
            raise
        finally:
            timer.cancel()

    def give_back(self) -> None:
        """Pass a place on to whoever has waited longest."""
        while self._queue:
            if self._queue.popleft()():
                return
        self._free += 1

    def never_came(self) -> TransportFailure:
        """Return the reply to a request that was given up before a place came free."""
        return TransportFailure(Delivery.NOT_SENT, f"not sent: {self._count} requests before it took too long")


def _settle(place: asyncio.Future[bool], result: bool) -> bool:
    waits = not place.done()
    if waits:
        place.set_result(result)
    return waits
