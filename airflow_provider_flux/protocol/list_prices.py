"""What is known in advance of the prices of models, each with its source and date. All are USD.

Left out is what gateways ask that publish nothing (DeerAPI) or change it often (CometAPI, whose own list is read
instead, see :func:`airflow_provider_flux.protocol.pricing.read_price_list`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from airflow_provider_flux.protocol.catalogue import OWNER

LARGEST_OUTPUT = 4
"""Megapixels of a picture of the FLUX.2 models at most (Replicate's schemas; lumenfall.ai)."""

LARGEST_INPUT = 9
"""Megapixels of all pictures in an input of the FLUX.2 models at most (Replicate's readme of flux-2-pro)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a gateway asks for a model. The parts add up; all are USD.

    :param per_prediction: for each prediction, however many pictures it makes.
    :param per_picture: for each picture made.
    :param per_input_megapixel: for each megapixel of the pictures in the input.
    :param per_output_megapixel: for each megapixel of the pictures made. A megapixel is 1024 x 1024 pixels, and each
        picture's count is rounded up (lumenfall.ai on FLUX.2).
    """

    per_prediction: float = 0.0
    per_picture: float = 0.0
    per_input_megapixel: float = 0.0
    per_output_megapixel: float = 0.0


@dataclass(frozen=True, slots=True)
class Quote:
    """A price, and how far it can be relied on.

    :param source: who says so.
    :param as_of: when they did; empty if that is not told.
    :param is_ceiling: whether no more is known than that it costs no more.
    """

    price: Price
    source: str
    as_of: str = ""
    is_ceiling: bool = False

    @property
    def told(self) -> str:
        """Who says so, and when they did."""
        return f"{self.source}, {self.as_of}" if self.as_of else self.source


def _at_most(price: Price, source: str, as_of: str) -> Quote:
    return Quote(price, source, as_of, is_ceiling=True)


_FLUX_2_PRO = Price(per_picture=0.015, per_input_megapixel=0.015, per_output_megapixel=0.015)
_FLUX_2_MAX = Price(per_picture=0.04, per_input_megapixel=0.03, per_output_megapixel=0.03)
_FLUX_2_FLEX = Price(per_input_megapixel=0.06, per_output_megapixel=0.06)
_SKILL = "BFL's skills repository"

AT_REPLICATE: Mapping[str, Quote] = {
    f"{OWNER}/flux-schnell": Quote(Price(per_picture=0.003), "workflowlab.dev, cinemasetfree.com", "2026-05-11"),
    f"{OWNER}/flux-dev": Quote(Price(per_picture=0.025), "workflowlab.dev, cinemasetfree.com", "2026-05-11"),
    # An older page of Replicate's; cinemasetfree.com says 0.050.
    f"{OWNER}/flux-pro": _at_most(Price(per_picture=0.055), "an older page of Replicate's", "undated"),
    f"{OWNER}/flux-1.1-pro": Quote(Price(per_picture=0.04), "lumenfall.ai", "2026-11"),
    f"{OWNER}/flux-1.1-pro-ultra": Quote(Price(per_picture=0.06), "lumenfall.ai", "2026-11"),
    # Replicate's own was not found, nor are those of the next but two.
    f"{OWNER}/flux-kontext-pro": _at_most(Price(per_picture=0.04), "BFL's price page", "2026-11"),
    f"{OWNER}/flux-kontext-max": Quote(Price(per_picture=0.08), "lumenfall.ai", "2025-12-30"),
    f"{OWNER}/flux-2-flex": Quote(_FLUX_2_FLEX, "lumenfall.ai", "2026-11"),
    f"{OWNER}/flux-2-pro": _at_most(_FLUX_2_PRO, _SKILL, "2026-02"),
    f"{OWNER}/flux-2-max": _at_most(_FLUX_2_MAX, _SKILL, "2026-02"),
    # fal.ai's, which is the only list price that was found.
    f"{OWNER}/flux-2-dev": _at_most(
        Price(per_input_megapixel=0.012, per_output_megapixel=0.012), "lumenfall.ai quoting fal.ai", "2026-11"
    ),
}
"""Prices at Replicate by the model's full name, as pages quote them that are not its own."""

AT_BFL: Mapping[str, Quote] = {
    "flux-2-pro": Quote(_FLUX_2_PRO, _SKILL, "2026-02"),
    "flux-2-max": Quote(_FLUX_2_MAX, _SKILL, "2026-02"),
    # 5 cents a megapixel there; 6 are what other pages of 2026 quote.
    "flux-2-flex": _at_most(_FLUX_2_FLEX, "infr.sh quoting bfl.ai/pricing", "2026"),
    "flux-pro-1.1": Quote(Price(per_picture=0.04), "BFL's price page", "2026-11"),
    "flux-pro-1.1-ultra": Quote(Price(per_picture=0.06), "BFL's price page", "2026-11"),
    "flux-kontext-pro": Quote(Price(per_picture=0.04), "BFL's price page", "2026-11"),
    "flux-kontext-max": Quote(Price(per_picture=0.08), "puter.com quoting BFL", "2026-06"),
    "flux-dev": Quote(Price(per_picture=0.025), "openai-hk.com quoting BFL", "2026"),
}
"""Prices at BFL by its short names. What a prediction really costs, its answer to the create tells."""

LIST_PRICES: Mapping[str, Mapping[str, Quote]] = {"replicate": AT_REPLICATE, "bfl": AT_BFL}
"""Prices by the gateway's name."""


def ceiling(model: str) -> Quote | None:
    """Return the most that a gateway asks for a model that publishes no price; None if that is not known.

    It is the list price of Replicate or of BFL for the largest picture. Gateways ask less as a rule, but for one price
    whatever the size: CometAPI's page of flux-2-flex says 0.192 or, in another copy, 0.24 for a request, while
    Replicate asks 0.06 for a megapixel.
    """
    quote = AT_REPLICATE.get(model) or AT_BFL.get(model)
    if quote is None:
        return None
    price = quote.price
    largest = Price(
        per_prediction=price.per_prediction,
        per_picture=round(price.per_picture + LARGEST_OUTPUT * price.per_output_megapixel, 6),
        per_input_megapixel=price.per_input_megapixel,
    )
    where = "Replicate" if model in AT_REPLICATE else "BFL"
    return _at_most(largest, f"the list price at {where}: {quote.source}", quote.as_of)
