"""Small whole files on any storage that Airflow knows: written at once, listed, read line by line."""

from __future__ import annotations

import inspect
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

LOCAL = ("", "file", "local")

SETTLING = 2.0
"""Seconds after which a file that several have written at once, on a storage that cannot tell, has its last content."""


def write_lines(path: str, lines: Iterable[str]) -> None:
    """Write a file of lines in one piece: it is there whole or not at all, and replaces what was there.

    :raises OSError: if it cannot be written, or whatever else the storage raises.
    """
    from airflow.sdk import ObjectStoragePath

    place = ObjectStoragePath(path)
    if place.protocol in LOCAL:
        _write_locally(Path(place.path), lines)
        return
    with tempfile.TemporaryDirectory(prefix="flux-") as folder:
        file = Path(folder) / "lines"
        _write(file, lines)
        # Not streamed: when a stream breaks, s3fs makes an object of what there is all the same.
        place.fs.put_file(str(file), place.path)


def create_exclusively(path: str, text: str) -> bool:
    """Write a small file that must not exist yet, and tell whether this call created it.

    Of several that do so at once, exactly one is told so; where the storage cannot create files exclusively, as far as
    a pause can tell them apart (:data:`SETTLING`).

    :raises OSError: if it cannot be written, or whatever else the storage raises.
    """
    from airflow.sdk import ObjectStoragePath

    place = ObjectStoragePath(path)
    if place.protocol in LOCAL:
        return _create_locally(Path(place.path), text)
    if read_text(path):
        return False
    # Twice: a storage that heeds the mode refuses a file that is there. Others, such as some that speak S3, take the
    # mode and overwrite all the same.
    if _pipe(place, text) and _pipe(place, text):
        time.sleep(SETTLING)
    # Of the first, too, only the answer may have been lost, and its repetition refused.
    return read_text(path) == text


def read_text(path: str) -> str:
    """Return what is in a small file; nothing if there is no such file."""
    from airflow.sdk import ObjectStoragePath

    place = ObjectStoragePath(path)
    try:
        # Not opened: s3fs would ask for the version that it remembers from a listing, and fail if there is a new one.
        content: bytes = place.fs.cat_file(place.path)
    except FileNotFoundError:
        return ""
    return content.decode("utf-8", "replace").strip()


def read_lines(path: str) -> Iterator[bytes]:
    """Yield the lines of a file; none if there is no such file."""
    from airflow.sdk import ObjectStoragePath

    try:
        with ObjectStoragePath(path).open("rb") as file:
            for line in file:
                if line.strip():
                    yield line
    except FileNotFoundError:
        return


def list_names(folder: str) -> list[str]:
    """Return the names of what is in a folder, from one listing; none if there is no such folder."""
    from airflow.sdk import ObjectStoragePath

    place = ObjectStoragePath(folder)
    # A listing that s3fs remembers from earlier would hide what has been added or deleted since.
    place.fs.invalidate_cache(place.path)
    try:
        listed = place.fs.ls(place.path, detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [str(path).rstrip("/").rpartition("/")[2] for path in listed]


def remove(paths: Iterable[str]) -> None:
    """Delete files, should they still be there."""
    from airflow.sdk import ObjectStoragePath

    for path in paths:
        place = ObjectStoragePath(path)
        try:
            place.fs.rm_file(place.path)
        except FileNotFoundError:
            continue


def join(folder: str, name: str) -> str:
    """Return the path of what is in a folder."""
    return f"{folder.rstrip('/')}/{name}"


def _write_locally(place: Path, lines: Iterable[str]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, since only there a rename is one step.
    temporary = place.with_name(f".{uuid4().hex}.part")
    try:
        _write(temporary, lines, durable=True)
        os.replace(temporary, place)  # noqa: PTH105 (the name says that it overwrites, on every system)
    finally:
        temporary.unlink(missing_ok=True)


def _create_locally(place: Path, text: str) -> bool:
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{uuid4().hex}.part")
    try:
        _write(temporary, [text], durable=True)
        # A link, unlike a rename, fails where there is something already, and shows the file whole.
        os.link(temporary, place)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _pipe(place: ObjectStoragePath, text: str) -> bool:
    """Write a small file, exclusively where that is known, and tell whether it was not refused."""
    try:
        place.fs.pipe_file(place.path, text.encode(), **_exclusively(place.fs))
    except Exception as error:
        if isinstance(error, FileExistsError) or _is_conflict(error):
            return False
        raise
    return True


def _exclusively(filesystem: Any) -> dict[str, Any]:
    """Return the arguments with which a storage creates a file only where there is none; nothing if it has no such."""
    from fsspec import AbstractFileSystem  # type: ignore[import-untyped]

    pipe = getattr(filesystem, "_pipe_file", filesystem.pipe_file)
    if getattr(pipe, "__func__", None) is AbstractFileSystem.pipe_file:
        # What fsspec offers to all looks first, and then writes.
        return {}
    parameters = inspect.signature(pipe).parameters
    if "mode" in parameters:
        return {"mode": "create"}
    # Azure's.
    return {"overwrite": False} if "overwrite" in parameters else {}


def _is_conflict(error: Exception) -> bool:
    """Tell S3's answer to a lost race, which s3fs hands on as an OSError from the client's own error."""
    return any(word in f"{error!r} {error.__cause__!r}" for word in _CONFLICTS)


_CONFLICTS = ("PreconditionFailed", "ConditionalRequestConflict", "At least one of the pre-conditions")


def _write(file: Path, lines: Iterable[str], *, durable: bool = False) -> None:
    with file.open("w", encoding="utf-8") as opened:
        opened.writelines(f"{line}\n" for line in lines)
        if durable:
            # A machine that loses its power must not have forgotten what it has paid for.
            opened.flush()
            os.fsync(opened.fileno())
