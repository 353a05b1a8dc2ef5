from __future__ import annotations

import subprocess
import sys

import pytest
import requests

from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.protocol.catalogue import BFL_MODELS, MODELS
from airflow_provider_flux.protocol.dialects import dialect_of
from airflow_provider_flux.protocol.list_prices import LIST_PRICES, Price, Quote
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus
from airflow_provider_flux.protocol.presets import PRESETS
from airflow_provider_flux.protocol.pricing import (
    Cost,
    cost,
    estimate,
    price_of,
    read_price_list,
    read_prices,
    told_cost,
)

SCHNELL = "black-forest-labs/flux-schnell"
FLEX = "black-forest-labs/flux-2-flex"
PROMPT = {"prompt": "a boat"}


def succeeded(*outputs: str, **metrics: object) -> Prediction:
    return Prediction(id="abc", status=PredictionStatus.SUCCEEDED, outputs=outputs, metrics=metrics)


def flat(usd: float) -> Quote:
    return Quote(Price(per_picture=usd), "a test")


def test_the_table_knows_only_gateways_and_models_that_exist():
    assert set(LIST_PRICES) <= set(PRESETS)
    assert set(LIST_PRICES["replicate"]) == set(MODELS)
    assert set(LIST_PRICES["bfl"]) == set(BFL_MODELS)


CELLS = [
    (gateway, model)
    for gateway, preset in PRESETS.items()
    for model in (*MODELS, *BFL_MODELS)
    if dialect_of(model) in preset.dialects
]


@pytest.mark.parametrize(("gateway", "model"), CELLS)
def test_every_model_that_a_gateway_sells_has_a_price_with_source_and_date(gateway, model):
    """A budget can be kept in every cell: the list price at Replicate and BFL, and at most that elsewhere."""
    quote = price_of(gateway, model)
    assert quote is not None
    assert quote.source
    assert quote.as_of
    assert quote.is_ceiling or gateway in ("replicate", "bfl")
    known = estimate(quote, model, PROMPT)
    assert known is not None
    assert 0 < known.usd < 1
    assert known.is_at_most or not quote.is_ceiling
    assert cost(quote, model, PROMPT, succeeded("https://x/1.png")) is not None


@pytest.mark.parametrize(
    ("gateway", "model"),
    [("deerapi", "somebody/else"), ("replicate", "0" * 64), ("replicate", "deployments/a/b"), ("bfl", "flux-9")],
)
def test_where_no_price_is_known_nothing_is_made_up(gateway, model):
    quote = price_of(gateway, model)
    assert quote is None
    assert estimate(quote, model, PROMPT) is None
    assert cost(quote, model, PROMPT, succeeded("https://x/1.png")) is None


@pytest.mark.parametrize(
    ("model", "usd", "at_most"),
    [
        ("flux-schnell", 0.003, False),
        ("flux-dev", 0.025, False),
        ("flux-pro", 0.055, True),
        ("flux-1.1-pro", 0.04, False),
        ("flux-1.1-pro-ultra", 0.06, False),
        ("flux-kontext-pro", 0.04, True),
        ("flux-kontext-max", 0.08, False),
        ("flux-2-flex", 0.06, False),
        ("flux-2-pro", 0.03, True),
        ("flux-2-max", 0.07, True),
        ("flux-2-dev", 0.012, True),
    ],
)
def test_a_picture_at_replicate_costs_what_the_list_says(model, usd, at_most):
    name = f"black-forest-labs/{model}"
    for asked in (name, f"{name}:{'0' * 64}"):
        assert estimate(price_of("replicate", asked), asked, PROMPT) == Cost(usd, at_most)
        assert cost(price_of("replicate", asked), asked, PROMPT, succeeded("https://x/1.png")) == Cost(usd, at_most)


@pytest.mark.parametrize(
    ("model", "usd"),
    [
        (SCHNELL, 0.003),
        ("black-forest-labs/flux-1.1-pro", 0.04),
        # CometAPI asks 0.192 or 0.24 a request for it, whatever the size: the price of four megapixels at Replicate.
        (FLEX, 0.24),
        ("black-forest-labs/flux-2-pro", 0.075),
        ("flux-2-max", 0.16),
        ("flux-pro-1.1", 0.04),
    ],
)
@pytest.mark.parametrize("gateway", ["deerapi", "cometapi", "custom"])
def test_a_gateway_without_a_price_of_its_own_asks_no_more_than_the_list_says_for_the_largest_picture(
    gateway, model, usd
):
    assert estimate(price_of(gateway, model), model, PROMPT) == Cost(usd, is_at_most=True)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # BFL's own example: 4.5 credits for 1.98 megapixels.
        ({"width": 1920, "height": 1080}, Cost(0.045)),
        ({"width": 1024, "height": 1024}, Cost(0.03)),
        ({"width": 0, "height": 0}, Cost(0.075, is_at_most=True)),
        ({}, Cost(0.075, is_at_most=True)),
        ({"width": 1024, "height": 1024, "input_image_2": "https://x/1.png"}, Cost(0.165, is_at_most=True)),
    ],
)
def test_the_first_megapixel_at_bfl_costs_more_than_the_others(given, expected):
    assert estimate(price_of("bfl", "flux-2-pro"), "flux-2-pro", {**PROMPT, **given}) == expected


def test_what_bfl_itself_says_is_what_it_costs():
    assert told_cost(succeeded("https://x/1.png", cost=4.5)) == Cost(0.045)
    assert told_cost(succeeded("https://x/1.png", cost=0)) == Cost(0.0)
    for odd in ({}, {"cost": None}, {"cost": "4.5"}, {"cost": -1}, {"cost": True}):
        assert told_cost(succeeded("https://x/1.png", **odd)) is None


def test_every_picture_asked_for_is_in_the_estimate():
    price = price_of("replicate", SCHNELL)
    assert estimate(price, SCHNELL, {**PROMPT, "num_outputs": 4}) == Cost(0.012)
    assert estimate(price, SCHNELL, {**PROMPT, "num_outputs": "four"}) is None
    # A model that makes one picture ignores the field.
    assert estimate(flat(0.04), "black-forest-labs/flux-1.1-pro", {**PROMPT, "num_outputs": 4}) == Cost(0.04)
    assert estimate(flat(0.04), "somebody/else", {**PROMPT, "num_outputs": 4}) == Cost(0.16)


def test_the_cost_counts_the_pictures_that_were_made():
    price = price_of("replicate", SCHNELL)
    asked = {**PROMPT, "num_outputs": 4}
    assert cost(price, SCHNELL, asked, succeeded("https://x/1", "https://x/2", "https://x/3")) == Cost(0.009)
    assert cost(price, SCHNELL, asked, succeeded("https://x/1", "https://x/2", image_count=4)) == Cost(0.012)
    assert cost(price, SCHNELL, asked, succeeded("https://x/1", image_count="many")) == Cost(0.003)
    assert cost(price, SCHNELL, asked, succeeded("https://x/1", image_count=True)) == Cost(0.003)


@pytest.mark.parametrize(
    ("given", "megapixels"),
    [
        ({}, 1),
        ({"resolution": "0.5 MP"}, 1),
        ({"resolution": "2 MP"}, 2),
        ({"resolution": "4 MP", "aspect_ratio": "16:9"}, 4),
        ({"aspect_ratio": "custom", "width": 1024, "height": 1024}, 1),
        ({"aspect_ratio": "custom", "width": 1040, "height": 1024}, 2),
        ({"aspect_ratio": "custom", "width": 1024}, None),
        ({"resolution": "match_input_image"}, None),
        ({"resolution": "many MP"}, None),
    ],
)
def test_a_price_by_area_follows_the_size_asked_for_and_is_at_most_that_of_the_largest(given, megapixels):
    quote = Quote(Price(per_output_megapixel=0.06), "a test")
    expected = Cost(0.24, is_at_most=True) if megapixels is None else Cost(round(0.06 * megapixels, 6))
    assert estimate(quote, FLEX, {**PROMPT, **given}) == expected
    assert estimate(quote, SCHNELL, {**PROMPT, **given}) is None


def test_a_price_by_area_follows_the_pictures_sizes_once_they_are_known():
    price = price_of("replicate", FLEX)
    done = succeeded("https://x/1.png")
    unknown = {**PROMPT, "resolution": "match_input_image"}
    assert cost(price, FLEX, unknown, done) == Cost(0.24, is_at_most=True)
    assert cost(price, FLEX, unknown, done, sizes=[(2048, 2048)]) == Cost(0.24)
    assert cost(price, FLEX, PROMPT, done, sizes=[(1344, 768)]) == Cost(0.06)
    assert cost(price, FLEX, PROMPT, succeeded("https://x/1", "https://x/2"), sizes=[(2048, 2048)]) == Cost(0.12)
    assert estimate(price, SCHNELL, PROMPT) is None


def test_pictures_of_unknown_size_that_are_put_in_cost_at_most_what_the_largest_do():
    price = price_of("replicate", FLEX)
    given = {**PROMPT, "input_images": ["https://x/in.png"]}
    assert estimate(price, FLEX, given) == Cost(0.6, is_at_most=True)
    done = succeeded("https://x/1.png")
    assert cost(price, FLEX, given, done, sizes=[(1024, 1024)]) == Cost(0.6, is_at_most=True)
    read = {"path": "/a.png", "sha256": "0" * 64, "width": 1024, "height": 1024}
    assert estimate(price, FLEX, {**PROMPT, "input_images": [read]}) == Cost(0.12)
    assert estimate(price, FLEX, {**PROMPT, "input_images": []}) == Cost(0.06)


def test_the_parts_of_a_price_add_up():
    quote = Quote(Price(per_prediction=0.1, per_picture=0.01), "a test")
    assert estimate(quote, SCHNELL, {**PROMPT, "num_outputs": 3}) == Cost(0.13)


def test_a_persons_own_prices_go_first_and_then_those_that_the_gateway_lists():
    own = read_prices({SCHNELL: 0.004, FLEX: {"per_prediction": 0.192}, "somebody/else": 0})
    listed = {SCHNELL: flat(0.002), "black-forest-labs/flux-dev": flat(0.03)}

    def usd(gateway: str, model: str) -> Cost | None:
        return estimate(price_of(gateway, model, own, listed), model, PROMPT)

    assert usd("replicate", SCHNELL) == Cost(0.004)
    assert usd("cometapi", f"{FLEX}:{'0' * 64}") == Cost(0.192)
    assert usd("custom", "somebody/else") == Cost(0)
    assert usd("cometapi", "black-forest-labs/flux-dev") == Cost(0.03)
    assert usd("replicate", "black-forest-labs/flux-1.1-pro") == Cost(0.04)


@pytest.mark.parametrize(
    "prices",
    [
        [0.003],
        "0.003",
        {SCHNELL: "0.003"},
        {SCHNELL: -1},
        {SCHNELL: True},
        {SCHNELL: float("nan")},
        {SCHNELL: float("inf")},
        {SCHNELL: {}},
        {SCHNELL: {"per_second": 1}},
        {SCHNELL: {"per_picture": "1"}},
        {SCHNELL: None},
    ],
)
def test_prices_that_cannot_be_read_are_refused(prices):
    with pytest.raises(ValueError, match="price"):
        read_prices(prices)


def test_cometapis_public_list_is_read_without_a_key():
    with Emulator() as emulator:
        prices = read_price_list(requests.get(f"{emulator.url}/api/models", timeout=20).json())
    assert prices[SCHNELL] == Price(per_prediction=0.003)
    assert "black-forest-labs/flux-2-dev" not in prices


def test_only_usd_per_request_is_taken_from_the_list():
    def entry(model, **pricing):
        return {"id": model, "pricing": {"currency": "USD", "per_request": 0.1, **pricing}}

    entries = [
        entry("a/good"),
        entry("a/euro", currency="EUR"),
        entry("a/free", per_request=0),
        entry("a/tokens", per_request=None, input=2),
        entry("a/text", per_request="0.1"),
        {"id": "a/bare"},
        {"pricing": {}},
        "a/text",
    ]
    assert read_price_list({"success": True, "data": entries}) == {"a/good": Price(per_prediction=0.1)}


@pytest.mark.parametrize("payload", [None, [], {}, {"data": {}}, "<html>"])
def test_a_list_of_another_shape_is_refused(payload):
    with pytest.raises(ValueError, match="documented shape"):
        read_price_list(payload)


def test_pricing_imports_no_airflow_and_no_http_library():
    probe = """
import sys
import airflow_provider_flux.protocol.pricing
heavy = {"airflow", "requests", "aiohttp", "urllib3", "jsonschema"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"
