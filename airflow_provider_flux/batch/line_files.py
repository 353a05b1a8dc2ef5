"""Small whole files on any storage that Airflow knows: written at once, listed, read line by line."""

from __future__ import annotations

import inspect
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from airflow_provider_flux.exceptions import FluxError, FluxRecordError, FluxStorageError
from airflow_provider_flux.outputs.places import LOCAL
from airflow_provider_flux.protocol.storable import loads

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

Record = TypeVar("Record")

SETTLING = 2.0
"""Seconds after which a file that several have written at once, on a storage that cannot tell, has its last content."""


def write_lines(path: str, lines: Iterable[str]) -> None:
    """Write a file of lines in one piece: it is there whole or not at all, and replaces what was there.

    :raises FluxStorageError: if it cannot be written.
    """
    from airflow.sdk import ObjectStoragePath

    with _using(path, "written"):
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

    :raises FluxStorageError: if it cannot be written.
    """
    from airflow.sdk import ObjectStoragePath

    with _using(path, "written"):
        place = ObjectStoragePath(path)
        if place.protocol in LOCAL:
            return _create_locally(Path(place.path), text)
        if read_text(path):
            return False
        # Twice: a storage that heeds the mode refuses a file that is there. Others, such as some that speak S3, take
        # the mode and overwrite all the same.
        if _pipe(place, text) and _pipe(place, text):
            time.sleep(SETTLING)
    # Of the first, too, only the answer may have been lost, and its repetition refused.
    return read_text(path) == text


def read_text(path: str) -> str:
    """Return what is in a small file; nothing if there is no such file.

    :raises FluxStorageError: if it cannot be read.
    """
    from airflow.sdk import ObjectStoragePath

    try:
        with _using(path, "read"):
            place = ObjectStoragePath(path)
            # Not opened: s3fs would ask for the version that it remembers from a listing, and fail if there is a new
            # one.
            content: bytes = place.fs.cat_file(place.path)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return content.decode("utf-8", "replace").strip()


def read_lines(path: str) -> Iterator[bytes]:
    """Yield the lines of a file; none if there is no such file.

    :raises FluxStorageError: if it cannot be read.
    """
    for _, line in _numbered_lines(path):
        yield line


def read_records(path: str, build: Callable[[Any], Record] = lambda read: read) -> Iterator[Record]:
    """Yield what the lines of a file hold, each a JSON object; nothing if there is no such file.

    :param build: makes a record of what a line holds.
    :raises FluxRecordError: if a line holds none. A file is written whole, so that no crash of ours tears it.
    :raises FluxStorageError: if it cannot be read.
    """
    for number, line in _numbered_lines(path):
        try:
            read = loads(line)
            if not isinstance(read, dict):
                raise TypeError("it is no JSON object")  # noqa: TRY301
            record = build(read)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            shown = line[:80].decode("utf-8", "replace").strip()
            raise FluxRecordError(
                f"Line {number} of {path} cannot be read ({type(error).__name__}: {error}). It begins with {shown!r}. "
                "A disk that was full, or another program, may have spoilt it; all other lines are left as they are. "
                "Nothing was sent, since the row that the line tells of may be paid for already. Restore the file, or "
                "delete that line: its row is then made, and paid for, again. A file that is not this task's own: "
                "move it, or give the task another manifest_path."
            ) from error
        yield record


def list_names(folder: str) -> list[str]:
    """Return the names of what is in a folder, from one listing; none if there is no such folder.

    :raises FluxStorageError: if it cannot be listed.
    """
    from airflow.sdk import ObjectStoragePath

    try:
        with _using(folder, "listed"):
            place = ObjectStoragePath(folder)
            # A listing that s3fs remembers from earlier would hide what has been added or deleted since.
            place.fs.invalidate_cache(place.path)
            listed = place.fs.ls(place.path, detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [str(path).rstrip("/").rpartition("/")[2] for path in listed]


def remove(paths: Iterable[str]) -> None:
    """Delete files, should they still be there.

    :raises FluxStorageError: if one cannot be deleted.
    """
    from airflow.sdk import ObjectStoragePath

    for path in paths:
        try:
            with _using(path, "deleted"):
                place = ObjectStoragePath(path)
                place.fs.rm_file(place.path)
        except FileNotFoundError:
            continue


def join(folder: str, name: str) -> str:
    """Return the path of what is in a folder."""
    return f"{folder.rstrip('/')}/{name}"


@contextmanager
def _using(path: str, done: str) -> Iterator[None]:
    """Make an error of the package's own of what a storage raises, unless there is no such file to be used."""
    try:
        yield
    except FluxError:
        raise
    except Exception as error:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)) and done != "written":
            raise
        raise FluxStorageError(
            f"{path} could not be {done}: {type(error).__name__}: {error}. What is paid for is in the ledger beside "
            "the manifest, as far as that could be written. Put the storage right (space, permission, bucket, path) "
            "and run the task again: it goes on from there."
        ) from error


def _numbered_lines(path: str) -> Iterator[tuple[int, bytes]]:
    from airflow.sdk import ObjectStoragePath

    try:
        with _using(path, "read"), ObjectStoragePath(path).open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except (FileNotFoundError, NotADirectoryError):
        return


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
