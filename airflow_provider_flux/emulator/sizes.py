"""Picture sizes in pixels, as the FLUX models choose them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

MEGAPIXEL = 1024 * 1024
SMALL_SIDE = 96
SMALLEST = 64
LARGEST = 2048
ULTRA_LARGEST = 3136
# What the models make at one megapixel (replicate/cog-flux predict.py); other ratios are computed.
_AT_ONE_MEGAPIXEL = {
    "1:1": (1024, 1024),
    "16:9": (1344, 768),
    "21:9": (1536, 640),
    "3:2": (1216, 832),
    "2:3": (832, 1216),
    "4:5": (896, 1088),
    "5:4": (1088, 896),
    "3:4": (896, 1152),
    "4:3": (1152, 896),
    "9:16": (768, 1344),
    "9:21": (640, 1536),
}
_RATIO = re.compile(r"^(\d{1,3}):(\d{1,3})$")
_ULTRA = "flux-1.1-pro-ultra"


def _step(model: str) -> int:
    return 16 if model.startswith("flux-2-") else 32


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

    :param model: the model's name without its owner.
    :param given: the input.
    :param image_ratio: width by height of the input picture, for ``match_input_image``.
    """
    step = _step(model)
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
    """Shrink a size to a thumbnail of the same proportions.

    :param size: width and height.
    """
    scale = SMALL_SIDE / max(size)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)
