"""Reading the pictures of an input before anything is paid for: all that a gateway would refuse later is refused here.

A field takes an http(s) URL or a ``data:`` URI, which go as they are, or a path: anything ``ObjectStoragePath`` takes.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import re
import stat
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from airflow_provider_flux.exceptions import FluxInputError, FluxStorageError
from airflow_provider_flux.outputs.inline import decode, is_inline
from airflow_provider_flux.outputs.pictures import (
    INPUT_MEDIA_TYPES,
    NotAPictureError,
    Picture,
    TruncatedPictureError,
    recognise,
)
from airflow_provider_flux.outputs.places import LOCAL, open_place
from airflow_provider_flux.protocol.catalogue import picture_fields
from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.picture_inputs import values_of

LARGEST_FILE = 64 * 1000 * 1000
"""Bytes. Our own choice: what a process holds in memory of the pictures that it checks."""

LARGEST_AREA = 100 * 1000 * 1000
"""Pixels. Our own choice: a small file can claim more than any service would decode."""

_URL = re.compile(r"https?://", re.IGNORECASE)

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)

_LOCAL_PICTURE = re.compile(r"/\S.*\.(png|jpe?g|gif|webp|heic|svg|tiff?|bmp)", re.IGNORECASE)


def read_input(model: str, input: Mapping[str, JSON], input_files: Mapping[str, JSON] | None = None) -> dict[str, JSON]:
    """Return an input in which each path has become what was read there.

    :param model: tells which fields are pictures.
    :param input: as a person gives it.
    :param input_files: paths of pictures by the names of their fields, for models that are not in the catalogue.
    :return: the input, with pictures as :mod:`airflow_provider_flux.protocol.picture_inputs` describes them.
    :raises FluxInputError: if one is missing, no whole picture, or too large; nothing was sent.
    :raises FluxStorageError: if a storage cannot be read just now; nothing was sent.
    """
    files = dict(input_files or {})
    if doubled := sorted(set(files) & set(input)):
        raise FluxInputError(f"{', '.join(doubled)} stands in input and in input_files; give it once.")
    whole = {**input, **files}
    fields = picture_fields(model) | set(files)
    _refuse_other_paths(model, input, fields)
    return {name: _read_field(name, value) if name in fields else value for name, value in whole.items()}


def names_files(model: str, input: Mapping[str, JSON], input_files: Mapping[str, JSON] | None = None) -> bool:
    """Tell whether an input has pictures that must be read."""
    fields = picture_fields(model)
    asked = {**{name: value for name, value in input.items() if name in fields}, **(input_files or {})}
    return any(isinstance(value, str) and not _URL.match(value) for _, value in values_of(asked))


def read_file(where: str, path: str) -> bytes:
    """Return what a file holds.

    :param where: the name of the field, for errors.
    :raises FluxInputError: if there is no such file, or it is too large.
    :raises FluxStorageError: if the storage cannot be read just now.
    """
    with _own_errors(where, path):
        _, read = _find(path)
        return read()


def check_picture(where: str, path: str, content: bytes) -> Picture:
    """Return what a file's bytes say of the picture that it is.

    :raises FluxInputError: if it is none that a model takes.
    """
    try:
        picture = recognise(io.BytesIO(content), INPUT_MEDIA_TYPES)
    except NotAPictureError as error:
        kinds = ", ".join(INPUT_MEDIA_TYPES)
        raise _error(where, path, f"it is no picture of a kind that models take ({kinds}) but {error}") from error
    except TruncatedPictureError as error:
        raise _error(where, path, f"it is not whole: {error}") from error
    if picture.width * picture.height > LARGEST_AREA:
        size = f"{picture.width} x {picture.height} pixels"
        raise _error(where, path, f"it has {size}, and {LARGEST_AREA // 1_000_000} megapixels are the most")
    return picture


def _refuse_other_paths(model: str, input: Mapping[str, JSON], fields: Collection[str]) -> None:
    for name, value in input.items():
        for _, item in values_of({name: value}):
            if name in fields or not isinstance(item, str) or not _looks_like_a_path(item):
                continue
            likely = difflib.get_close_matches(str(name), fields, n=1)
            hint = f"did you mean {likely[0]}? Else" if likely else "if it is a picture,"
            raise FluxInputError(
                f"input.{name}: {item!r} looks like the path of a file, and {model} is not known to take a picture in "
                f"that field; {hint} give it as input_files={{{name!r}: ...}}. Nothing was sent."
            )


def _looks_like_a_path(text: str) -> bool:
    if _URL.match(text) or is_inline(text):
        return False
    return _SCHEME.fullmatch(text) is not None or _LOCAL_PICTURE.fullmatch(text) is not None


def _read_field(name: str, value: JSON) -> JSON:
    if isinstance(value, list):
        if not value:
            raise _empty(name)
        return [_read(f"{name}.{at}", item) for at, item in enumerate(value)]
    return _read(name, value)


def _read(where: str, value: JSON) -> JSON:
    path = str(value).strip() if isinstance(value, str) or hasattr(value, "protocol") else None
    path = str(value) if path is None and isinstance(value, Path) else path
    if value is None or path == "":
        raise _empty(where)
    if path is None:
        raise FluxInputError(
            f"input.{where} must be the URL or the path of a picture, not {type(value).__name__}. Nothing was sent."
        )
    if _URL.match(path):
        return path
    if is_inline(path):
        _check_inline(where, path)
        return path
    with _own_errors(where, path):
        size, read = _find(path)
        with _room.taken(size):
            content = read()
            picture = check_picture(where, path, content)
            return {
                "path": path,
                "sha256": hashlib.sha256(content).hexdigest(),
                "bytes": len(content),
                "width": picture.width,
                "height": picture.height,
                "format": picture.format,
            }


def _check_inline(where: str, uri: str) -> None:
    shown = f"{uri.partition(',')[0][:60]}, ..."
    try:
        content = decode(uri)
    except ValueError as error:
        raise _error(where, shown, str(error)) from error
    check_picture(where, shown, content)


def _find(path: str) -> tuple[int, Callable[[], bytes]]:
    """Return the size of a file, and what reads it.

    :raises _UnusableError: if it cannot be used.
    """
    if "://" not in path:
        return _find_locally(Path(path))
    try:
        place = open_place(path)
    except OSError:
        raise
    except Exception as error:
        raise _UnusableError(f"it cannot be opened ({error}); install its provider, and name a connection") from error
    if place.protocol in LOCAL:
        return _find_locally(Path(place.path))
    storage = place.fs
    # Another picture may have been put there since a listing that s3fs remembers.
    storage.invalidate_cache(place.path)
    found = storage.info(place.path)
    if found.get("type") == "directory":
        raise _UnusableError("it is a folder, not a file")
    return _checked_size(int(found.get("size") or 0)), lambda: bytes(storage.cat_file(place.path))


def _find_locally(file: Path) -> tuple[int, Callable[[], bytes]]:
    if not file.is_absolute():
        raise _UnusableError("it is a relative path, which means another folder on every worker")
    found = file.stat()
    if not stat.S_ISREG(found.st_mode):
        raise _UnusableError("it is a folder, not a file" if stat.S_ISDIR(found.st_mode) else "it is no regular file")
    return _checked_size(found.st_size), file.read_bytes


def _checked_size(size: int) -> int:
    if size > LARGEST_FILE:
        raise _UnusableError(f"it has {size / 1e6:.1f} MB, and {LARGEST_FILE // 1_000_000} MB are the most")
    return size


class _Room:
    """Memory for pictures that are read, shared by all threads of the process."""

    def __init__(self) -> None:
        self._left = LARGEST_FILE
        self._freed = threading.Condition()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        with self._freed:
            self._freed.wait_for(lambda: self._left >= size)
            self._left -= size
        try:
            yield
        finally:
            with self._freed:
                self._left += size
                self._freed.notify_all()


_room = _Room()


@contextmanager
def _own_errors(where: str, path: str) -> Iterator[None]:
    try:
        yield
    except FluxInputError:
        raise
    except _UnusableError as unusable:
        raise _error(where, path, str(unusable)) from unusable
    except FileNotFoundError as error:
        raise _error(where, path, "there is no such file, or its bucket is gone") from error
    except Exception as error:
        raise FluxStorageError(
            f"input.{where}: {path!r} cannot be read ({type(error).__name__}: {error}). Nothing was sent. Give this "
            "task's user, or the path's connection, the right to read it; a storage that is out works with a retry."
        ) from error


class _UnusableError(Exception):
    """What is wrong with a path, or with the file there."""


def _empty(where: str) -> FluxInputError:
    return FluxInputError(
        f"input.{where} is empty: without its picture the prediction would be made of the prompt alone. Nothing was "
        "sent. Give a picture, or leave the field out."
    )


def _error(where: str, path: str, what: str) -> FluxInputError:
    return FluxInputError(f"input.{where}: {path!r} cannot be used: {what}. Nothing was sent.")
