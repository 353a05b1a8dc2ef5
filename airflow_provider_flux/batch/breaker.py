"""Leaves a way to make rows alone for a while that has been refused as unavailable many times running."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from airflow_provider_flux.protocol.fallbacks import Cause
from airflow_provider_flux.protocol.messages import Log

REFUSALS = 10
"""So many refusals running."""

PAUSE = 60.0
"""Seconds, after which it is tried with one row."""


@dataclass
class _Way:
    name: str
    refusals: int = 0
    tried_again_at: float = 0.0
    is_on_trial: bool = False

    @property
    def is_out(self) -> bool:
        return self.refusals >= REFUSALS


class Breaker:
    """Tells which way a row begins with.

    :param names: of the ways, in the order in which they are taken. The last one is never left out.
    :param clock: the time in seconds, from any moment on.
    """

    def __init__(self, names: Sequence[str], log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self._ways = [_Way(name) for name in names]
        self._log = log
        self._clock = clock

    @property
    def out(self) -> list[str]:
        """The names of the ways that are left out."""
        return [way.name for way in self._ways if way.is_out]

    def first(self, at: int) -> int:
        """Return the first way that can be taken, and take it.

        :param at: from which on, from 0.
        """
        for number in range(at, len(self._ways) - 1):
            way = self._ways[number]
            if not way.is_out:
                return number
            if not way.is_on_trial and self._clock() >= way.tried_again_at:
                way.is_on_trial = True
                return number
        return max(at, len(self._ways) - 1)

    def leave(self, at: int) -> None:
        """Take note that a row has ended before it was known whether its way can be taken."""
        self._ways[at].is_on_trial = False

    def note(self, at: int, cause: Cause | None) -> None:
        """Take note of what became of a create.

        :param cause: why it was refused; None if it was accepted.
        """
        way = self._ways[at]
        was_out, way.is_on_trial = way.is_out, False
        way.refusals = way.refusals + 1 if cause is Cause.UNAVAILABLE else 0
        if way.is_out:
            way.tried_again_at = self._clock() + PAUSE
        if way.is_out and not was_out and at < len(self._ways) - 1:
            self._log.warning(
                "%s was refused %d times running: it is left out, and tried with one row every %d s",
                way.name,
                way.refusals,
                PAUSE,
            )
        elif was_out and not way.is_out:
            self._log.info("%s can be had again", way.name)
