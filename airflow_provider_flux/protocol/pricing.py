"""What a prediction costs, as far as that is known.

No answer of a gateway states a price, so a cost is always computed from a list. Where there is no figure, or where the
parts it depends on are not known, the result is None: a budget must not be kept on a guess.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeGuard

from airflow_provider_flux.protocol.catalogue import OWNER, input_schema
from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.picture_inputs import is_picture, values_of
from airflow_provider_flux.protocol.prediction import Prediction

MEGAPIXEL = 1024 * 1024

_PICTURE_FIELDS = ("image", "image_prompt", "input_image", "input_images")


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


Prices = Mapping[str, Price]
"""Prices by the model's full name."""

LIST_PRICES: Mapping[str, Prices] = {
    "replicate": {
        # workflowlab.dev, checked on 2026-05-11; cinemasetfree.com says the same
        f"{OWNER}/flux-schnell": Price(per_picture=0.003),
        f"{OWNER}/flux-dev": Price(per_picture=0.025),
        # lumenfall.ai with Replicate as the provider; BFL's own price page agrees
        f"{OWNER}/flux-1.1-pro": Price(per_picture=0.04),
        f"{OWNER}/flux-1.1-pro-ultra": Price(per_picture=0.06),
        # lumenfall.ai, from 2025-12-30
        f"{OWNER}/flux-kontext-max": Price(per_picture=0.08),
        # lumenfall.ai
        f"{OWNER}/flux-2-flex": Price(per_input_megapixel=0.06, per_output_megapixel=0.06),
    },
}
"""Prices by the gateway's name, as collected in November 2026 from pages that quote the gateways. Left out are figures
that contradict each other (flux-pro) or are not Replicate's own (kontext-pro, 2-pro, 2-max, 2-dev). DeerAPI publishes
none, and CometAPI's change often: see :func:`read_price_list`."""


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


def price_of(gateway: str, model: str, own: Prices | None = None) -> Price | None:
    """Return what a model costs at a gateway, or None if that is not known.

    :param gateway: the name of its preset, such as ``replicate``.
    :param model: the model that is asked for, ``owner/name``.
    :param own: prices that go before the table's.
    """
    return (own or {}).get(model) or LIST_PRICES.get(gateway, {}).get(model)


def estimate(price: Price | None, model: str, input: Mapping[str, JSON]) -> float | None:
    """Return what a prediction will cost in USD if it makes all the pictures asked for; None if that is not known.

    :param model: the model that is asked for, ``owner/name``.
    :param input: what would be sent.
    """
    pictures = _asked_pictures(model, input)
    return None if pictures is None else _add_up(price, input, [_asked_megapixels(model, input)] * pictures)


def cost(
    price: Price | None,
    model: str,
    input: Mapping[str, JSON],
    prediction: Prediction,
    *,
    sizes: Sequence[tuple[int, int]] = (),
) -> float | None:
    """Return what a prediction that succeeded has cost in USD; None if that is not known.

    What a failed one costs is stated nowhere but for BFL, which takes nothing for refused content.

    :param model: the model that was asked for; the answer may name an internal alias.
    :param input: what was sent.
    :param prediction: as the gateway last described it. Where its metrics count no pictures, its outputs are counted.
    :param sizes: width and height of the pictures in pixels, where they have been stored; else what was asked for.
    """
    counted = prediction.metrics.get("image_count")
    pictures = counted if _is_count(counted) else len(prediction.outputs)
    if len(sizes) == pictures:
        return _add_up(price, input, [_megapixels(width, height) for width, height in sizes])
    return _add_up(price, input, [_asked_megapixels(model, input)] * pictures)


def _add_up(price: Price | None, input: Mapping[str, JSON], areas: Sequence[int | None]) -> float | None:
    """Add up a price.

    :param areas: the megapixels of each picture, None where they are not known.
    """
    if price is None:
        return None
    given = _input_megapixels(input) if price.per_input_megapixel else 0
    if given is None:
        return None
    known = [area for area in areas if area is not None]
    if price.per_output_megapixel and len(known) < len(areas):
        return None
    pictures = price.per_picture * len(areas) + price.per_output_megapixel * sum(known)
    return round(price.per_prediction + price.per_input_megapixel * given + pictures, 6)


def _input_megapixels(input: Mapping[str, JSON]) -> int | None:
    """Add up the pictures in an input; None if one is a URL, of which nobody here knows the size."""
    pictures = [value for _, value in values_of({field: input.get(field) for field in _PICTURE_FIELDS}) if value]
    if not all(map(is_picture, pictures)):
        return None
    return sum(_megapixels(picture["width"], picture["height"]) for picture in pictures)


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
    if schema is None or "resolution" not in schema["properties"]:
        return None
    if input.get("aspect_ratio") == "custom":
        width, height = input.get("width"), input.get("height")
        return _megapixels(width, height) if _is_count(width) and _is_count(height) else None
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
