"""The FLUX models on sale: names, schemas, usual run times and list prices."""

from __future__ import annotations

import functools
import hashlib
import math
import random
from dataclasses import dataclass
from typing import Any

from airflow_provider_flux.protocol import catalogue
from airflow_provider_flux.protocol.catalogue import OWNER, input_schema
from airflow_provider_flux.protocol.run_times import AT_REPLICATE

Z_95 = 1.645  # standard normal quantile of the 95th percentile


@dataclass(frozen=True)
class Model:
    """One model of the catalogue.

    :param median: the usual run time in seconds.
    :param p95: the run time that 95 of 100 runs stay under.
    :param price: list price of one picture in USD, ``None`` where no figure is published.
    """

    name: str
    median: float
    p95: float
    price: float | None

    @property
    def full_name(self) -> str:
        """The id as the predictions API writes it, ``owner/name``."""
        return f"{OWNER}/{self.name}"

    @property
    def version_id(self) -> str:
        """A 64-digit hexadecimal version id that stays the same between runs."""
        return hashlib.sha256(self.full_name.encode()).hexdigest()

    @functools.cached_property
    def schema(self) -> dict[str, Any]:
        """Its input schema, with the shape of its output under ``$defs.output``."""
        return dict(input_schema(self.full_name) or {})

    @property
    def gives_list(self) -> bool:
        """Whether ``output`` is a list of addresses rather than one address."""
        return bool(self.schema["$defs"]["output"]["type"] == "array")

    @property
    def default_format(self) -> str:
        """The file format the model writes when none is asked for."""
        return str(self.schema["properties"]["output_format"]["default"])

    def draw_run_time(self, chance: random.Random) -> float:
        """Draw a run time around the model's median."""
        sigma = math.log(self.p95 / self.median) / Z_95
        return chance.lognormvariate(math.log(self.median), sigma)


# Medians: predict times in replicate/comfyui-replicate (2024) and lumenfall.ai's 30-day figures for FLUX.2.
# Models without a published figure take their nearest sibling's. Prices: Replicate's per-picture list price
# as quoted by workflowlab.dev and lumenfall.ai; FLUX.2 pro and max at one megapixel as BFL charges them.
_MODELS = (
    Model("flux-schnell", 0.8, 1.2, 0.003),
    Model("flux-dev", 3.2, 4.8, 0.025),
    Model("flux-pro", 14.0, 20.0, 0.055),
    Model("flux-1.1-pro", 8.7, 13.0, 0.04),
    Model("flux-1.1-pro-ultra", 12.0, 18.0, 0.06),
    Model("flux-kontext-pro", 8.7, 13.0, 0.04),
    Model("flux-kontext-max", 9.5, 15.0, 0.08),
    Model("flux-2-pro", 15.5, 33.0, 0.03),
    Model("flux-2-max", 18.0, 36.0, 0.07),
    Model("flux-2-flex", 16.0, 23.0, 0.06),
    Model("flux-2-dev", 7.5, 11.0, None),
)
MODELS: dict[str, Model] = {model.full_name: model for model in _MODELS}
BFL_MODELS: dict[str, Model] = {
    name: MODELS[f"{OWNER}/{AT_REPLICATE.get(name, name)}"] for name in catalogue.BFL_MODELS
}
BY_NAME: dict[str, Model] = {model.name: model for model in _MODELS}
_VERSIONS: dict[str, Model] = {model.version_id: model for model in _MODELS}


# Cents for the first megapixel, for each further one, and for each one that goes in (BFL's skills repository); the
# others ask a price for the picture.
_BFL_CREDITS = {"flux-2-pro": (3.0, 1.5, 1.5), "flux-2-max": (7.0, 3.0, 3.0), "flux-2-flex": (5.0, 5.0, 5.0)}
DEFAULT_SIDE = 1024


def credits_of(name: str, given: dict[str, Any]) -> dict[str, float]:
    """Return what BFL tells of the price of a prediction when it is made; no picture that goes in is measured here."""
    width, height = (given.get(side) or DEFAULT_SIDE for side in ("width", "height"))
    megapixels = width * height / (1024 * 1024)
    pictures = sum(1 for field, value in given.items() if field.startswith("input_image") and value)
    if name not in _BFL_CREDITS:
        price = BFL_MODELS[name].price or 0.0
        return {"cost": round(price * 100, 6), "input_mp": 0.0, "output_mp": round(megapixels, 2)}
    first, further, inside = _BFL_CREDITS[name]
    cost = first + further * (math.ceil(megapixels) - 1) + inside * pictures
    return {"cost": cost, "input_mp": float(pictures), "output_mp": round(megapixels, 2)}


def by_version(version: str) -> Model | None:
    """Find the model that a ``version`` names: ``owner/name``, ``owner/name:hex`` or the bare ``hex``."""
    name, _, digest = version.partition(":")
    model = MODELS.get(name) or _VERSIONS.get(name)
    if model is not None and digest and digest != model.version_id:
        return None
    return model
