"""Asks after many predictions at once where the gateway lists them: one page tells of a hundred.

A flow asks after its prediction as always. While many do so over one connection, whoever is due waits for a moment, and
all of them are answered from the pages of the list, newest first. Whatever the list does not tell soon, or not for
fewer requests, is asked one by one.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

from airflow_provider_flux.client.connection import GatewayAccess
from airflow_provider_flux.protocol.classify import Failure, Problem, Reason, classify, malformed
from airflow_provider_flux.protocol.flows import SHORTEST_LIMIT, Send
from airflow_provider_flux.protocol.gateways import Gateway
from airflow_provider_flux.protocol.messages import JSON, Purpose, Reply, Request, Response
from airflow_provider_flux.protocol.prediction import read_id
from airflow_provider_flux.protocol.schedule import SHORTEST_INTERVAL

MANY = 36
"""Flows that must go on over one connection, most of which wait for a prediction. Fewer are hardly due together."""

PAGE_SIZE = 100
"""Predictions on one page (Replicate's OpenAPI file)."""

GATHERING = 0.25
"""Seconds for which a poll may wait for others that are due as well."""

TOLERANCE = SHORTEST_INTERVAL
"""Seconds by which a state may be older than the poll that it answers. No prediction is polled more often than that."""

PAGE_PATIENCE = 10.0
"""Seconds for one page, its turn included. Those who wait for it would be answered by a poll of their own by then."""

PAGE_BYTES = 1024 * 1024
"""Bytes of one page that are read as JSON. A prediction takes some 2 kB, but its input may hold a whole picture, and
decoding many of these would hold up the loop for longer than the requests that they spare."""

REST = 60.0
"""Seconds for which the list is left alone once it was of no use."""

Sender: TypeAlias = Callable[[Send], Awaitable[Reply]]
"""Sends one request, and returns the reply to it."""

_logger = logging.getLogger(__name__)


class Lists:
    """The lists of all connections that share one session."""

    def __init__(self) -> None:
        self._by_connection: dict[tuple[str, Gateway, str], WatchedList] = {}

    @asynccontextmanager
    async def asking(self, access: GatewayAccess, send: Sender) -> AsyncIterator[Sender]:
        """Lend one flow a way to send that asks by way of the list where that spares requests.

        The last flow of a connection takes what is being read along with it.

        :param send: sends a request of its own.
        """
        connection = (access.conn_id, access.gateway, access.key)
        watched = self._by_connection.get(connection)
        if watched is None:
            watched = self._by_connection[connection] = WatchedList(access, send)
        watched.users += 1
        try:
            yield functools.partial(watched.ask, send)
        finally:
            watched.users -= 1
            if watched.users == 0:
                del self._by_connection[connection]
                await watched.close()


@dataclass(slots=True)
class _Poll:
    """A poll that waits for the list.

    :param due_at: when it came.
    :param told: the prediction as the list shows it; None if the list does not tell.
    """

    due_at: float
    told: asyncio.Future[JSON]

    def settle(self, told: JSON) -> None:
        if not self.told.done():
            self.told.set_result(told)


@dataclass(frozen=True, slots=True)
class _Page:
    """One page of the list.

    :param asked_at: when it was asked for; no state on it is older.
    :param predictions: what it shows, by the path at which each prediction is asked for alone.
    :param next: the address of the page after it; empty if there is none.
    """

    asked_at: float
    predictions: Mapping[str, JSON]
    next: str

    def answers(self, due_at: float) -> bool:
        """Tell whether it is young enough for a poll."""
        return self.asked_at >= due_at - TOLERANCE


class WatchedList:
    """The list of one connection, read by whoever is due first for all who are.

    :param access: the connection.
    :param send: sends the requests for its pages.
    """

    def __init__(self, access: GatewayAccess, send: Sender) -> None:
        self.users = 0
        self._gateway = access.gateway
        self._name = f"Connection {access.conn_id!r} at {access.gateway.origin}"
        self._send = send
        self._polls: dict[str, _Poll] = {}
        self._unused: dict[str, _Page] = {}
        self._rests_until = 0.0
        self._spared = 0
        self._reading: asyncio.Task[None] | None = None

    async def ask(self, send: Sender, effect: Send) -> Reply:
        """Return the reply to a request: as the list tells it, or else as it comes.

        :param send: sends the request itself.
        """
        ends_at = time.monotonic() + effect.limit
        told = await self._tell(effect) if effect.request.purpose is Purpose.GET else None
        if told is not None:
            self._spared += 1
            return Response(200, {"content-type": "application/json"}, json.dumps(told).encode())
        return await send(replace(effect, limit=max(SHORTEST_LIMIT, ends_at - time.monotonic())))

    async def _tell(self, effect: Send) -> JSON:
        """Return a prediction as the list shows it, or None if it is better asked after by itself."""
        now, path = time.monotonic(), effect.request.path
        patience = effect.limit - SHORTEST_LIMIT
        if self.users < MANY or patience <= 0 or now < self._rests_until:
            return None
        # Each state is told once: seen again it would seem to be confirmed.
        page = self._unused.pop(path, None)
        if page is not None and page.answers(now):
            return page.predictions[path]
        poll = self._polls.get(path)
        if poll is None:
            poll = self._polls[path] = _Poll(now, asyncio.get_running_loop().create_future())
        poll.due_at = now
        if self._reading is None:
            # A task of its own, because whoever began it may be canceled while others wait for it.
            self._reading = asyncio.create_task(self._read())
        await asyncio.wait((poll.told,), timeout=patience)
        return poll.told.result() if poll.told.done() else None

    async def close(self) -> None:
        """End what is being read."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait((self._reading,))

    async def _read(self) -> None:
        try:
            while self._polls:
                await asyncio.sleep(GATHERING)
                await self._go_through()
        except Exception:
            _logger.exception("%s: the list of predictions cannot be read", self._name)
            self._rest()
        finally:
            self._reading = None

    async def _go_through(self) -> None:
        """Answer those who wait from as many pages as spare requests, and send the others to ask for themselves."""
        if self._spared < 0:
            self._rest()
            return
        self._spared = pages = 0
        wanted = set(self._polls)
        fewest = -(-self.users // PAGE_SIZE)
        request: Request | None = self._gateway.list() if len(wanted) > fewest else None
        # Others may make predictions with the same key, but the list is not searched for ours without end.
        while request is not None and pages < min(len(wanted), 2 * fewest + 1):
            page = await self._page(request)
            if isinstance(page, Failure):
                self._rest(f"{page}; predictions are asked after one by one for {REST:g} s")
                return
            pages += 1
            self._spared -= 1
            wanted -= self._hand_out(page)
            request = self._gateway.list(page.next) if page.next else None
        for path in wanted:
            self._settle(path, None)

    async def _page(self, request: Request) -> _Page | Failure:
        asked_at = time.monotonic()
        reply = await self._send(Send(request, PAGE_PATIENCE))
        if isinstance(reply, Response) and len(reply.body) > PAGE_BYTES:
            message = f"a page of {len(reply.body)} bytes takes longer than the requests that it spares"
            return Failure(Reason.MALFORMED, message, str(request), reply.status)
        judged = classify(request, reply)
        if isinstance(judged, Problem):
            return judged.failure
        payload = judged.payload
        results = payload.get("results") if isinstance(payload, dict) else None
        if not isinstance(results, list):
            return malformed(request, payload).failure
        predictions = {self._gateway.get(read_id(item["id"])).path: item for item in results if _is_whole(item)}
        following = payload.get("next")
        return _Page(asked_at, predictions, following if isinstance(following, str) else "")

    def _hand_out(self, page: _Page) -> set[str]:
        """Answer those who wait for a page, keep it for those who are due soon, and return whom it answers."""
        now = time.monotonic()
        # What is too old by now would be kept in memory for nothing.
        self._unused = {path: earlier for path, earlier in self._unused.items() if earlier.answers(now)}
        answered = set()
        for path, prediction in page.predictions.items():
            poll = self._polls.get(path)
            if poll is None:
                self._unused[path] = page
            elif page.answers(poll.due_at):
                self._settle(path, prediction)
                answered.add(path)
        return answered

    def _settle(self, path: str, told: JSON) -> None:
        self._polls.pop(path).settle(told)

    def _rest(self, why: str = "") -> None:
        """Leave the list alone for a while, and send all who wait to ask for themselves."""
        if why:
            _logger.warning("%s: %s", self._name, why)
        self._rests_until = time.monotonic() + REST
        for path in list(self._polls):
            self._settle(path, None)


def _is_whole(item: JSON) -> bool:
    """Tell whether an item shows as much as an answer to a question after it does."""
    return isinstance(item, dict) and bool(read_id(item.get("id"))) and "output" in item
