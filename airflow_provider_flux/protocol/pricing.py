"""What a prediction costs, as far as that is known.

Only BFL tells what a prediction costs; elsewhere a cost is computed from a list. What a gateway asks that publishes no
price is known to be at most what the list says of the same model elsewhere, and what depends on a size that nobody
knows is at most what the largest costs. Where not even that is known the result is None: a budget must not be kept on a
guess.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TypeGuard

from airflow_provider_flux.protocol.catalogue import input_schema, picture_fields
from airflow_provider_flux.protocol.dialects import unversioned
from airflow_provider_flux.protocol.list_prices import (
    LARGEST_INPUT,
    LARGEST_OUTPUT,
    LIST_PRICES,
    Price,
    Quote,
    ceiling,
)
from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.picture_inputs import is_picture, values_of
from airflow_provider_flux.protocol.prediction import Prediction

MEGAPIXEL = 1024 * 1024

CREDIT_USD = 0.01
"""What a credit is worth in which BFL tells a cost (BFL's skills repository)."""

_PICTURE_FIELDS = frozenset(("image", "image_prompt", "input_image", "input_images"))
"""What the fields of pictures are called, where the model is not in the catalogue."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a prediction costs, or has cost.

    :param is_at_most: whether no more is known than that it is no more.
    :param source: who says so, and when they did.
    """

    usd: float
    is_at_most: bool = False
    source: str = field(default="", compare=False)


Prices = Mapping[str, Price]
"""Prices by the model's full name."""


def read_prices(prices: JSON) -> Prices:
    """Read a person's own prices, such as ``prices`` in a connection's extra.

    :param prices: the USD for a picture by the model's full name, or the parts of :class:`Price` by name::

        {"black-forest-labs/flux-schnell": 0.003, "black-forest-labs/flux-2-flex": {"per_output_megapixel": 0.06}}

    :raises ValueError: saying what cannot be read.
    """
    if not isinstance(prices, Mapping):
        raise ValueError(  # noqa: TRY004 (the wrong type is a wrong value of a form field)
            f"prices must be an object of prices by model, not {prices!r}"
        )
    return {str(model): _read_price(str(model), price) for model, price in prices.items()}


def read_price_list(payload: JSON) -> Prices:
    """Read CometAPI's public list, the answer of ``GET /api/models`` (its models page).

    Only what is asked per request in USD is read: the list's other prices are for tokens and seconds. A zero there is
    taken to mean that there is no such price.

    :raises ValueError: if it does not have the documented shape.
    """
    entries = payload.get("data") if isinstance(payload, Mapping) else None
    if not isinstance(entries, list):
        raise ValueError("the price list does not have the documented shape")  # noqa: TRY004 (of a payload)
    prices = {}
    for entry in entries:
        model = entry.get("id") if isinstance(entry, Mapping) else None
        pricing = entry.get("pricing") if isinstance(entry, Mapping) else None
        if isinstance(model, str) and isinstance(pricing, Mapping) and pricing.get("currency") == "USD":
            price = pricing.get("per_request")
            if _is_amount(price) and price > 0:
                prices[model] = Price(per_prediction=price)
    return prices


def price_of(
    gateway: str, model: str, own: Prices | None = None, listed: Mapping[str, Quote] | None = None
) -> Quote | None:
    """Return what a model costs at a gateway, or None if nothing is known of it.

    :param gateway: the name of its preset, such as ``replicate``.
    :param model: the model that is asked for.
    :param own: prices of a person's own, which go before all others.
    :param listed: prices that the gateway itself has told.
    """
    name = unversioned(model)
    mine = (own or {}).get(model) or (own or {}).get(name)
    if mine is not None:
        return Quote(mine, "the connection's prices")
    return (listed or {}).get(name) or LIST_PRICES.get(gateway, {}).get(name) or ceiling(name)


def estimate(quote: Quote | None, model: str, input: Mapping[str, JSON]) -> Cost | None:
    """Return what a prediction will cost if it makes all the pictures asked for; None if that is not known.

    :param model: the model that is asked for.
    :param input: what would be sent.
    """
    pictures = _asked_pictures(model, input)
    return None if pictures is None else _add_up(quote, model, input, [_asked_megapixels(model, input)] * pictures)


def cost(
    quote: Quote | None,
    model: str,
    input: Mapping[str, JSON],
    prediction: Prediction,
    *,
    sizes: Sequence[tuple[int, int]] = (),
) -> Cost | None:
    """Return what a prediction that succeeded has cost; None if that is not known.

    What a failed one costs is stated nowhere but for BFL, which takes nothing for refused content.

    :param model: the model that was asked for; the answer may name an internal alias.
    :param input: what was sent.
    :param prediction: as the gateway last described it. Where its metrics count no pictures, its outputs are counted.
    :param sizes: width and height of the pictures in pixels, where they have been stored; else what was asked for.
    """
    counted = prediction.metrics.get("image_count")
    pictures = counted if _is_count(counted) else len(prediction.outputs)
    if len(sizes) == pictures:
        return _add_up(quote, model, input, [_megapixels(width, height) for width, height in sizes])
    return _add_up(quote, model, input, [_asked_megapixels(model, input)] * pictures)


def told_cost(prediction: Prediction) -> Cost | None:
    """Return what a gateway itself says that a prediction costs; None if it does not (BFL only)."""
    told = prediction.metrics.get("cost")
    return Cost(round(told * CREDIT_USD, 6), source="the gateway's own answer") if _is_amount(told) else None


def _add_up(quote: Quote | None, model: str, input: Mapping[str, JSON], areas: Sequence[int | None]) -> Cost | None:
    """Add up a price.

    :param areas: the megapixels of each picture, None where they are not known.
    """
    if quote is None:
        return None
    price, is_at_most = quote.price, quote.is_ceiling
    given = _input_megapixels(model, input) if price.per_input_megapixel else 0
    known = [area for area in areas if area is not None]
    if given is None or (price.per_output_megapixel and len(known) < len(areas)):
        if not _is_priced_by_size(model):
            return None
        given = LARGEST_INPUT if given is None else given
        known = [LARGEST_OUTPUT if area is None else area for area in areas]
        is_at_most = True
    pictures = price.per_picture * len(areas) + price.per_output_megapixel * sum(known)
    usd = round(price.per_prediction + price.per_input_megapixel * given + pictures, 6)
    return Cost(usd, is_at_most, quote.told)


def _input_megapixels(model: str, input: Mapping[str, JSON]) -> int | None:
    """Add up the pictures in an input; None if one is a URL, of which nobody here knows the size."""
    fields = picture_fields(model) or _PICTURE_FIELDS
    given = [(where.partition(".")[0], value) for where, value in values_of(input) if value]
    pictures = [value for name, value in given if name in fields or is_picture(value)]
    if not all(map(is_picture, pictures)):
        return None
    return sum(_megapixels(picture["width"], picture["height"]) for picture in pictures)


def _is_priced_by_size(model: str) -> bool:
    """Tell whether a model is one of those of FLUX.2, of which it is known how large their pictures can be."""
    return unversioned(model).rpartition("/")[2].startswith("flux-2-") and input_schema(model) is not None


def _asked_pictures(model: str, input: Mapping[str, JSON]) -> int | None:
    schema = input_schema(model)
    field = {"default": 1} if schema is None else schema["properties"].get("num_outputs")
    if field is None:
        return 1
    asked = input.get("num_outputs", field["default"])
    return asked if _is_count(asked) else None


def _asked_megapixels(model: str, input: Mapping[str, JSON]) -> int | None:
    """Read the size of a picture from the fields of the FLUX.2 models; None for others, or if it follows an input."""
    schema = input_schema(model)
    if schema is None or not _is_priced_by_size(model):
        return None
    ratio = input.get("aspect_ratio")
    if ratio == "custom" or "aspect_ratio" not in schema["properties"]:
        width, height = input.get("width"), input.get("height")
        return _megapixels(width, height) if _is_count(width) and _is_count(height) and width * height else None
    if "resolution" not in schema["properties"]:
        # Without a size of its own, flux-2-dev makes pictures of one megapixel.
        return None if ratio == "match_input_image" else 1
    match = re.fullmatch(r"(\d+(?:\.\d+)?) MP", str(input.get("resolution", "1 MP")))
    return math.ceil(float(match[1])) if match else None


def _megapixels(width: int, height: int) -> int:
    return math.ceil(width * height / MEGAPIXEL)


def _read_price(model: str, price: JSON) -> Price:
    known = [field.name for field in fields(Price)]
    if _is_amount(price):
        return Price(per_picture=price)
    if isinstance(price, Mapping) and price and all(name in known and _is_amount(price[name]) for name in price):
        return Price(**price)
    raise ValueError(
        f"the price of {model} must be the USD for a picture, or an object with some of {', '.join(known)}; "
        f"not {price!r}"
    )


def _is_amount(value: JSON) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


def _is_count(value: JSON) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
