from __future__ import annotations

import subprocess
import sys

import pytest
import requests

from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.protocol.catalogue import MODELS
from airflow_provider_flux.protocol.gateways import PRESETS
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus
from airflow_provider_flux.protocol.pricing import (
    LIST_PRICES,
    Price,
    cost,
    estimate,
    price_of,
    read_price_list,
    read_prices,
)

SCHNELL = "black-forest-labs/flux-schnell"
FLEX = "black-forest-labs/flux-2-flex"
PROMPT = {"prompt": "a boat"}


def succeeded(*outputs: str, **metrics: object) -> Prediction:
    return Prediction(id="abc", status=PredictionStatus.SUCCEEDED, outputs=outputs, metrics=metrics)


def test_the_table_knows_only_gateways_and_models_that_exist():
    assert set(LIST_PRICES) <= set(PRESETS)
    for prices in LIST_PRICES.values():
        assert set(prices) <= set(MODELS)


@pytest.mark.parametrize(
    ("gateway", "model"),
    [
        ("deerapi", SCHNELL),
        ("cometapi", SCHNELL),
        ("custom", SCHNELL),
        ("replicate", "black-forest-labs/flux-pro"),
        ("replicate", "black-forest-labs/flux-2-pro"),
        ("replicate", "somebody/else"),
    ],
)
def test_where_no_price_is_known_nothing_is_made_up(gateway, model):
    price = price_of(gateway, model)
    assert price is None
    assert estimate(price, model, PROMPT) is None
    assert cost(price, model, PROMPT, succeeded("https://x/1.png")) is None


@pytest.mark.parametrize(
    ("model", "usd"),
    [
        ("flux-schnell", 0.003),
        ("flux-dev", 0.025),
        ("flux-1.1-pro", 0.04),
        ("flux-1.1-pro-ultra", 0.06),
        ("flux-kontext-max", 0.08),
        ("flux-2-flex", 0.06),
    ],
)
def test_a_picture_at_replicate_costs_what_the_list_says(model, usd):
    name = f"black-forest-labs/{model}"
    assert estimate(price_of("replicate", name), name, PROMPT) == usd
    assert cost(price_of("replicate", name), name, PROMPT, succeeded("https://x/1.png")) == usd


def test_every_picture_asked_for_is_in_the_estimate():
    price = price_of("replicate", SCHNELL)
    assert estimate(price, SCHNELL, {**PROMPT, "num_outputs": 4}) == 0.012
    assert estimate(price, SCHNELL, {**PROMPT, "num_outputs": "four"}) is None
    # A model that makes one picture ignores the field.
    one = Price(per_picture=0.04)
    assert estimate(one, "black-forest-labs/flux-1.1-pro", {**PROMPT, "num_outputs": 4}) == 0.04
    assert estimate(one, "somebody/else", {**PROMPT, "num_outputs": 4}) == 0.16


def test_the_cost_counts_the_pictures_that_were_made():
    price = price_of("replicate", SCHNELL)
    asked = {**PROMPT, "num_outputs": 4}
    assert cost(price, SCHNELL, asked, succeeded("https://x/1", "https://x/2", "https://x/3")) == 0.009
    assert cost(price, SCHNELL, asked, succeeded("https://x/1", "https://x/2", image_count=4)) == 0.012
    assert cost(price, SCHNELL, asked, succeeded("https://x/1", image_count="many")) == 0.003
    assert cost(price, SCHNELL, asked, succeeded("https://x/1", image_count=True)) == 0.003


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
def test_a_price_by_area_follows_the_size_asked_for(given, megapixels):
    price = Price(per_output_megapixel=0.06)
    expected = None if megapixels is None else round(0.06 * megapixels, 6)
    assert estimate(price, FLEX, {**PROMPT, **given}) == expected


def test_a_price_by_area_follows_the_pictures_sizes_once_they_are_known():
    price = price_of("replicate", FLEX)
    done = succeeded("https://x/1.png")
    unknown = {**PROMPT, "resolution": "match_input_image"}
    assert cost(price, FLEX, unknown, done) is None
    assert cost(price, FLEX, unknown, done, sizes=[(2048, 2048)]) == 0.24
    assert cost(price, FLEX, PROMPT, done, sizes=[(1344, 768)]) == 0.06
    assert cost(price, FLEX, PROMPT, succeeded("https://x/1", "https://x/2"), sizes=[(2048, 2048)]) == 0.12
    assert estimate(price, SCHNELL, PROMPT) is None


def test_a_price_by_input_area_is_not_known_when_pictures_are_put_in():
    price = price_of("replicate", FLEX)
    given = {**PROMPT, "input_images": ["https://x/in.png"]}
    assert estimate(price, FLEX, given) is None
    assert cost(price, FLEX, given, succeeded("https://x/1.png"), sizes=[(1024, 1024)]) is None
    assert estimate(price, FLEX, {**PROMPT, "input_images": []}) == 0.06


def test_the_parts_of_a_price_add_up():
    price = Price(per_prediction=0.1, per_picture=0.01)
    assert estimate(price, SCHNELL, {**PROMPT, "num_outputs": 3}) == 0.13


def test_a_persons_own_prices_go_first():
    own = read_prices({SCHNELL: 0.004, FLEX: {"per_prediction": 0.192}, "somebody/else": 0})
    assert price_of("replicate", SCHNELL, own) == Price(per_picture=0.004)
    assert price_of("cometapi", FLEX, own) == Price(per_prediction=0.192)
    assert estimate(price_of("custom", "somebody/else", own), "somebody/else", PROMPT) == 0
    assert price_of("replicate", "black-forest-labs/flux-dev", own) == Price(per_picture=0.025)


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
