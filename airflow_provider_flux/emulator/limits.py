"""Rate limits that refill with the clock."""

from __future__ import annotations

MINUTE = 60.0
_BURST_SHARE = 10


class TokenBucket:
    """Lets a number of calls a minute through, some of them at once."""

    def __init__(self) -> None:
        self._tokens: float | None = None
        self._at = 0.0

    def take(self, now: float, per_minute: float, burst: int | None) -> float:
        """Take a token; return 0, or the seconds until the next one comes.

        :param now: the emulator's clock.
        :param per_minute: the rate.
        :param burst: how many calls may come at once; ``None`` is a tenth of the rate, at least one.
        """
        size = float(burst or max(1, per_minute // _BURST_SHARE))
        rate = per_minute / MINUTE
        tokens = size if self._tokens is None else min(size, self._tokens + max(0.0, now - self._at) * rate)
        self._at = now
        if tokens < 1:
            self._tokens = tokens
            return (1 - tokens) / rate
        self._tokens = tokens - 1
        return 0.0
