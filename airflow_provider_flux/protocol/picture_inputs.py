"""Pictures in an input, as a submission knows them: by what they hold, wherever they lie and however they travel.

Once a picture has been read, it stands in the input as an object with its ``path``, its ``sha256`` and what else was
seen of it. Only the sha256 tells inputs apart. What is sent in its place is nobody's business: a ``data:`` URI or a
signed URL is as long as a picture, or as good as a key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping

from airflow_provider_flux.protocol.messages import JSON


def is_picture(value: JSON) -> bool:
    """Tell whether a value of an input is a picture that was read."""
    return isinstance(value, Mapping) and "sha256" in value and "path" in value


def values_of(input: Mapping[str, JSON]) -> Iterator[tuple[str, JSON]]:
    """Yield the values of an input, those of a list one by one, each with its place, such as ``input_images.0``."""
    for name, value in input.items():
        if isinstance(value, list):
            yield from ((f"{name}.{at}", item) for at, item in enumerate(value))
        else:
            yield name, value


def with_values(input: Mapping[str, JSON], replace: Callable[[str, JSON], JSON]) -> dict[str, JSON]:
    """Return an input with another value in each place.

    :param replace: is given place and value, as :func:`values_of` tells them.
    """
    return {
        name: [replace(f"{name}.{at}", item) for at, item in enumerate(value)]
        if isinstance(value, list)
        else replace(name, value)
        for name, value in input.items()
    }


def pictures_of(input: Mapping[str, JSON]) -> Iterator[tuple[str, Mapping[str, JSON]]]:
    """Yield the pictures in an input, each with its place."""
    return ((where, value) for where, value in values_of(input) if is_picture(value))


def with_pictures(input: Mapping[str, JSON], replace: Callable[[str, Mapping[str, JSON]], JSON]) -> dict[str, JSON]:
    """Return an input with something else in the place of each picture.

    :param replace: is given the place and the picture.
    """
    return with_values(input, lambda where, value: replace(where, value) if is_picture(value) else value)


def with_pictures_at(input: Mapping[str, JSON], pictures: Mapping[str, Mapping[str, JSON]]) -> dict[str, JSON]:
    """Return an input with pictures in their places, whatever it has there, if anything.

    :param pictures: by place, as :func:`values_of` tells it.
    """
    filled = dict(input)
    for where, picture in pictures.items():
        name, _, at = where.partition(".")
        if not at:
            filled[name] = picture
            continue
        values = filled.get(name)
        values = list(values) if isinstance(values, list) else []
        values += [None] * (int(at) + 1 - len(values))
        values[int(at)] = picture
        filled[name] = values
    return filled


def identity_of(input: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return what tells an input from others: of a picture what it holds, not where it lies."""
    return with_pictures(input, lambda _, picture: {"sha256": picture["sha256"]})


def sent_as(input: Mapping[str, JSON], sent: Mapping[str, JSON]) -> str:
    """Return a short name for what was sent in the place of an input's pictures; empty if it has none.

    A gateway that shows a prediction's input as it was sent shows by it which create made the prediction.

    :param sent: the input as it was sent, or as a gateway shows it.
    """
    values = values_at_pictures(input, sent)
    digest = hashlib.sha256()
    for value in values:
        # Not all of them as JSON at once: each may be as long as a picture.
        digest.update((value if isinstance(value, str) else json.dumps(value)).encode() + b"\0")
    return digest.hexdigest()[:32] if values else ""


def values_at_pictures(input: Mapping[str, JSON], shown: Mapping[str, JSON]) -> list[JSON]:
    """Return what an input that was sent, or that a gateway shows, has in the places of another one's pictures."""
    values = dict(values_of(shown))
    return [values.get(where) for where, _ in pictures_of(input)]


def without_pictures(input: Mapping[str, JSON], shown: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return an input with nothing in the places in which another one has pictures.

    :param input: the one that has the pictures.
    """
    places = {where for where, _ in pictures_of(input)}
    return with_values(shown, lambda where, value: None if where in places else value)
