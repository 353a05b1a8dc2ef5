"""Words for errors: what a value is, and which known name a wrong one was meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence, Set
from numbers import Number

_KINDS: Sequence[tuple[type | tuple[type, ...], str]] = (
    (type(None), "nothing"),
    (bool, "true or false"),
    (Number, "a number"),
    (str, "a text"),
    ((bytes, bytearray), "bytes"),
    (Mapping, "a mapping"),
    (Set, "a set"),
    (Sequence, "a list"),
)


def kind(value: object) -> str:
    """Say what a value is, as a person would."""
    found = (words for types, words in _KINDS if isinstance(value, types))
    return next(found, f"an object of type {type(value).__name__}")


def nearest(name: object, known: Iterable[object]) -> str:
    """Return the known name that a wrong one is most like, as the end of a sentence; empty if it is like none."""
    folded = {str(other).lower(): str(other) for other in known}
    likely = difflib.get_close_matches(str(name).lower(), folded, n=1)
    return f"; did you mean {folded[likely[0]]}?" if likely else ""


def names(known: Iterable[object]) -> str:
    """List names, each in quotes."""
    return ", ".join(map(repr, known)) or "none"
