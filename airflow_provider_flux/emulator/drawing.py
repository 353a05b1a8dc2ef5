"""Draws the pictures: a made-up landscape with the prompt on it."""

from __future__ import annotations

import base64
import binascii
import colorsys
import functools
import io
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from airflow_provider_flux.emulator import sizes

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

PILLOW_MISSING = "drawing pictures needs Pillow: pip install 'airflow-provider-flux[emulator]'"
NOTICE = "LOCAL STAND-IN - no model drew this"
IMAGE_FIELDS = ("image", "image_prompt", "input_image", "input_images")
HILLS = 5
HALO_EDGE = 76  # brightness of the inverted radial gradient at the middle of its sides
FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf")
LABEL_FROM_WIDTH = 200  # narrower pictures carry no text
MAX_LINES = 6
_WRITERS: dict[str, tuple[str, dict[str, Any]]] = {
    "webp": ("WEBP", {"method": 2}),
    "jpg": ("JPEG", {"optimize": False}),
    "png": ("PNG", {"compress_level": 3}),
}


class PillowMissing(RuntimeError):
    """Pillow is not installed."""

    def __init__(self) -> None:
        super().__init__(PILLOW_MISSING)


def require_pillow() -> ModuleType:
    """Return ``PIL.Image``.

    :raises PillowMissing: when Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise PillowMissing from error
    return Image


@dataclass(frozen=True)
class Sketch:
    """What to draw.

    :param model: the model's name.
    :param prompt: the prompt.
    :param given: the input, for the size.
    :param seed: picks colours and shapes.
    :param file_format: ``webp``, ``jpg`` or ``png``.
    :param quality: compression quality, 0 to 100.
    :param black: draw nothing, as for moderated content.
    :param thumbnail: draw a thumbnail.
    """

    model: str
    prompt: str
    given: Mapping[str, Any]
    seed: int
    file_format: str
    quality: int = 80
    black: bool = False
    thumbnail: bool = False


def draw(sketch: Sketch) -> bytes:
    """Draw a picture and write it as a file.

    :param sketch: what to draw.
    :returns: the file's bytes.
    """
    image_module = require_pillow()
    size = sizes.picture_size(sketch.model, sketch.given, _image_ratio(sketch.given))
    size = sizes.small(size) if sketch.thumbnail else size
    if sketch.black:
        picture: Image = image_module.new("RGB", size)
    else:
        picture = _landscape(size, random.Random(f"{sketch.model}:{sketch.seed}:{sketch.prompt}"))
        if size[0] >= LABEL_FROM_WIDTH:
            picture = _labelled(picture, sketch)
    kind, options = _WRITERS[sketch.file_format]
    if kind != "PNG":
        options = {**options, "quality": sketch.quality}
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _image_ratio(given: Mapping[str, Any]) -> float | None:
    from PIL import Image, UnidentifiedImageError

    for name in IMAGE_FIELDS:
        value = given.get(name)
        first = value[0] if isinstance(value, list) and value else value
        if not isinstance(first, str) or not first.startswith("data:"):
            continue
        try:
            with Image.open(io.BytesIO(base64.b64decode(first.partition(",")[2]))) as picture:
                return float(picture.width) / float(picture.height)
        except (binascii.Error, UnidentifiedImageError, OSError, ValueError):
            return None
    return None


def _colour(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _mix(one: tuple[int, int, int], two: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, two, strict=True))
    return red, green, blue


def _landscape(size: tuple[int, int], chance: random.Random) -> Image:
    from PIL import Image, ImageDraw

    width, height = size
    hue = chance.random()
    top, glow = _colour(hue, 0.62, 0.42), _colour(hue + chance.uniform(0.28, 0.45), 0.42, 1.0)
    sky = Image.new("RGB", (1, 64))
    sky.putdata([_mix(top, glow, (row / 63) ** 1.4) for row in range(64)])
    picture = sky.resize((width, height), Image.Resampling.BICUBIC)
    _add_sun(picture, chance, glow)
    pen = ImageDraw.Draw(picture)
    near = _colour(hue + 0.04, 0.75, 0.12)
    for hill in range(HILLS):
        share = (hill + 1) / HILLS
        base = height * (0.48 + 0.42 * share)
        waves = [
            (
                height * 0.075 * (1.2 - 0.6 * share) / order,
                order * chance.uniform(0.7, 1.6),
                chance.uniform(0, math.tau),
            )
            for order in range(1, 5)
        ]
        line = [(x, base + _ridge(x / width, waves)) for x in range(0, width + 8, 8)]
        pen.polygon([*line, (width + 8, height), (0, height)], fill=_mix(glow, near, 0.25 + 0.75 * share))
    return picture


def _ridge(position: float, waves: list[tuple[float, float, float]]) -> float:
    return sum(tall * math.sin(math.tau * often * position + shift) for tall, often, shift in waves)


def _add_sun(picture: Image, chance: random.Random, glow: tuple[int, int, int]) -> None:
    from PIL import Image, ImageChops

    width, height = picture.size
    radius = max(round(min(width, height) * chance.uniform(0.06, 0.1)), 2)
    centre = round(width * chance.uniform(0.2, 0.8)), round(height * chance.uniform(0.25, 0.5))
    halo = ImageChops.invert(Image.radial_gradient("L")).resize((radius * 8, radius * 8))
    halo = halo.point([round(200 * (max(value - HALO_EDGE, 0) / (255 - HALO_EDGE)) ** 2) for value in range(256)])
    picture.paste(_mix(glow, (255, 255, 255), 0.6), (centre[0] - radius * 4, centre[1] - radius * 4), halo)
    disc = Image.radial_gradient("L").resize((radius * 2, radius * 2)).point([255] * 176 + [0] * 80)
    picture.paste(_mix(glow, (255, 255, 255), 0.85), (centre[0] - radius, centre[1] - radius), disc)


@functools.lru_cache(maxsize=32)
def _font(size: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    for name in FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def _labelled(picture: Image, sketch: Sketch) -> Image:
    from PIL import Image, ImageDraw

    width, height = picture.size
    size = max(14, min(width, height) // 26)
    note_size = max(11, size * 2 // 3)
    edge = size
    lines = _wrapped(sketch.prompt, _font(size), width - 4 * edge)
    note = f"{NOTICE}  |  {sketch.model}  |  seed {sketch.seed}  |  {width}x{height}"
    notes = _wrapped(note, _font(note_size), width - 4 * edge)
    panel_height = round(len(lines) * size * 1.35 + len(notes) * note_size * 1.5 + 2 * edge)
    top = height - panel_height - edge
    layer = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    pen = ImageDraw.Draw(layer)
    pen.rounded_rectangle((edge, top, width - edge, height - edge), radius=edge, fill=(12, 14, 20, 168))
    line_top = top + edge
    for line in lines:
        pen.text((2 * edge, line_top), line, font=_font(size), fill=(255, 255, 255, 255))
        line_top += round(size * 1.35)
    for note in notes:
        pen.text((2 * edge, line_top + note_size // 3), note, font=_font(note_size), fill=(255, 214, 140, 255))
        line_top += round(note_size * 1.5)
    return Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB")


def _wrapped(text: str, font: FreeTypeFont | ImageFont, width: float) -> list[str]:
    lines: list[str] = [""]
    for word in " ".join(text.split()).split(" "):
        for piece in _pieces(word, font, width):
            joined = f"{lines[-1]} {piece}".strip()
            if font.getlength(joined) <= width or not lines[-1]:
                lines[-1] = joined
            else:
                lines.append(piece)
        if len(lines) > MAX_LINES:
            return [*lines[: MAX_LINES - 1], lines[MAX_LINES - 1] + " ..."]
    return lines


def _pieces(word: str, font: FreeTypeFont | ImageFont, width: float) -> list[str]:
    if font.getlength(word[:2000]) <= width:
        return [word]
    length = max(int(len(word) * width / font.getlength(word)), 1)
    return [word[start : start + length] for start in range(0, min(len(word), length * (MAX_LINES + 1)), length)]
