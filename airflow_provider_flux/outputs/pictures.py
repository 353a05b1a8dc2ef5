"""What a file is, told by its bytes: the name and the content type of an output are only claims.

A webp asked of flux-1.1-pro has been seen to come as a JPEG, and an error page comes with any name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import BinaryIO

MEDIA_TYPES: Mapping[str, str] = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
"""The formats that FLUX models write, which are their files' extensions too. Everything else is refused."""

INPUT_MEDIA_TYPES: Mapping[str, str] = {**MEDIA_TYPES, "gif": "image/gif"}
"""The formats that FLUX models read (their schemas: jpeg, png, gif or webp)."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_START = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"
_JPEG_TAIL = 4096
"""Bytes at the end in which a whole JPEG ends. Some writers add a little after the end; compressed data cannot hold the
two bytes (ITU-T T.81, B.1.1.5)."""


class NotAPictureError(Exception):
    """The bytes are no picture in a format that is taken. The message says what they are instead."""


class TruncatedPictureError(Exception):
    """The picture's end is missing."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What a picture's bytes say of it.

    :param format: ``png``, ``jpg``, ``webp`` or ``gif``, which is the file's extension too.
    :param width: pixels, as is the height.
    """

    format: str
    width: int
    height: int


def recognise(file: BinaryIO, formats: Collection[str] = MEDIA_TYPES) -> Picture:
    """Tell what picture a file is, from its first bytes to its last. No pixel is decoded.

    :param file: a seekable file, read from its start.
    :param formats: those that are taken.
    :raises NotAPictureError: if it is none.
    :raises TruncatedPictureError: if its end is missing.
    """
    import imagesize  # type: ignore[import-untyped]

    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(64)
    picture_format = _format(head)
    if picture_format not in formats:
        raise NotAPictureError(_described(head))
    if not _IS_WHOLE[picture_format](file, size):
        raise TruncatedPictureError(f"the {picture_format} picture ends too early, after {size} bytes")
    width, height = imagesize.get(file)
    if width < 1 or height < 1:
        raise NotAPictureError(f"a {picture_format} file without a size")
    return Picture(picture_format, width, height)


def _format(head: bytes) -> str:
    if head.startswith(_PNG_SIGNATURE):
        return "png"
    if head.startswith(_JPEG_START):
        return "jpg"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    raise NotAPictureError(_described(head))


def _described(head: bytes) -> str:
    if not head:
        return "an empty file"
    if head[4:8] == b"ftyp":
        return f"a file of the kind {head[8:12].decode('latin-1').strip().upper()}, as phones and cameras write them"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    return "a text or a page" if start[:1] in (b"<", b"{", b"[") else f"a file that begins with {head[:8]!r}"


def _is_whole_png(file: BinaryIO, size: int) -> bool:
    """Walk from chunk to chunk to the end mark (PNG specification, 5.3)."""
    position = len(_PNG_SIGNATURE)
    while position + 12 <= size:
        file.seek(position)
        header = file.read(8)
        position += 12 + int.from_bytes(header[:4], "big")
        if header[4:] == b"IEND":
            return position <= size
    return False


def _is_whole_jpeg(file: BinaryIO, size: int) -> bool:
    file.seek(max(0, size - _JPEG_TAIL))
    return _JPEG_END in file.read()


def _is_whole_webp(file: BinaryIO, size: int) -> bool:
    """Compare with the length that the file begins with, which leaves out its first eight bytes (RFC 9649, 2.4)."""
    file.seek(4)
    return 8 + int.from_bytes(file.read(4), "little") <= size


def _is_whole_gif(file: BinaryIO, size: int) -> bool:
    """Look for the trailer (GIF89a specification, 27). Some writers add zeros after it."""
    file.seek(max(0, size - _JPEG_TAIL))
    return file.read().rstrip(b"\0").endswith(b";")


_IS_WHOLE: Mapping[str, Callable[[BinaryIO, int], bool]] = {
    "png": _is_whole_png,
    "jpg": _is_whole_jpeg,
    "webp": _is_whole_webp,
    "gif": _is_whole_gif,
}
