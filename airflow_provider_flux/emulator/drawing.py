"""Draws the pictures: a made-up landscape with the prompt on it, of the size that the FLUX models choose."""

from __future__ import annotations

import colorsys
import functools
import io
import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from airflow_provider_flux.emulator.file_storage import InputPicture

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

NOTICE = "LOCAL STAND-IN - no model drew this"
HILLS = 5
HALO_EDGE = 76  # brightness of the inverted radial gradient at the middle of its sides
FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf")
LABEL_FROM_WIDTH = 200  # narrower pictures carry no text
MAX_LINES = 6
MEGAPIXEL = 1024 * 1024
SMALL_SIDE = 96
SMALLEST = 64
LARGEST = 2048
ULTRA_LARGEST = 3136
# What the models make at one megapixel (replicate/cog-flux predict.py); other ratios are computed.
_WIDE = {"16:9": (1344, 768), "21:9": (1536, 640), "3:2": (1216, 832), "5:4": (1088, 896), "4:3": (1152, 896)}
_TALL = {":".join(reversed(ratio.split(":"))): (height, width) for ratio, (width, height) in _WIDE.items()}
_AT_ONE_MEGAPIXEL = {"1:1": (1024, 1024), **_WIDE, **_TALL}
_RATIO = re.compile(r"^(\d{1,3}):(\d{1,3})$")
_ULTRA = "flux-1.1-pro-ultra"
_WRITERS: dict[str, tuple[str, dict[str, Any]]] = {
    "webp": ("WEBP", {"method": 2}),
    "jpg": ("JPEG", {"optimize": False}),
    "png": ("PNG", {"compress_level": 3}),
}


class PillowMissing(RuntimeError):
    """Pillow is not installed."""


def require_pillow() -> ModuleType:
    """Return ``PIL.Image``.

    :raises PillowMissing: when Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise PillowMissing("drawing pictures needs Pillow: pip install 'airflow-provider-flux[emulator]'") from error
    return Image


@dataclass(frozen=True)
class Sketch:
    """What to draw.

    :param given: the input, for the size.
    :param file_format: ``webp``, ``jpg`` or ``png``.
    :param quality: compression quality, 0 to 100.
    :param pictures: the pictures in the input, drawn into it.
    :param black: draw nothing, as for moderated content.
    """

    model: str
    prompt: str
    given: Mapping[str, Any]
    seed: int
    file_format: str
    quality: int = 80
    black: bool = False
    thumbnail: bool = False
    pictures: tuple[InputPicture, ...] = ()


def draw(sketch: Sketch) -> bytes:
    """Draw a picture and return the file's bytes."""
    image_module = require_pillow()
    ratio = next((picture.ratio for picture in sketch.pictures), None)
    size = picture_size(sketch.model, sketch.given, ratio)
    size = small(size) if sketch.thumbnail else size
    if sketch.black:
        picture: Image = image_module.new("RGB", size)
    else:
        picture = _landscape(size, random.Random(f"{sketch.model}:{sketch.seed}:{sketch.prompt}"))
        _add_input_pictures(picture, [each.preview for each in sketch.pictures if each.preview])
        if size[0] >= LABEL_FROM_WIDTH:
            picture = _labelled(picture, sketch)
    kind, options = _WRITERS[sketch.file_format]
    if kind != "PNG":
        options = {**options, "quality": sketch.quality}
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


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
        most = height * 0.075 * (1.2 - 0.6 * share)
        waves = [(most / order, order * chance.uniform(0.7, 1.6), chance.uniform(0, math.tau)) for order in range(1, 5)]
        line = [
            (x, base + sum(tall * math.sin(math.tau * often * (x / width) + shift) for tall, often, shift in waves))
            for x in range(0, width + 8, 8)
        ]
        pen.polygon([*line, (width + 8, height), (0, height)], fill=_mix(glow, near, 0.25 + 0.75 * share))
    return picture


def _add_input_pictures(picture: Image, previews: list[bytes]) -> None:
    """Set the pictures of the input into the upper part, side by side and in a frame."""
    from PIL import Image, ImageOps

    width, height = picture.size
    for place, preview in enumerate(previews):
        with Image.open(io.BytesIO(preview)) as opened:
            room = max(width * 9 // 10 // len(previews), 8), max(height * 6 // 10, 8)
            framed = ImageOps.expand(ImageOps.contain(opened.convert("RGB"), room), max(1, width // 160), "white")
        left = width * (2 * place + 1) // (2 * len(previews)) - framed.width // 2
        picture.paste(framed, (left, max(height // 20, 1)))


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


def _rounded(value: float, step: int, largest: int) -> int:
    return min(max(round(value / step) * step, SMALLEST), largest)


def _megapixels(model: str, given: Mapping[str, Any]) -> float:
    if model == _ULTRA:
        return 4.0
    text = str(given.get("resolution", given.get("megapixels", "1"))).removesuffix(" MP")
    try:
        return min(max(float(text), 0.25), 4.0)
    except ValueError:
        return 1.0


def _base(ratio: str, image_ratio: float | None, step: int) -> tuple[float, float]:
    if ratio in _AT_ONE_MEGAPIXEL:
        return _AT_ONE_MEGAPIXEL[ratio]
    value = image_ratio or 1.0
    if match := _RATIO.match(ratio):
        value = max(int(match[1]), 1) / max(int(match[2]), 1)
    value = min(max(value, 0.25), 4.0)
    width = math.sqrt(MEGAPIXEL * value)
    return _rounded(width, step, LARGEST), _rounded(width / value, step, LARGEST)


def picture_size(model: str, given: Mapping[str, Any], image_ratio: float | None = None) -> tuple[int, int]:
    """Return width and height for an input.

    :param image_ratio: width by height of the input picture, for ``match_input_image``.
    """
    step = 16 if model.startswith("flux-2-") else 32
    largest = ULTRA_LARGEST if model == _ULTRA else LARGEST
    width, height = given.get("width"), given.get("height")
    ratio = str(given.get("aspect_ratio", "match_input_image" if "kontext" in model else "1:1"))
    free = ratio == "custom" or "aspect_ratio" not in given
    if free and isinstance(width, int) and isinstance(height, int):
        return _rounded(width, step, largest), _rounded(height, step, largest)
    base_width, base_height = _base(ratio, image_ratio, step)
    scale = math.sqrt(_megapixels(model, given))
    scale = min(scale, largest / base_width, largest / base_height)
    return _rounded(base_width * scale, step, largest), _rounded(base_height * scale, step, largest)


def small(size: tuple[int, int]) -> tuple[int, int]:
    """Shrink a size to a thumbnail of the same proportions."""
    scale = SMALL_SIDE / max(size)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)
