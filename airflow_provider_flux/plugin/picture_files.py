"""Reading what tasks have stored: whole pictures that are what was recorded of them, and batches' manifests.

A path comes from an XCom, which anyone who writes a DAG can push, and it is read with the rights of the API server. So
the path is not trusted at all, and the bytes decide: they must be a picture, within bounds, and have the sha256 that
was recorded. Someone who names another file would have to know its content already, and it would have to be a picture.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_flux.outputs.fetching import LARGEST_FILE
from airflow_provider_flux.outputs.pictures import INPUT_MEDIA_TYPES, NotAPictureError, TruncatedPictureError, recognise
from airflow_provider_flux.plugin import records

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

log = logging.getLogger(__name__)

LARGEST_PICTURE = 25_000_000
"""Pixels. FLUX models make four million at most; a small file can claim billions, to fill the memory."""

LARGEST_MANIFEST = 32 * 1024 * 1024
"""Bytes: about fifty thousand rows."""

MANIFEST_NAME = re.compile(r".*\.jsonl(\.part-\d+-of-\d+|\.map-\d+)?")
THUMBNAILS_KEPT = 512
"""In memory, some 40 kB each."""

MANIFESTS_KEPT = 2
THUMBNAIL_QUALITY = 80


class NotServedError(Exception):
    """The file is not served. Which of the possible reasons it is stays between us and the log."""


def picture(path: str, sha256: str) -> tuple[bytes, str]:
    """Return a picture that a task has stored or read, and its media type.

    :raises NotServedError: if it cannot be read, is no picture, or is not the one that was recorded.
    """
    content = _read(path, LARGEST_FILE)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise _not_served(path, "its sha256 is not the recorded one")
    try:
        found = recognise(io.BytesIO(content), INPUT_MEDIA_TYPES)
    except (NotAPictureError, TruncatedPictureError) as error:
        raise _not_served(path, str(error)) from error
    if found.width * found.height > LARGEST_PICTURE:
        raise _not_served(path, f"it has {found.width} x {found.height} pixels")
    return content, INPUT_MEDIA_TYPES[found.format]


@lru_cache(maxsize=THUMBNAILS_KEPT)
def thumbnail(path: str, sha256: str, width: int) -> tuple[bytes, str]:
    """Return a picture made small, or whole where Pillow (the extra ``ui``) is not installed.

    :param width: of the square, in pixels, that it must fit into.
    :raises NotServedError: as :func:`picture`, or if it cannot be drawn.
    """
    content, media_type = picture(path, sha256)
    try:
        from PIL import Image
    except ImportError:
        return content, media_type
    small = io.BytesIO()
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP", "GIF")) as image:
            if image.width * image.height > LARGEST_PICTURE:
                raise _not_served(path, f"Pillow sees {image.width} x {image.height} pixels")
            image.draft("RGB", (width, width))
            image.thumbnail((width, width))
            image.convert("RGBA" if image.has_transparency_data else "RGB").save(
                small, "WEBP", quality=THUMBNAIL_QUALITY
            )
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _not_served(path, f"it cannot be drawn: {error}") from error
    return small.getvalue(), "image/webp"


@lru_cache(maxsize=MANIFESTS_KEPT)
def manifest(path: str, version: str) -> tuple[records.Record, ...]:
    """Return the rows of a batch's manifest.

    :param version: changes whenever the manifest may have changed.
    :raises NotServedError: if it cannot be read or is no manifest.
    """
    if not MANIFEST_NAME.fullmatch(path):
        raise _not_served(path, "its name is not that of a manifest")
    try:
        values = [json.loads(line) for line in _read(path, LARGEST_MANIFEST).splitlines() if line]
    except ValueError as error:
        raise _not_served(path, "it is no JSONL") from error
    rows = [records.row(value) for value in values]
    if None in rows:
        raise _not_served(path, "it is no manifest of a batch")
    return tuple(row for row in rows if row)


def _read(path: str, limit: int) -> bytes:
    from airflow.sdk import ObjectStoragePath

    try:
        location = ObjectStoragePath(path)
        # Only what Airflow has a provider for has a file system here: none for http, and none that wraps another.
        protocol = location.fs.protocol
        # A pipe would be waited for, and a device never ends.
        is_readable = "file" not in protocol or Path(location.path).is_file()
        content: bytes = _read_bounded(location, limit) if is_readable else b""
    except Exception as error:
        raise _not_served(path, f"{type(error).__name__}: {error}") from error
    if len(content) > limit:
        raise _not_served(path, f"it is larger than {limit} bytes")
    return content


def _read_bounded(location: ObjectStoragePath, limit: int) -> bytes:
    with location.open("rb") as file:
        content: bytes = file.read(limit + 1)
    return content


def _not_served(path: str, reason: str) -> NotServedError:
    log.warning("FLUX: %s is not served: %s", path, reason)
    return NotServedError(reason)
