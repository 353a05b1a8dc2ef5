"""A picture that is made smaller looks as it is meant to, and tells nothing of its owner."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image, ImageCms

from airflow_provider_flux.exceptions import FluxInputError
from airflow_provider_flux.inputs.shrinking import shrink

ORIENTATION, GPS, OWNER = 0x0112, 0x8825, 0x013B


def shrunk(content: bytes, limit: int = 60_000) -> Image.Image:
    smaller, kind, told = shrink("input_image", "/data/tea.jpg", content, limit=limit)
    assert len(smaller) <= limit
    opened = Image.open(io.BytesIO(smaller))
    assert {"jpg": "JPEG", "webp": "WEBP"}[kind] == opened.format
    assert f"{opened.width} x {opened.height} pixels" in told
    return opened


def photo(size: tuple[int, int] = (900, 600), *, mode: str = "RGB", **options: Any) -> bytes:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", size, (200, 20, 20))
    image.paste((20, 20, 200), (size[0] // 2, 0, *size))
    noise = Image.effect_noise(size, 30).convert("RGB")
    file = io.BytesIO()
    Image.blend(image, noise, 0.2).convert(mode).save(file, "JPEG", quality=98, **options)
    return file.getvalue()


def test_it_stands_as_the_camera_says_and_nothing_else_that_it_wrote_is_handed_on() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[OWNER] = "Somebody"
    exif.get_ifd(GPS)[2] = (52.0, 31.0, 0.0)
    small = shrunk(photo(exif=exif))
    assert small.width < small.height
    # Turned by a quarter, what was on the left is above.
    top, bottom = small.getpixel((small.width // 2, 10)), small.getpixel((small.width // 2, small.height - 10))
    assert top[0] > top[2]  # type: ignore[index]
    assert bottom[2] > bottom[0]  # type: ignore[index]
    assert dict(small.getexif()) == {}
    assert b"Somebody" not in shrink("x", "y", photo(exif=exif), limit=60_000)[0]


def test_its_colours_are_those_of_its_profile() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    small = shrunk(photo(icc_profile=profile))
    left, right = small.getpixel((20, 20)), small.getpixel((small.width - 20, 20))
    assert left[0] > left[2]  # type: ignore[index]
    assert right[2] > right[0]  # type: ignore[index]
    assert "icc_profile" not in small.info


@pytest.mark.parametrize("mode", ["CMYK", "L"])
def test_other_colour_models_become_rgb(mode: str) -> None:
    assert shrunk(photo(mode=mode)).mode == "RGB"


def test_what_is_transparent_stays_so() -> None:
    image = Image.effect_noise((300, 300), 80).convert("RGBA")
    image.putalpha(128)
    file = io.BytesIO()
    image.save(file, "PNG")
    assert shrunk(file.getvalue()).mode == "RGBA"


def test_it_is_never_made_larger() -> None:
    small = shrunk(photo((300, 200)), limit=1_000_000)
    assert small.size == (300, 200)


def test_it_is_not_made_smaller_than_it_must_be() -> None:
    small = shrunk(photo((3000, 3000)), limit=10_000_000)
    assert 4_100_000 < small.width * small.height <= 4 * 1024 * 1024


def test_what_does_not_fit_at_all_is_told() -> None:
    with pytest.raises(FluxInputError, match="does not fit into a request"):
        shrink("input_image", "/data/tea.jpg", photo(), limit=1_000)


def test_what_pillow_cannot_read_is_told() -> None:
    with pytest.raises(FluxInputError, match="cannot be made smaller"):
        shrink("input_image", "/data/tea.jpg", b"\xff\xd8\xff no picture \xff\xd9", limit=1_000)
