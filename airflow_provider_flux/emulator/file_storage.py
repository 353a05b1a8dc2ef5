"""What is kept of files that came in: the uploaded ones, and what is known of a prediction's pictures."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

KEPT_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class InputPicture:
    """A picture that came in with a prediction.

    :param field: such as ``input_images.0``.
    :param way: ``data``, ``file`` (uploaded before) or ``url`` (fetched); ``elsewhere`` is a URL of another machine,
        which is not asked.
    :param sha256: of its bytes.
    :param preview: a small PNG of it, to draw.
    """

    field: str
    way: str
    sha256: str = ""
    size: int = 0
    ratio: float | None = None
    preview: bytes = b""


@dataclass(frozen=True)
class UploadedFile:
    """A file of ``POST /v1/files``."""

    id: str
    name: str
    content_type: str
    content: bytes
    created: float


class FileStorage:
    """The latest uploaded files, a quarter of a gigabyte of them at most."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, UploadedFile] = OrderedDict()

    def put(self, file: UploadedFile) -> None:
        self._files[file.id] = file
        while sum(len(each.content) for each in self._files.values()) > KEPT_BYTES and len(self._files) > 1:
            self._files.popitem(last=False)

    def get(self, file_id: str) -> UploadedFile | None:
        return self._files.get(file_id)

    def remove(self, file_id: str) -> bool:
        return self._files.pop(file_id, None) is not None

    def newest_first(self) -> list[UploadedFile]:
        return list(reversed(self._files.values()))

    def clear(self) -> None:
        self._files.clear()
