"""Date-times as the predictions API writes and reads them."""

from __future__ import annotations

import re
from datetime import datetime, timezone

_NANOSECONDS = 1_000_000_000
_NANO_DIGITS = 9
_FRACTION = re.compile(r"\.(\d+)")


def write(moment: float, digits: int) -> str:
    """Write a time in UTC with a given count of fractional digits.

    :param moment: seconds since the epoch.
    :param digits: how many digits of fractional seconds, 0 to 9.
    """
    seconds, nanoseconds = divmod(round(moment * _NANOSECONDS), _NANOSECONDS)
    text = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f"{nanoseconds:0{_NANO_DIGITS}d}"[:digits]
    return f"{text}.{fraction}Z" if fraction else f"{text}Z"


def read(text: str) -> float:
    """Read an ISO 8601 date-time; without a zone it is taken as UTC.

    :param text: the date-time.
    :raises ValueError: when it is none.
    """
    plain = _FRACTION.sub(lambda match: "." + match[1][:6].ljust(6, "0"), text.strip())
    plain = plain.replace(" ", "+")  # an unescaped "+" of a zone arrives as a space
    parsed = datetime.fromisoformat(plain[:-1] + "+00:00" if plain[-1:] in {"Z", "z"} else plain)
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)).timestamp()
