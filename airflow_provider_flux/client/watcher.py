"""Steps all flows over one origin in an event loop, so that whoever waits for one awaits a single future.

A poll by a coroutine of its own takes a timer, several futures and as many turns of the loop. Here a sleep is an entry
in a heap, taken out together with all that are due within the same moment, and a poll is a request and a callback.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from airflow_provider_flux.protocol.flows import Flow, Send, Sleep
from airflow_provider_flux.protocol.messages import Purpose, Reply

if TYPE_CHECKING:
    from airflow_provider_flux.client.polls import Poll, Take

T = TypeVar("T")

TICK = 0.025
"""Seconds. What is due within the same one is done at once."""

MOST_AT_ONCE = 200
"""Steps without a break: thousands of flows can be due together, and others use the loop too."""

_logger = logging.getLogger(__name__)


class Effects(Protocol):
    """Carries out what a flow yields, sleeps apart."""

    async def carry_out(self, effect: Any) -> Any:
        """Carry out an effect, and return what came of it."""

    def poll(self, effect: Send, take: Take) -> Poll | None:
        """Begin a poll and return it; None if it is to be carried out like any other effect."""


class Watcher:
    """Steps flows. One that fails fails alone; if the watcher itself does, all whom it watches for are told."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._watched: set[_Watched] = set()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.Handle | None = None
        self._timer_at = math.inf

    async def run(self, flow: Flow[T], effects: Effects) -> T:
        """Run a flow to its end and return its result."""
        watched = _Watched(self, flow, effects)
        self._watched.add(watched)
        self.guard(watched.step)
        try:
            result: T = await watched.outcome
            return result
        finally:
            self._watched.discard(watched)
            await watched.close()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call something, at the earliest then."""
        due = math.ceil((self._loop.time() + seconds) / TICK) * TICK
        heapq.heappush(self._heap, (due, next(self._numbers), callback))
        if due < self._timer_at:
            self._set_timer(due)

    def guard(self, step: Callable[..., None], *arguments: Any) -> None:
        """Do something in the name of all: if it fails, nobody is left waiting for ever."""
        try:
            step(*arguments)
        except Exception as error:
            _logger.exception("Predictions cannot be watched any longer in this process")
            for watched in self._watched:
                watched.fail(error)

    def close(self) -> None:
        """Do nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        self._heap.clear()

    def _set_timer(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        now = self._loop.time() + TICK / 10
        heap = self._heap
        for _ in range(MOST_AT_ONCE):
            if not heap or heap[0][0] > now:
                break
            self.guard(heapq.heappop(heap)[2])
        self._timer, self._timer_at = None, math.inf
        if heap:
            # Due already after a break: the loop goes round once, and comes back.
            self._set_timer(heap[0][0])


class _Watched:
    """A flow, and what it waits for."""

    __slots__ = ("_context", "_effects", "_flow", "_waits_for", "_watcher", "outcome")

    def __init__(self, watcher: Watcher, flow: Flow[Any], effects: Effects) -> None:
        self.outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._watcher = watcher
        self._flow = flow
        self._effects = effects
        # What a flow logs belongs to its trigger, which Airflow knows by the context.
        self._context = contextvars.copy_context()
        self._waits_for: asyncio.Task[None] | Poll | None = None

    def step(self, came_of_it: Any = None, error: Exception | None = None) -> None:
        """Let the flow go on until it waits for something again."""
        if self.outcome.done():
            return
        self._waits_for = None
        try:
            if error is None:
                effect = self._context.run(self._flow.send, came_of_it)
            else:
                effect = self._context.run(self._flow.throw, error)
        except StopIteration as end:
            self.outcome.set_result(end.value)
            return
        except Exception as failed:  # noqa: BLE001 (it is raised where the flow is waited for)
            self.fail(failed)
            return
        if isinstance(effect, Sleep):
            self._watcher.call_later(effect.seconds, self.step)
            return
        if isinstance(effect, Send) and effect.request.purpose is Purpose.GET:
            self._waits_for = self._effects.poll(effect, self._take)
        if self._waits_for is None:
            self._begin(effect)

    def _begin(self, effect: Any) -> None:
        self._waits_for = self._context.run(asyncio.ensure_future, self._carry_out(effect))

    def fail(self, error: BaseException) -> None:
        """End the wait with an error."""
        if not self.outcome.done():
            self.outcome.set_exception(error)

    def _take(self, reply: Reply | Send) -> None:
        if isinstance(reply, Send):
            self._begin(reply)
        else:
            self.step(reply)

    async def _carry_out(self, effect: Any) -> None:
        try:
            came_of_it = await self._effects.carry_out(effect)
        except asyncio.CancelledError:
            self.outcome.cancel()
            raise
        except Exception as error:  # noqa: BLE001 (the flow decides what it means)
            self._watcher.guard(self.step, None, error)
        else:
            self._watcher.guard(self.step, came_of_it)

    async def close(self) -> None:
        """End what the flow still waits for."""
        waits_for, self._waits_for = self._waits_for, None
        if isinstance(waits_for, asyncio.Task):
            waits_for.cancel()
            await asyncio.wait((waits_for,))
        elif waits_for is not None:
            waits_for.cancel()
        self._flow.close()
