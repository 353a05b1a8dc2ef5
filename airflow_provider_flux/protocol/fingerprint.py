"""A short name for what is submitted, by which a row, a record and a prediction are told to be of the same input."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping

from airflow_provider_flux.protocol.gateways import Gateway
from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.picture_inputs import identity_of

MOST_COMBINED = 6
"""So many whole numbers of an input are tried as floats in every combination; of more, all at once."""

_FLOATS_END = 10**308
"""No float is larger."""


def fingerprint_of(gateway: Gateway, model: str, input: Mapping[str, JSON]) -> str:
    """Return the fingerprint of a submission, the same on every machine.

    Equal numbers are written the same, and of a picture only what it holds counts, not where it lies.
    """
    return _digest(gateway, model, plain_numbers(identity_of(input)))


def is_fingerprint_of(fingerprint: str, gateway: Gateway, model: str, input: Mapping[str, JSON]) -> bool:
    """Tell whether a stored fingerprint is that of what would be submitted."""
    return fingerprint in fingerprints_of(gateway, model, input)


def fingerprints_of(gateway: Gateway, model: str, input: Mapping[str, JSON]) -> Iterator[str]:
    """Yield the fingerprints by which a submission is recognised: its own, then those of version 0.1.

    Version 0.1 told 7 from 7.0. What it has stored is recognised whichever of the two a number was then.
    """
    identity = identity_of(input)
    plain = plain_numbers(identity)
    yield _digest(gateway, model, plain)
    count = sum(1 for _ in _whole_numbers(plain))
    choices = itertools.product((False, True), repeat=count) if count <= MOST_COMBINED else [(True,) * count]
    inputs = itertools.chain([identity], (_with_floats(plain, iter(choice)) for choice in choices))
    for given in inputs:
        yield _digest(gateway, model, given)


def plain_numbers(value: JSON) -> JSON:
    """Return a value in which numbers that are equal in JSON Schema are written the same: 7.0 is 7."""
    if isinstance(value, Mapping):
        return {name: plain_numbers(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _digest(gateway: Gateway, model: str, input: JSON) -> str:
    whole = json.dumps([gateway.origin, gateway.prefix, model, input], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(whole.encode()).hexdigest()[:32]


def _whole_numbers(value: JSON) -> Iterator[int]:
    """Yield the numbers in a value that may have been floats."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _whole_numbers(item)
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) < _FLOATS_END and float(value) == value:
        yield value


def _with_floats(value: JSON, are_floats: Iterator[bool]) -> JSON:
    """Return a value in which those of its :func:`_whole_numbers` are floats that are chosen."""
    if isinstance(value, Mapping):
        return {name: _with_floats(item, are_floats) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_floats(item, are_floats) for item in value]
    is_chosen = any(True for _ in _whole_numbers(value)) and next(are_floats)
    return float(value) if is_chosen else value
