"""Sends a poll: in its turn, and in its place among the requests that are on their way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from airflow_provider_flux.client.poll_connections import Asked, Limits, PollConnections, question_of
from airflow_provider_flux.client.rate_limiter import rate_limiter_of
from airflow_provider_flux.protocol.flows import SHORTEST_LIMIT, Send
from airflow_provider_flux.protocol.messages import Reply
from airflow_provider_flux.telemetry import note_poll

if TYPE_CHECKING:
    from airflow_provider_flux.client.connection import GatewayAccess
    from airflow_provider_flux.client.request_places import Places
    from airflow_provider_flux.client.watcher import Watcher

Take: TypeAlias = "Callable[[Reply | Send], None]"
"""Is given the reply, or what has to be sent by the general client instead."""


@dataclass(frozen=True, slots=True)
class PollResources:
    """What the polls to one origin share.

    :param connections: what they are sent over.
    :param places: how many may be on their way, among all requests to the origin.
    :param watcher: wakes those up whose turn comes later.
    """

    connections: PollConnections
    places: Places
    watcher: Watcher


def begin_poll(resources: PollResources, access: GatewayAccess, effect: Send, take: Take) -> Poll | None:
    """Begin a poll and return it; None if it has to be sent by the general client.

    :param take: is called later, unless the poll is canceled before.
    """
    if resources.connections.rests or effect.request.origin:
        return None
    try:
        question = question_of(effect.request, access, resources.connections.netloc)
    except ValueError:
        return None
    poll = Poll(resources, access, effect, question, take)
    poll.begin()
    return poll


class Poll:
    """One poll, until its reply."""

    __slots__ = ("_access", "_asked", "_effect", "_ends_at", "_loop", "_question", "_resources", "_take", "_turn")

    def __init__(
        self, resources: PollResources, access: GatewayAccess, effect: Send, question: bytes, take: Take
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._resources = resources
        self._access = access
        self._effect = effect
        self._question = question
        self._take: Take | None = take
        self._ends_at = self._loop.time() + effect.limit
        self._turn = rate_limiter_of(access).turn(effect.request)
        self._asked: Asked | None = None

    def begin(self) -> None:
        """Queue up for a place, once its turn has come."""
        if self._take is None:
            return
        seconds = self._turn.wait()
        left = self._ends_at - self._loop.time()
        if seconds <= 0:
            self._resources.places.ask(self._use)
        elif left > 0:
            self._resources.watcher.call_later(min(seconds, left), self.begin)
        else:
            self._settle(self._turn.never_came())

    def cancel(self) -> None:
        """Want no reply any more."""
        self._take = None
        if self._asked is not None:
            self._asked.cancel()
            self._asked = None
            self._resources.places.give_back()

    def _use(self) -> bool:
        """Use a place, and tell whether it is used."""
        left = self._ends_at - self._loop.time()
        if self._take is None:
            return False
        if left <= 0:
            self._settle(self._resources.places.never_came())
            return False
        # A 429 to those ahead in the queue for a place holds back those behind as well.
        if self._turn.wait() > 0:
            self.begin()
            return False
        access = self._access
        limit = min(max(SHORTEST_LIMIT, left), access.request_limit)
        limits = Limits(min(access.connect_timeout, limit), access.read_timeout, self._loop.time() + limit)
        self._asked = self._resources.connections.ask(self._question, access, limits, self._take_reply)
        return True

    def _take_reply(self, reply: Reply | None) -> None:
        self._asked = None
        self._resources.watcher.guard(self._settle, reply)
        self._resources.watcher.guard(self._resources.places.give_back)

    def _settle(self, reply: Reply | None) -> None:
        take, self._take = self._take, None
        if take is None:
            return
        if reply is None:
            take(replace(self._effect, limit=max(SHORTEST_LIMIT, self._ends_at - self._loop.time())))
            return
        self._turn.note(reply)
        note_poll(self._access.gateway, reply)
        take(reply)
