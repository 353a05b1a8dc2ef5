"""Storing a prediction's pictures, whole or not at all.

Each output goes to a file under another name first, is checked there, and then is put to its place in one piece. It is
not streamed to its place: when a stream breaks, s3fs makes an object of what there is all the same.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO
from uuid import uuid4

from airflow_provider_flux.exceptions import (
    FluxInputError,
    FluxOutputError,
    FluxOutputNotStoredError,
    FluxStorageError,
)
from airflow_provider_flux.outputs import inline
from airflow_provider_flux.outputs.fetching import Fetched, Fetcher, FetchRules
from airflow_provider_flux.outputs.pictures import (
    MEDIA_TYPES,
    NotAPictureError,
    TruncatedPictureError,
    recognise,
)
from airflow_provider_flux.outputs.places import LOCAL, open_place
from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.storable import dumps, find_unstorable

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


def check_output_path(output_path: str, *, argument: str = "output_path") -> None:
    """Check that files could be stored there, before anything is paid for. Nothing is written.

    :param argument: the name by which errors call the path.
    :raises FluxInputError: if no file system serves it, its connection is missing, it is a relative path, or a file.
    :raises FluxStorageError: if this task's user may not write there.
    """
    try:
        for problem in find_unstorable(output_path, "path"):
            raise ValueError(problem)  # noqa: TRY301
        path = open_place(output_path)
        if not path.protocol and not Path(output_path).is_absolute():
            raise ValueError("a relative path means another folder on every worker")  # noqa: TRY301
    except Exception as error:
        raise FluxInputError(
            f"{argument} {output_path!r} cannot be used: {error}. Nothing was sent. Give an absolute path, or a URL "
            "such as s3://connection_id@bucket/folder, and install the provider of its scheme."
        ) from error
    if path.protocol in LOCAL:
        _check_folder(f"{argument} {output_path!r}", Path(path.path))


def _check_folder(named: str, folder: Path) -> None:
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not there.is_dir():
        raise FluxInputError(
            f"{named} cannot be used: {there} is no folder. Nothing was sent. Give another path, or move what is there."
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise FluxStorageError(
            f"{named} cannot be used: this task's user may not write into {there}, or it is "
            "read-only. Nothing was sent. Put the storage right and try again."
        )


class PictureStore:
    """Fetches and stores pictures. For one thread at a time.

    Its connections serve one prediction after the other.
    """

    def __init__(self, rules: FetchRules | None = None) -> None:
        self._rules = rules or FetchRules()
        self._fetcher = Fetcher(self._rules)

    def __enter__(self) -> PictureStore:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._fetcher.close()

    def store(
        self,
        outputs: Sequence[str],
        stem: str,
        *,
        prediction_id: str,
        expires_at: float | None = None,
        give_up_at: float | None = None,
        sidecar: Mapping[str, JSON] | None = None,
    ) -> list[StoredPicture]:
        """Fetch and store all pictures of a prediction that succeeded.

        They become ``{stem}_0.png``, ``{stem}_1.png`` and so on, with the extension that their bytes ask for. What is
        there already is overwritten, and nothing is ever half written under its name.

        :param outputs: URLs and ``data:`` URIs.
        :param stem: beginning of the paths, anything ``ObjectStoragePath`` takes; see
            :func:`airflow_provider_flux.outputs.naming.task_stem`.
        :param prediction_id: whose outputs they are, for messages.
        :param expires_at: when to stop trying to fetch, in seconds since the epoch; see
            :meth:`airflow_provider_flux.outputs.fetching.Fetcher.fetch`, as for the next.
        :param give_up_at: when to end a try under way as well.
        :param sidecar: facts to write to ``{stem}.json`` with the pictures; see
            :func:`airflow_provider_flux.outputs.sidecar.describe`. It is written last, so that it vouches for them.
        :raises FluxOutputExpiredError: if a file is gone.
        :raises FluxOutputError: if an output can never be stored.
        :raises FluxOutputNotStoredError: if one could not be fetched or stored this time.
        """
        until = {"expires_at": expires_at, "give_up_at": give_up_at}
        stored = [
            self._store_one(output, f"{stem}_{number}", f"Picture {number} of prediction {prediction_id}", until)
            for number, output in enumerate(outputs)
        ]
        if sidecar is not None:
            _store_sidecar(stem, sidecar, stored, f"The record of prediction {prediction_id}")
        return stored

    def _store_one(self, output: str, stem: str, about: str, until: Mapping[str, float | None]) -> StoredPicture:
        is_inline = inline.is_inline(output)
        with _Landing(stem, about) as landing:
            if is_inline:
                fetched = _unpack(output, landing, about, self._rules)
            else:
                fetched = self._fetcher.fetch(output, landing.file, about=about, **until)
            picture = fetched.picture
            path = f"{stem}.{picture.format}"
            landing.put(path, MEDIA_TYPES[picture.format])
        url = "" if is_inline else output
        return StoredPicture(path, url, fetched.sha256, fetched.size, picture.width, picture.height, picture.format)


def store_outputs(
    outputs: Sequence[str],
    stem: str,
    *,
    prediction_id: str,
    rules: FetchRules | None = None,
    expires_at: float | None = None,
    give_up_at: float | None = None,
    sidecar: Mapping[str, JSON] | None = None,
) -> list[StoredPicture]:
    """Fetch and store all pictures of one prediction; see :meth:`PictureStore.store`."""
    with PictureStore(rules) as store:
        return store.store(
            outputs, stem, prediction_id=prediction_id, expires_at=expires_at, give_up_at=give_up_at, sidecar=sidecar
        )


def stored_size(path: str) -> int | None:
    """Return the size in bytes of a stored file, or None if there is none. Asks the store once."""
    from airflow.sdk import ObjectStoragePath

    place = ObjectStoragePath(path)
    try:
        if place.protocol in LOCAL:
            return Path(place.path).stat().st_size
        # A listing that s3fs remembers from earlier would hide what has been added or deleted since.
        place.fs.invalidate_cache(place.path)
        size: int = place.fs.info(place.path)["size"]
    except FileNotFoundError:
        return None
    return size


def _unpack(output: str, landing: _Landing, about: str, rules: FetchRules) -> Fetched:
    try:
        content = inline.decode(output)
        if len(content) > rules.largest_file:
            raise ValueError(f"it is larger than {rules.largest_file} bytes")  # noqa: TRY301
        landing.write(content)
        return Fetched(recognise(landing.file), hashlib.sha256(content).hexdigest(), len(content))
    except (ValueError, NotAPictureError, TruncatedPictureError) as error:
        raise FluxOutputError(f"{about} came inside the answer and cannot be used: {error}.") from error


def _store_sidecar(stem: str, facts: Mapping[str, JSON], pictures: Sequence[StoredPicture], about: str) -> None:
    listed = []
    for picture in pictures:
        entry = picture.as_dict()
        del entry["url"]  # it may be signed, and is dead soon
        listed.append(entry)
    record = dumps({**facts, "pictures": listed}, indent=2)
    with _Landing(stem, about) as landing:
        landing.write(f"{record}\n".encode())
        landing.put(f"{stem}.json", "application/json")


class _Landing:
    """A new file that is put to its place once it is whole, and deleted otherwise.

    For a place on this machine it is in the same folder, since only there a rename is one step.

    :param stem: beginning of the path of its place.
    :param about: what it holds, for messages.
    """

    def __init__(self, stem: str, about: str) -> None:
        from airflow.sdk import ObjectStoragePath

        self._about = about
        with self._storing(stem):
            place = ObjectStoragePath(stem)
            self._is_local = place.protocol in LOCAL
            folder = Path(place.path).parent if self._is_local else Path(tempfile.gettempdir())
            self._path = folder / f".{uuid4().hex}.part"
            self.file: BinaryIO = _create(self._path)

    def __enter__(self) -> _Landing:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        try:
            # On a full disk this fails too, for what is still buffered.
            self.file.close()
        except OSError:
            return
        finally:
            self._path.unlink(missing_ok=True)

    def write(self, content: bytes) -> None:
        """Write the whole file.

        :raises FluxOutputNotStoredError: if that fails.
        """
        with self._storing(str(self._path)):
            self.file.write(content)
            self.file.flush()

    def put(self, path: str, media_type: str) -> None:
        """Put the file to its place.

        :raises FluxOutputNotStoredError: if that fails.
        """
        from airflow.sdk import ObjectStoragePath

        with self._storing(path):
            self.file.close()
            place = ObjectStoragePath(path)
            if self._is_local:
                os.replace(self._path, place.path)  # noqa: PTH105 (the name says that it overwrites, on every system)
            else:
                argument = _CONTENT_TYPE_ARGUMENTS.get(place.protocol)
                options = {argument: media_type} if argument else {}
                place.fs.put_file(str(self._path), place.path, **options)

    @contextmanager
    def _storing(self, path: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise FluxOutputNotStoredError(
                f"{self._about} could not be stored as {path}: {type(error).__name__}: {error}. It was paid for and "
                "may still be there: put the storage right and retry while its URL lives."
            ) from error


def _create(path: Path) -> BinaryIO:
    try:
        return path.open("x+b")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("x+b")
