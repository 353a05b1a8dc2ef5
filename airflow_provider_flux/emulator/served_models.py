"""The FLUX models on sale: names, schemas, usual run times and list prices."""

from __future__ import annotations

import functools
import hashlib
import math
import random
from dataclasses import dataclass
from typing import Any

from airflow_provider_flux.protocol.catalogue import OWNER, input_schema

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
BFL_MODELS: dict[str, Model] = {model.name: model for model in _MODELS}
_VERSIONS: dict[str, Model] = {model.version_id: model for model in _MODELS}


def by_version(version: str) -> Model | None:
    """Find the model that a ``version`` names: ``owner/name``, ``owner/name:hex`` or the bare ``hex``."""
    name, _, digest = version.partition(":")
    model = MODELS.get(name) or _VERSIONS.get(name)
    if model is not None and digest and digest != model.version_id:
        return None
    return model
