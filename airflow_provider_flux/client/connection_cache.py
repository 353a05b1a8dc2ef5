"""Connections as the triggers of an event loop share them.

A look-up asks Airflow's supervisor and API server. When a thousand mapped tasks are deferred, it would be made a
thousand times within seconds, on the loop that all triggers share.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from airflow_provider_flux.client.connection import GatewayAccess, find_connection_in_triggerer

FRESH_FOR = 30.0
"""Seconds for which a connection is taken to be as it was. A new key is found at once when the old one is refused."""


@dataclass(frozen=True, slots=True)
class _LookUp:
    made_at: float
    access: asyncio.Task[GatewayAccess]

    def serves(self, now: float, refused: GatewayAccess | None) -> bool:
        if not self.access.done():
            return True
        if now - self.made_at > FRESH_FOR or self.access.cancelled() or self.access.exception() is not None:
            return False
        return refused is None or self.access.result() != refused


_look_ups: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _LookUp]] = weakref.WeakKeyDictionary()


async def look_up(
    conn_id: str, *, refused: GatewayAccess | None = None, clock: Callable[[], float] = time.monotonic
) -> GatewayAccess:
    """Return how to reach the gateway of a connection.

    :param refused: what the gateway has refused the key of; it is not given again without another look.
    :raises FluxConnectionError: if the connection cannot be used.
    """
    of_loop = _look_ups.setdefault(asyncio.get_running_loop(), {})
    known = of_loop.get(conn_id)
    if known is None or not known.serves(clock(), refused):
        known = of_loop[conn_id] = _LookUp(clock(), asyncio.ensure_future(find_connection_in_triggerer(conn_id)))
    if known.access.done():
        return known.access.result()
    # Shielded, since others wait for it as well.
    return await asyncio.shield(known.access)
