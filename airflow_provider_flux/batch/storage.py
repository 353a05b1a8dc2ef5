"""Small whole files on any storage that Airflow knows: written at once, listed, read line by line."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from uuid import uuid4

LOCAL = ("", "file", "local")


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


def _write(file: Path, lines: Iterable[str], *, durable: bool = False) -> None:
    with file.open("w", encoding="utf-8") as opened:
        opened.writelines(f"{line}\n" for line in lines)
        if durable:
            # A machine that loses its power must not have forgotten what it has paid for.
            opened.flush()
            os.fsync(opened.fileno())
