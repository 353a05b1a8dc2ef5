"""Making a picture smaller that would not fit into a request otherwise."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from airflow_provider_flux.exceptions import FluxInputError

if TYPE_CHECKING:
    from PIL.Image import Image

AREAS = (4.0, 2.0, 1.0, 0.5)
"""Megapixels that are tried one after the other. No FLUX model makes use of more than four (FLUX.2's largest)."""

QUALITIES = (90, 80, 70)


def shrink(where: str, path: str, content: bytes, *, limit: int) -> tuple[bytes, str, str]:
    """Return a picture that fits, turned as it is meant to be seen, in sRGB, and without what a camera wrote into it.

    :param where: the name of its field, for errors.
    :param limit: bytes.
    :return: the picture, its kind, and what was made of it for the log.
    :raises FluxInputError: if Pillow is missing, or cannot read the picture, or it does not fit.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise FluxInputError(
            f"input.{where}: {path!r} is too large to be sent inside the request ({len(content) / 1e6:.1f} MB of "
            f"{limit / 1e6:.1f}), and making it smaller takes Pillow: pip install 'airflow-provider-flux[pictures]'. "
            "Nothing was sent. Or give an https URL, or keep it in a storage that signs public URLs."
        ) from None
    try:
        with Image.open(io.BytesIO(content)) as opened:
            picture = _in_srgb(ImageOps.exif_transpose(opened))
    except Exception as error:
        raise FluxInputError(
            f"input.{where}: {path!r} cannot be made smaller ({type(error).__name__}: {error}). Nothing was sent."
        ) from error
    for area in AREAS:
        smaller = _scaled(picture, area)
        for quality in QUALITIES:
            packed, kind = _packed(smaller, quality)
            if len(packed) <= limit:
                size = (
                    f"{smaller.width} x {smaller.height} pixels, {len(packed) / 1e6:.1f} of {len(content) / 1e6:.1f} MB"
                )
                return packed, kind, size
    raise FluxInputError(
        f"input.{where}: {path!r} does not fit into a request, however small it is made. Nothing was sent. Give fewer "
        "pictures, or https URLs."
    )


def _in_srgb(picture: Image) -> Image:
    from PIL import ImageCms

    has_alpha = "A" in picture.getbands() or "transparency" in picture.info
    mode = "RGBA" if has_alpha else "RGB"
    profile = picture.info.get("icc_profile")
    if profile and not has_alpha and picture.mode in ("RGB", "CMYK"):
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode=mode)
        return converted if converted is not None else picture.convert(mode)
    return picture.convert(mode)


def _scaled(picture: Image, megapixels: float) -> Image:
    factor = (megapixels * 1024 * 1024 / (picture.width * picture.height)) ** 0.5
    if factor >= 1:
        return picture
    return picture.resize((max(1, int(picture.width * factor)), max(1, int(picture.height * factor))))


def _packed(picture: Image, quality: int) -> tuple[bytes, str]:
    file = io.BytesIO()
    kind = "webp" if picture.mode == "RGBA" else "jpg"
    # Nothing is handed on but the pixels: no EXIF, no place, no owner.
    picture.info.clear()
    picture.save(file, "WEBP" if kind == "webp" else "JPEG", quality=quality)
    return file.getvalue(), kind
