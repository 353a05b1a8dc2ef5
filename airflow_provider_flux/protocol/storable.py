"""What JSON, UTF-8, PostgreSQL and Airflow's API can all carry, and what not.

Airflow's supervisor takes no half of a UTF-16 pair and no integer beyond 64 bits (msgpack), PostgreSQL's JSONB takes no
NUL, and JSON itself knows neither NaN nor infinity. What a gateway or a file brings is made storable as it is read;
what a person would submit is refused before it is paid for.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping

from airflow_provider_flux.protocol.messages import JSON

LEAST, GREATEST = -(2**63), 2**64 - 1
"""The integers that msgpack carries."""

_LINE_END = re.compile("[\x85\u2028\u2029]")
"""Where ``str.splitlines`` ends a line, though JSON lets them stand."""

_NOT_A_CHARACTER = re.compile("[\x00\ud800-\udfff]")


def storable(value: JSON) -> JSON:
    """Return a JSON value in which everything can be stored.

    A number that is not finite becomes null, a NUL or half a character U+FFFD, and an integer beyond 64 bits a text.
    """
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        return value if LEAST <= value <= GREATEST else _digits(value)
    if isinstance(value, Mapping):
        return {_storable_name(name): storable(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [storable(inner) for inner in value]
    return value


def storable_text(text: str) -> str:
    """Return a text in which every character can be stored; two halves that belong together become one."""
    if _NOT_A_CHARACTER.search(text) is None:
        return text
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    # Of a half at the end, Python's decoder may see a text that is cut off, which it replaces as well.
    return _NOT_A_CHARACTER.sub("\ufffd", whole)


def loads(text: str | bytes) -> JSON:
    """Read JSON that somebody else has written, made storable.

    :raises ValueError: if it is not JSON.
    :raises RecursionError: if it is nested too deeply.
    """
    read = json.loads(text, parse_constant=_no_number, parse_float=_finite, parse_int=_integer)
    # Only an escape can bring what UTF-8 itself cannot hold, but for a bare NUL, which JSON forbids.
    is_escaped = b"\\u" in text if isinstance(text, bytes) else _NOT_A_CHARACTER.search(text) or "\\u" in text
    return storable(read) if is_escaped else read


def dumps(value: JSON, **options: JSON) -> str:
    """Write JSON that anybody can read: storable, in UTF-8's own characters, and on one line for every reader.

    :param options: as ``json.dumps`` takes them.
    """
    written = json.dumps(storable(value), ensure_ascii=False, allow_nan=False, **options)
    return _LINE_END.sub(lambda found: f"\\u{ord(found[0]):04x}", written)


def find_unstorable(value: JSON, place: str) -> Iterator[str]:
    """Say what in a value could not be stored, and where.

    :param place: what the value is called, such as ``input.prompt``.
    """
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from find_unstorable(name, f"{place}: the name {name!r}")
            yield from find_unstorable(inner, f"{place}.{storable_text(str(name))}")
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from find_unstorable(inner, f"{place}[{index}]")
    elif problem := _problem(value):
        yield f"{place}: {problem}"


def _problem(value: JSON) -> str:
    """Say why a value that holds no other cannot be stored; empty if it can."""
    if isinstance(value, str) and (found := _NOT_A_CHARACTER.search(value)):
        kind = "a NUL" if found[0] == "\x00" else "half of a character"
        return f"{kind} (U+{ord(found[0]):04X}) at position {found.start() + 1} of the text cannot be stored"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} cannot be sent as JSON"
    if isinstance(value, int) and not LEAST <= value <= GREATEST:
        return f"an integer of {value.bit_length()} bits cannot be stored; 64 are the limit"
    return ""


def _storable_name(name: JSON) -> JSON:
    return storable_text(name) if isinstance(name, str) else name


def _no_number(_: str) -> None:
    return None


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def _integer(digits: str) -> int | str:
    # Python refuses to read thousands of digits (CVE-2020-10735).
    if len(digits) > len(str(LEAST)):
        return digits
    number = int(digits)
    return number if LEAST <= number <= GREATEST else digits


def _digits(number: int) -> str:
    try:
        return str(number)
    except ValueError:
        return hex(number)
