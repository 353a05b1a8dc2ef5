"""How often a connection may be asked: turns that every user of it in this process shares.

Waiting for a turn is left to whoever drives the request. Nothing here sleeps, so that one rate limiter serves any
number of threads and event loops, and each wait costs the same however many others wait.
"""

from __future__ import annotations

import logging
import math
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from airflow_provider_flux.client.connection import GatewayAccess
from airflow_provider_flux.protocol.classify import Failure, Problem, Reason, classify
from airflow_provider_flux.protocol.flows import LONGEST_SILENCE
from airflow_provider_flux.protocol.messages import Delivery, Purpose, Reply, Request, Response, TransportFailure
from airflow_provider_flux.protocol.schedule import Chance, backoff

BURST = 1.0
"""Seconds of the pace that may be used at once after a rest. Little, because a gateway may count by the minute."""

CUT = 0.5
"""A 429 leaves this share of the pace, as in TCP: a limit that nobody documents is found in a few steps."""

RECOVERY = 10.0
"""Seconds in which a pace that was cut doubles again."""

SLOWEST = 1.0
"""Seconds between two turns below which no 429 cuts the pace; a pace that is slower anyway is left as it is."""

FINEST_WAIT = 0.001
"""Seconds. A wait that is shorter is none: event loops wake up no more exactly than that."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Clock:
    """A clock that can stand still for a while and then run slower than time, doubling its speed until they agree.

    :param starts: the time until which it stands still.
    :param reading: what it shows until then.
    :param speed: how fast it starts, as a share of time's own speed.
    """

    starts: float
    reading: float
    speed: float

    def at(self, now: float) -> float:
        """Return what it shows at a time."""
        elapsed = max(0.0, now - self.starts)
        if self.speed == 1.0:
            return self.reading + elapsed
        catching_up = min(elapsed, self._catches_up_after)
        gained = self.speed * _DOUBLING * (math.pow(2.0, catching_up / RECOVERY) - 1.0)
        return self.reading + gained + elapsed - catching_up

    def shows(self, reading: float) -> float:
        """Return the time at which it shows a reading."""
        ahead = max(0.0, reading - self.reading)
        while_catching_up = _DOUBLING * (1.0 - self.speed)
        if ahead >= while_catching_up:
            return self.starts + self._catches_up_after + ahead - while_catching_up
        return self.starts + RECOVERY * math.log2(1.0 + ahead / (self.speed * _DOUBLING))

    def speed_at(self, now: float) -> float:
        """Return how fast it runs, or will run as soon as it starts."""
        catching_up = min(max(0.0, now - self.starts), self._catches_up_after)
        return self.speed * math.pow(2.0, catching_up / RECOVERY)

    def runs_full(self, now: float) -> bool:
        """Tell whether it runs as fast as time."""
        return now >= self.starts + self._catches_up_after

    @property
    def _catches_up_after(self) -> float:
        return -RECOVERY * math.log2(self.speed)


_DOUBLING = RECOVERY / math.log(2.0)


class Pace:
    """Hands out turns at even distances, in the order in which they are asked for.

    Turns lie on a clock of their own. A 429 stops that clock for as long as the gateway asks and lets it run slower
    afterwards, and with it come later all turns that have not come yet, at distances as even as before.

    Safe in any thread, and in a signal handler that interrupts it.

    :param per_minute: how many turns there are in a minute.
    :param name: whose pace it is, for the log.
    :param clock: a time in seconds that only ever rises.
    :param chance: source of the jitter where the gateway does not say how long to wait.
    """

    def __init__(
        self,
        per_minute: float,
        name: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Chance = random.random,
    ) -> None:
        self.per_minute = per_minute
        self.cuts = 0
        """How often it was slowed down."""
        self._name = name
        self._now = clock
        self._chance = chance
        self._lock = threading.RLock()
        self._distance = 60.0 / per_minute
        self._clock = _Clock(clock(), 0.0, 1.0)
        self._next = -BURST
        self._stopped_at = -math.inf
        self._refusals = 0
        self._is_slow = False

    def reserve(self) -> float:
        """Return the reading of the pace's clock at which the next turn comes."""
        with self._lock:
            now = self._now()
            over = self._is_slow and self._clock.runs_full(now)
            if over:
                self._is_slow = False
            reading = self._clock.at(now)
            # A gateway that asks for fewer requests is not met with a burst of them.
            turn = max(self._next, reading - (0.0 if self._is_slow else BURST))
            self._next = turn + self._distance
        if over:
            _logger.info("%s: the gateway takes requests at the full pace again", self._name)
        return max(reading, turn)

    def wait(self, turn: float) -> float:
        """Return the seconds until a turn comes, as far as is known now; 0 if it has come."""
        with self._lock:
            left = self._clock.shows(turn) - self._now()
        return left if left >= FINEST_WAIT else 0.0

    def has_lost(self, turn: float) -> bool:
        """Tell whether a turn had come when a 429 did. If it was not used by then, another one is to be taken."""
        return turn < self._stopped_at

    def slow_down(self, failure: Failure, *, known_cuts: int) -> None:
        """Take note of a 429.

        :param failure: what the gateway said.
        :param known_cuts: :attr:`cuts` when the request was sent. Of the requests that were on their way together only
            the first one cuts the pace; the others merely put off what comes next.
        """
        with self._lock:
            is_first = known_cuts == self.cuts
            begins = is_first and not self._is_slow
            now = self._now()
            reading, speed = self._clock.at(now), self._clock.speed_at(now)
            if is_first:
                self.cuts += 1
                self._refusals += 1
                self._is_slow = True
                self._stopped_at = reading
                speed = max(speed * CUT, min(1.0, self._distance / SLOWEST))
            asked = backoff(self._refusals, self._chance) if failure.retry_after is None else failure.retry_after
            starts = max(self._clock.starts, now + min(asked, LONGEST_SILENCE))
            self._clock = _Clock(starts, reading, speed)
        if begins:
            _logger.warning("%s: %s; all requests of this connection slow down", self._name, failure)

    def go_on(self, *, known_cuts: int) -> None:
        """Take note of an answer that is no 429.

        :param known_cuts: :attr:`cuts` when the request was sent.
        """
        if known_cuts == self.cuts:
            self._refusals = 0


class Turn:
    """The place of one request among all those of its connection.

    :param pace: who hands out turns.
    :param request: what waits for it. A cancel takes its turn at once, since it ends what is being paid for.
    """

    def __init__(self, pace: Pace, request: Request) -> None:
        self._pace = pace
        self._request = request
        self._turn = pace.reserve()
        self._known_cuts = pace.cuts

    def wait(self) -> float:
        """Return the seconds until the request may be sent; 0 if now. Ask again after them: a 429 moves turns."""
        self._known_cuts = self._pace.cuts
        if self._request.purpose is Purpose.CANCEL:
            return 0.0
        if self._pace.has_lost(self._turn):
            self._turn = self._pace.reserve()
        return self._pace.wait(self._turn)

    def note(self, reply: Reply) -> None:
        """Take note of the reply: the one place where a 429 is seen by all who share the connection."""
        if not isinstance(reply, Response):
            return
        judged = classify(self._request, reply) if reply.status == 429 else None
        if isinstance(judged, Problem) and judged.failure.reason is Reason.RATE_LIMITED:
            self._pace.slow_down(judged.failure, known_cuts=self._known_cuts)
        else:
            self._pace.go_on(known_cuts=self._known_cuts)

    def never_came(self) -> TransportFailure:
        """Return the reply to a request that was given up before its turn came."""
        message = f"not sent: the connection's {self._pace.per_minute:g} requests a minute left no room for it in time"
        return TransportFailure(Delivery.NOT_SENT, message)


@dataclass(frozen=True, slots=True)
class RateLimiter:
    """What one connection may ask.

    :param creates: the pace of creates.
    :param others: the pace of everything else; the same one if one limit holds for both.
    """

    creates: Pace
    others: Pace

    def turn(self, request: Request) -> Turn:
        """Queue up a request."""
        return Turn(self.creates if request.purpose is Purpose.CREATE else self.others, request)


_rate_limiters: dict[tuple[str, str, float, float | None], RateLimiter] = {}
# A fork can come while another thread holds a lock that nobody would release in the child.
os.register_at_fork(after_in_child=_rate_limiters.clear)


def rate_limiter_of(access: GatewayAccess) -> RateLimiter:
    """Return the rate limiter that this process keeps for a connection. A limit that is changed begins a new one."""
    limits = access.requests_per_minute, access.creates_per_minute
    key = (access.conn_id, access.gateway.origin, *limits)
    found = _rate_limiters.get(key)
    # Of two threads that come first at once, both get what one of them has stored.
    return found if found is not None else _rate_limiters.setdefault(key, _new_rate_limiter(access))


def _new_rate_limiter(access: GatewayAccess) -> RateLimiter:
    name = f"Connection {access.conn_id!r} at {access.gateway.origin}"
    others = Pace(access.requests_per_minute, name)
    creates = others if access.creates_per_minute is None else Pace(access.creates_per_minute, f"{name}, creates")
    return RateLimiter(creates, others)
