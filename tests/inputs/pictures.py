"""Makes the pictures that the tests put in."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image


def picture(kind: str = "PNG", side: int = 64, *, mode: str = "RGB", seed: int = 1, **options: Any) -> bytes:
    """Return a picture full of noise, which no format makes much smaller.

    :param seed: pictures of other seeds differ.
    """
    file = io.BytesIO()
    noise = Image.effect_noise((side, side), 80).convert(mode)
    noise.putpixel((0, 0), noise.getpixel((seed % side, seed // side % side)))  # type: ignore[arg-type]
    noise.save(file, kind, **options)
    return file.getvalue()


def of_bytes(size: int) -> bytes:
    """Return a PNG of about so many bytes."""
    return picture(side=int(size**0.5), mode="L")


def claiming(width: int, height: int) -> bytes:
    """Return a small PNG that claims to be of another size."""
    content = bytearray(picture())
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return bytes(content)


def animated() -> bytes:
    """Return a GIF of three pictures."""
    frames = [Image.new("P", (64, 64), number) for number in range(3)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()
