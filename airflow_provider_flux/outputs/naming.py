"""Where stored files go: the same place at every try, under names that every store takes."""

from __future__ import annotations

import hashlib
import re

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
"""What some store or file system objects to. The percent sign is one: S3 advises against it in keys."""

_LONGEST_PART = 120
"""Characters. Local file systems take 255 bytes, of which a suffix and an extension need some."""

_MARK_LENGTH = 10


def task_stem(output_path: str, *, dag_id: str, run_id: str, task_id: str, map_index: int, prediction_id: str) -> str:
    """Return the beginning of the paths of one task's pictures, to which ``_0.png`` and the like are added.

    It is made of nothing but what stays the same in a retry, so that a retry overwrites.

    :param output_path: the folder above, anything ``ObjectStoragePath`` takes.
    :param map_index: -1 for a task that is not mapped.
    """
    parts = (dag_id, run_id, task_id, str(map_index), prediction_id)
    return "/".join((output_path.rstrip("/"), *map(safe_part, parts)))


def without_connection(path: str) -> tuple[str, str, str]:
    """Split a path into scheme, bucket and key, leaving out the connection: it is only one way to get there.

    :return: two empty strings and the path itself for a local path without a scheme.
    """
    scheme, separator, rest = path.partition("://")
    if not separator:
        return "", "", path
    authority, slash, key = rest.partition("/")
    return scheme, authority.rpartition("@")[2], slash + key


def safe_part(text: str) -> str:
    """Turn any text into one part of a path.

    A text that is safe as it is stays so. Any other gets its odd characters replaced and a mark of the whole text
    added, so that no two texts become one.
    """
    plain = _UNSAFE.sub("-", text).strip(".")[:_LONGEST_PART]
    if plain == text and plain:
        return text
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_MARK_LENGTH]
    return f"{plain}-{mark}" if plain else mark
