"""How a model is asked for, and a prediction asked about, in each dialect."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_flux.protocol.dialects import BFL, DEPLOYMENT, IN_BFLS_STYLE, MODEL, VERSION, dialect_of, parted
from airflow_provider_flux.protocol.gateways import choose_gateway
from airflow_provider_flux.protocol.messages import Purpose
from airflow_provider_flux.protocol.prediction import NoIdError, Prediction, PredictionStatus
from airflow_provider_flux.protocol.presets import PRESETS

HEX = "0123456789abcdef" * 4
NAME = "black-forest-labs/flux-dev"
UUID = "2fa25140-591f-4839-b377-9945a7a3881a"

WRITTEN = {
    NAME: MODEL,
    f"{NAME}:{HEX}": VERSION,
    HEX: VERSION,
    "deployments/acme/tea": DEPLOYMENT,
    "flux-pro-1.1": BFL,
    "flux-2-pro": BFL,
}

PATHS = {
    ("deerapi", NAME): f"/replicate/v1/models/{NAME}/predictions",
    ("deerapi", f"{NAME}:{HEX}"): "/replicate/v1/predictions",
    ("cometapi", HEX): "/replicate/v1/predictions",
    ("cometapi", "flux-2-pro"): "/flux/v1/flux-2-pro",
    ("custom", "flux-2-pro"): "/flux/v1/flux-2-pro",
    ("replicate", NAME): f"/v1/models/{NAME}/predictions",
    ("replicate", HEX): "/v1/predictions",
    ("replicate", "deployments/acme/tea"): "/v1/deployments/acme/tea/predictions",
    ("bfl", "flux-2-pro"): "/v1/flux-2-pro",
}


def gateway(preset: str) -> Any:
    return choose_gateway(PRESETS[preset].origin or "https://gateway.example", preset_name=preset)


@pytest.mark.parametrize("model", WRITTEN)
def test_the_dialect_follows_from_how_a_model_is_written(model: str) -> None:
    assert dialect_of(model) is WRITTEN[model]


@pytest.mark.parametrize(("preset", "model"), PATHS)
def test_a_create_goes_where_the_dialect_says(preset: str, model: str) -> None:
    request = gateway(preset).create(model, {"prompt": "x"})
    assert (request.purpose, request.method, request.path) == (Purpose.CREATE, "POST", PATHS[preset, model])
    if dialect_of(model) is BFL:
        assert request.body == {"prompt": "x"}
    elif dialect_of(model) is VERSION:
        assert request.body == {"version": model, "input": {"prompt": "x"}}
    else:
        assert request.body == {"input": {"prompt": "x"}}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("model", WRITTEN)
def test_what_a_gateway_does_not_speak_is_refused_with_how_models_are_written_for_it(preset: str, model: str) -> None:
    asked = gateway(preset)
    if dialect_of(model) in asked.preset.dialects:
        assert asked.create(model, {}).purpose is Purpose.CREATE
        return
    with pytest.raises(ValueError, match=r" takes a model as .*, not "):
        asked.create(model, {})


def test_webhooks_are_called_what_the_dialect_calls_them() -> None:
    hook = {"webhook": "https://x/", "webhook_events_filter": ["completed"]}
    assert gateway("deerapi").create(NAME, {}, **hook).body == {"input": {}, **hook}
    # BFL calls at the end only, so it takes no filter.
    assert gateway("bfl").create("flux-2-pro", {}, **hook).body == {"webhook_url": "https://x/"}


def test_a_picture_inside_a_create_in_bfls_style_is_its_base64_alone() -> None:
    uri = "data:image/png;base64,iVBORw0KGgo="
    assert gateway("bfl").create("flux-2-pro", {"input_image": uri}).body == {"input_image": "iVBORw0KGgo="}
    assert gateway("deerapi").create(NAME, {"image": uri}).body == {"input": {"image": uri}}
    url = "https://x/a.png?data:1,2"
    assert gateway("bfl").create("flux-2-pro", {"input_image": url}).body == {"input_image": url}


@pytest.mark.parametrize(
    ("prefix", "replicate", "bfl"),
    [
        ("", "/replicate/v1", "/flux/v1"),
        ("/proxy/replicate/v1", "/proxy/replicate/v1", "/proxy/flux/v1"),
        ("/api", "/api", "/flux/v1"),
    ],
)
def test_a_proxy_in_front_of_a_gateway_has_both_styles_under_its_path(prefix: str, replicate: str, bfl: str) -> None:
    asked = choose_gateway("https://gateway.example", prefix=prefix)
    assert asked.create(NAME, {}).path == f"{replicate}/models/{NAME}/predictions"
    assert asked.create("flux-dev", {}).path == f"{bfl}/flux-dev"


QUERIES = {
    ("deerapi", "abc"): ("", "/replicate/v1/predictions/abc"),
    ("deerapi", f"{UUID}@flux"): ("", f"/flux/v1/get_result?id={UUID}"),
    # Made by another connection: the key of a gateway goes to nobody else.
    ("deerapi", f"{UUID}@api.eu2.bfl.ai"): ("", f"/flux/v1/get_result?id={UUID}"),
    ("replicate", "abc"): ("", "/v1/predictions/abc"),
    ("bfl", UUID): ("", f"/v1/get_result?id={UUID}"),
    ("bfl", f"{UUID}@flux"): ("", f"/v1/get_result?id={UUID}"),
    ("bfl", f"{UUID}@api.eu2.bfl.ai"): ("https://api.eu2.bfl.ai", f"/v1/get_result?id={UUID}"),
    # What only looks like a place is part of the id.
    ("deerapi", "a@b"): ("", "/replicate/v1/predictions/a%40b"),
    ("bfl", "a@api.bfl.ai.example"): ("", "/v1/get_result?id=a%40api.bfl.ai.example"),
    ("bfl", "a b&c=d"): None,
}


@pytest.mark.parametrize(("preset", "prediction_id"), QUERIES)
def test_a_prediction_is_asked_for_where_its_id_says(preset: str, prediction_id: str) -> None:
    expected = QUERIES[preset, prediction_id]
    if expected is None:
        with pytest.raises(NoIdError):
            gateway(preset).get(prediction_id)
        return
    request = gateway(preset).get(prediction_id)
    assert (request.origin, request.path) == expected
    cancel = gateway(preset).cancel(prediction_id)
    is_bfls = "get_result" in request.path
    assert (cancel is None) == is_bfls
    assert cancel is None or cancel.path == f"{request.path}/cancel"


@pytest.mark.parametrize(
    ("polling_url", "place"),
    [
        (f"https://api.eu2.bfl.ai/v1/get_result?id={UUID}", "@api.eu2.bfl.ai"),
        (f"https://api.bfl.ai/v1/get_result?id={UUID}", ""),
        ("", ""),
        (f"http://api.eu2.bfl.ai/v1/get_result?id={UUID}", ""),
        (f"https://api.eu2.bfl.ai:8443/v1/get_result?id={UUID}", ""),
        (f"https://api.eu2.bfl.ai.example/v1/get_result?id={UUID}", ""),
        (f"https://bfl.ai/v1/get_result?id={UUID}", ""),
        (f"https://delivery.bfl.ai/v1/get_result?id={UUID}", ""),
        (f"https://api.eu2.bfl.ai@example.com/v1/get_result?id={UUID}", ""),
        (f"https://a.b.api.bfl.ai/v1/get_result?id={UUID}", ""),
        ("https://127.0.0.1/v1/get_result", ""),
    ],
)
def test_only_one_of_bfls_own_hosts_is_polled_at_its_word(polling_url: str, place: str) -> None:
    asked = gateway("bfl")
    created = Prediction(id=UUID, status=PredictionStatus.STARTING, polling_url=polling_url)
    located = asked.located(asked.create("flux-2-pro", {}), created)
    assert located.id == f"{UUID}{place}"
    assert asked.may_have_key(asked.get(located.id).origin or asked.origin)
    assert not place or parted(located.id) == (UUID, place[1:])


def test_what_a_gateway_says_of_polling_is_not_heeded() -> None:
    """DeerAPI's and CometAPI's answers in BFL's style name BFL's host, which must not see their key."""
    asked = gateway("deerapi")
    created = Prediction(
        id=UUID, status=PredictionStatus.STARTING, polling_url=f"https://api.eu2.bfl.ai/v1/get_result?id={UUID}"
    )
    assert asked.located(asked.create("flux-2-pro", {}), created).id == f"{UUID}@{IN_BFLS_STYLE}"
    assert asked.located(asked.create(NAME, {}), Prediction(id="abc", status=PredictionStatus.STARTING)).id == "abc"


@pytest.mark.parametrize(
    ("preset", "url", "may"),
    [
        ("bfl", "https://api.bfl.ai/x", True),
        ("bfl", "https://api.us1.bfl.ai/x", True),
        ("bfl", "http://api.us1.bfl.ai/x", False),
        ("bfl", "https://api.us1.bfl.ai:444/x", False),
        ("bfl", "https://xapi.bfl.ai/x", False),
        ("bfl", "https://api.bfl.ai.example/x", False),
        ("deerapi", "https://api.bfl.ai/x", False),
        ("deerapi", "https://api.deerapi.com/x", True),
        ("replicate", "https://api.bfl.ai/x", False),
    ],
)
def test_who_may_have_the_key(preset: str, url: str, may: bool) -> None:
    assert gateway(preset).may_have_key(url) is may
