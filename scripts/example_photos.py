"""Draws the photos of the example `flux_restyle_photos`: six things on a cluttered shelf, as a shop takes them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

FOLDER = Path(__file__).parent.parent / "example_dags" / "photos"
SIDE = 360
Pen = ImageDraw.ImageDraw


def teapot(pen: Pen) -> None:
    pen.arc((230, 130, 310, 230), 270, 90, fill="#2f6f6b", width=16)
    pen.polygon([(60, 150), (40, 130), (52, 122), (110, 190), (110, 230)], fill="#2f6f6b")
    pen.ellipse((90, 110, 270, 280), fill="#3d8f8a")
    pen.ellipse((130, 95, 230, 135), fill="#2f6f6b")
    pen.ellipse((168, 72, 192, 98), fill="#d9b44a")


def mug(pen: Pen) -> None:
    pen.arc((220, 140, 310, 240), 270, 90, fill="#b5452f", width=18)
    pen.rounded_rectangle((90, 110, 250, 280), 24, fill="#cf5a3f")
    pen.ellipse((90, 95, 250, 130), fill="#7a2b1b")
    pen.rectangle((90, 180, 250, 205), fill="#f1e3c8")


def lamp(pen: Pen) -> None:
    pen.rectangle((172, 170, 188, 285), fill="#6b5a3a")
    pen.ellipse((120, 270, 240, 300), fill="#4a3d26")
    pen.polygon([(120, 60), (240, 60), (280, 180), (80, 180)], fill="#e8c55b")


def vase(pen: Pen) -> None:
    for at, (x, y) in enumerate(((130, 70), (180, 45), (230, 75))):
        pen.line((180, 170, x, y), fill="#3f7a3a", width=6)
        pen.ellipse((x - 24, y - 24, x + 24, y + 24), fill=("#d8577a", "#f0a3b5", "#c43d63")[at])
    pen.ellipse((120, 160, 240, 300), fill="#4b62b3")
    pen.rectangle((155, 140, 205, 190), fill="#4b62b3")


def clock(pen: Pen) -> None:
    pen.ellipse((80, 80, 280, 280), fill="#8c4f9e")
    pen.ellipse((100, 100, 260, 260), fill="#f6f0e4")
    for hour in range(12):
        x, y = 180 + 68 * math.sin(hour * math.tau / 12), 180 - 68 * math.cos(hour * math.tau / 12)
        pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill="#333333")
    pen.line((180, 180, 180, 125), fill="#222222", width=6)
    pen.line((180, 180, 222, 200), fill="#222222", width=6)


def stool(pen: Pen) -> None:
    for left, right in ((110, 90), (250, 270), (180, 180)):
        pen.line((left, 170, right, 300), fill="#7d5a33", width=14)
    pen.ellipse((80, 130, 280, 195), fill="#b98245")
    pen.ellipse((95, 135, 265, 180), fill="#cf9a5b")


THINGS: dict[str, Callable[[Pen], None]] = {
    "teapot": teapot,
    "mug": mug,
    "lamp": lamp,
    "vase": vase,
    "clock": clock,
    "stool": stool,
}


def clutter(chance: random.Random) -> Image.Image:
    """Return a shelf full of things that are out of focus."""
    picture = Image.new("RGB", (SIDE, SIDE), (150 + chance.randrange(40), 140, 125))
    pen = ImageDraw.Draw(picture)
    for _ in range(26):
        x, y, size = chance.randrange(SIDE), chance.randrange(SIDE), chance.randrange(20, 90)
        colour = tuple(chance.randrange(60, 200) for _ in range(3))
        draw = chance.choice((pen.rectangle, pen.ellipse))
        draw((x - size // 2, y - size // 2, x + size // 2, y + size // 2), fill=colour)
    pen.rectangle((0, 285, SIDE, SIDE), fill="#6e5339")
    return picture.filter(ImageFilter.GaussianBlur(7))


def main() -> None:
    """Draw them."""
    FOLDER.mkdir(exist_ok=True)
    for number, (name, draw) in enumerate(THINGS.items()):
        picture = clutter(random.Random(number))  # noqa: S311 (the same photos each time)
        draw(ImageDraw.Draw(picture))
        picture.filter(ImageFilter.GaussianBlur(0.8)).save(FOLDER / f"{name}.jpg", quality=82)


if __name__ == "__main__":
    main()
