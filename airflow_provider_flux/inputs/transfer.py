"""How a picture travels to the gateway: the choice, and what limits it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeAlias, get_args

InputTransfer: TypeAlias = Literal["auto", "inline", "upload", "signed"]
"""How pictures travel: what fits best, as ``data:`` URIs, uploaded to Replicate, or as signed URLs of their storage."""

SMALL = 256_000
"""Characters of a ``data:`` URI that Replicate's documents recommend at most."""

INLINE_LIMIT = 10_000_000
"""Characters of all ``data:`` URIs of one request; Replicate's JavaScript client refuses more."""

UPLOAD_LIMIT = 100_000_000
"""Bytes of one file (Replicate's OpenAPI file: 413 over 100 MB)."""


class Transfer(str, Enum):
    """How one picture travels."""

    INLINE = "is sent as a data: URI"
    UPLOAD = "was uploaded to the gateway"
    SIGNED = "is fetched by the gateway through a signed URL"


@dataclass(frozen=True, slots=True)
class Possible:
    """What can be done about a picture.

    :param uploads: whether the gateway takes files.
    :param signs: whether the picture's storage signs URLs that the gateway can reach.
    """

    uploads: bool
    signs: bool


def check_input_transfer(transfer: str) -> None:
    """Check how a person wants pictures to travel.

    :raises ValueError: if there is no such way.
    """
    if transfer not in get_args(InputTransfer):
        choices = " or ".join(map(repr, get_args(InputTransfer)))
        raise ValueError(f"input_transfer must be {choices}, not {transfer!r}")


def choose(size: int, possible: Possible, wanted: str = "auto") -> Transfer | None:
    """Decide how one picture travels; None if the way that is wanted is closed.

    ============ =================================== =========
    wanted       picture                             travels
    ============ =================================== =========
    ``auto``     data: URI of up to 256,000          inline
    ``auto``     larger, gateway takes files         uploaded
    ``auto``     larger, storage signs URLs          signed
    ``auto``     larger, neither                     inline
    ``inline``   any                                 inline
    ``upload``   gateway takes files                 uploaded
    ``signed``   storage signs URLs                  signed
    ============ =================================== =========

    :param size: bytes.
    """
    can_upload = possible.uploads and size <= UPLOAD_LIMIT
    if wanted == "inline" or (wanted == "auto" and uri_length(size) <= SMALL):
        return Transfer.INLINE
    if can_upload and wanted in ("auto", "upload"):
        return Transfer.UPLOAD
    if possible.signs and wanted in ("auto", "signed"):
        return Transfer.SIGNED
    return Transfer.INLINE if wanted == "auto" else None


def uri_length(size: int) -> int:
    """Return how many characters the ``data:`` URI of a picture has.

    :param size: bytes.
    """
    return len("data:image/jpeg;base64,") + 4 * -(-size // 3)
