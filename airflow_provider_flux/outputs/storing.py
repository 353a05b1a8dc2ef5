"""Storing a prediction's pictures, whole or not at all.

Each output goes to a local file first, is checked there, and then is put to its place in one piece. It is not streamed
to its place: when a stream breaks, s3fs makes an object of what there is all the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_flux.exceptions import FluxInputError, FluxOutputError, FluxOutputNotStoredError
from airflow_provider_flux.outputs import inline
from airflow_provider_flux.outputs.fetching import Fetched, FetchRules, fetch
from airflow_provider_flux.outputs.pictures import (
    MEDIA_TYPES,
    NotAPictureError,
    TruncatedPictureError,
    recognise,
)
from airflow_provider_flux.protocol.wire import JSON

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

_LOCAL = ("", "file", "local")
"""Protocols of this machine. Its files are reached directly: on Airflow 3.1, a path without a scheme has no ``fs``."""

_CONTENT_TYPE_ARGUMENTS = {"s3": "ContentType", "gs": "content_type"}
"""What s3fs and gcsfs call it. They guess it from the name otherwise, and Python knows no WebP before 3.13."""


@dataclass(frozen=True, slots=True)
class StoredPicture:
    """A picture that lasts.

    :param path: where it is; ``ObjectStoragePath(path)`` opens it.
    :param url: where it came from; empty if the answer itself held it.
    :param sha256: of its bytes, in hexadecimal.
    :param size: bytes.
    :param width: pixels, as is the height.
    :param format: ``png``, ``jpg`` or ``webp``.
    """

    path: str
    url: str
    sha256: str
    size: int
    width: int
    height: int
    format: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON, for XCom."""
        return asdict(self)


def check_output_path(output_path: str) -> None:
    """Check that pictures could be stored there, before they are paid for. Nothing is written.

    :raises FluxInputError: if no file system serves it, its connection is missing, or it is a relative path.
    """
    from airflow.sdk import BaseHook, ObjectStoragePath

    try:
        path = ObjectStoragePath(output_path)
        if path.protocol not in _LOCAL:
            if path.conn_id:
                # Amazon's file system goes on without a connection that it cannot find.
                BaseHook.get_connection(path.conn_id)
            _ = path.fs
        elif not path.protocol and not Path(output_path).is_absolute():
            raise ValueError("a relative path means another folder on every worker")  # noqa: TRY301
    except Exception as error:
        raise FluxInputError(
            f"output_path {output_path!r} cannot be used: {error}. Nothing was sent. Give an absolute path, or a URL "
            "such as s3://connection_id@bucket/folder, and install the provider of its scheme."
        ) from error


def store_outputs(
    outputs: Sequence[str],
    stem: str,
    *,
    prediction_id: str,
    rules: FetchRules | None = None,
    expires_at: float | None = None,
    sidecar: Mapping[str, JSON] | None = None,
) -> list[StoredPicture]:
    """Fetch and store all pictures of a prediction that succeeded.

    They become ``{stem}_0.png``, ``{stem}_1.png`` and so on, with the extension that their bytes ask for. What is there
    already is overwritten, and nothing is ever half written under its name. May be called from many threads.

    :param outputs: URLs and ``data:`` URIs.
    :param stem: beginning of the paths, anything ``ObjectStoragePath`` takes; see
        :func:`airflow_provider_flux.outputs.naming.task_stem`.
    :param prediction_id: whose outputs they are, for messages.
    :param expires_at: when to stop trying to fetch, in seconds since the epoch; see
        :func:`airflow_provider_flux.outputs.fetching.fetch`.
    :param sidecar: facts to write to ``{stem}.json`` with the pictures; see
        :func:`airflow_provider_flux.outputs.sidecar.describe`. It is written last, so that it vouches for the pictures.
    :raises FluxOutputExpiredError: if a file is gone.
    :raises FluxOutputError: if an output can never be stored.
    :raises FluxOutputNotStoredError: if one could not be fetched or stored this time.
    """
    rules = rules or FetchRules()
    stored = []
    for number, output in enumerate(outputs):
        about = f"Picture {number} of prediction {prediction_id}"
        with tempfile.TemporaryDirectory(prefix="flux-") as folder:
            file = Path(folder) / "picture"
            if inline.is_inline(output):
                fetched = _unpack(output, file, about, rules)
            else:
                fetched = fetch(output, file, about=about, rules=rules, expires_at=expires_at)
            picture = fetched.picture
            path = f"{stem}_{number}.{picture.format}"
            _put(file, path, about, MEDIA_TYPES[picture.format])
        url = "" if inline.is_inline(output) else output
        stored.append(
            StoredPicture(path, url, fetched.sha256, fetched.size, picture.width, picture.height, picture.format)
        )
    if sidecar is not None:
        _store_sidecar(stem, sidecar, stored, f"The record of prediction {prediction_id}")
    return stored


def stored_size(path: str) -> int | None:
    """Return the size in bytes of a stored file, or None if there is none. Asks the store once."""
    from airflow.sdk import ObjectStoragePath

    place = ObjectStoragePath(path)
    try:
        if place.protocol in _LOCAL:
            return Path(place.path).stat().st_size
        # A listing that s3fs remembers from earlier would hide what has been added or deleted since.
        place.fs.invalidate_cache(place.path)
        size: int = place.fs.info(place.path)["size"]
    except FileNotFoundError:
        return None
    return size


def _unpack(output: str, file: Path, about: str, rules: FetchRules) -> Fetched:
    try:
        content = inline.decode(output)
        if len(content) > rules.largest_file:
            raise ValueError(f"it is larger than {rules.largest_file} bytes")  # noqa: TRY301
        file.write_bytes(content)
        with file.open("rb") as opened:
            return Fetched(recognise(opened), hashlib.sha256(content).hexdigest(), len(content))
    except (ValueError, NotAPictureError, TruncatedPictureError) as error:
        raise FluxOutputError(f"{about} came inside the answer and cannot be used: {error}.") from error


def _store_sidecar(stem: str, facts: Mapping[str, JSON], pictures: Sequence[StoredPicture], about: str) -> None:
    listed = []
    for picture in pictures:
        entry = picture.as_dict()
        del entry["url"]  # it may be signed, and is dead soon
        listed.append(entry)
    with tempfile.TemporaryDirectory(prefix="flux-") as folder:
        file = Path(folder) / "record"
        file.write_text(json.dumps({**facts, "pictures": listed}, indent=2, ensure_ascii=False) + "\n", "utf-8")
        _put(file, f"{stem}.json", about, "application/json")


def _put(file: Path, path: str, about: str, media_type: str) -> None:
    """Put a whole file to its place."""
    from airflow.sdk import ObjectStoragePath

    try:
        place = ObjectStoragePath(path)
        if place.protocol in _LOCAL:
            _put_locally(file, Path(place.path))
        else:
            _put_remotely(file, place, media_type)
    except Exception as error:
        raise FluxOutputNotStoredError(
            f"{about} could not be stored as {path}: {type(error).__name__}: {error}. It was paid for and may still be "
            "there: put the storage right and retry while its URL lives."
        ) from error


def _put_locally(file: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, since only there a rename is one step.
    temporary = place.with_name(f".{uuid4().hex}.part")
    try:
        shutil.copyfile(file, temporary)
        os.replace(temporary, place)  # noqa: PTH105 (the name says that it overwrites, on every system)
    finally:
        temporary.unlink(missing_ok=True)


def _put_remotely(file: Path, place: ObjectStoragePath, media_type: str) -> None:
    argument = _CONTENT_TYPE_ARGUMENTS.get(place.protocol)
    place.fs.put_file(str(file), place.path, **({argument: media_type} if argument else {}))
