"""Which request goes where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_flux.protocol.gateways import choose_gateway, origin_of
from airflow_provider_flux.protocol.messages import Purpose
from airflow_provider_flux.protocol.prediction import Prediction, read_id, read_prediction
from airflow_provider_flux.protocol.presets import PRESETS
from tests.protocol.recorded import COMETAPI_CREATE, DEERAPI_CREATE

MODEL = "black-forest-labs/flux-1.1-pro"
KEY = "sk-0123456789"


@pytest.mark.parametrize(
    ("preset", "origin", "prefix"),
    [
        ("deerapi", "https://api.deerapi.com", "/replicate/v1"),
        ("cometapi", "https://api.cometapi.com", "/replicate/v1"),
        ("replicate", "https://api.replicate.com", "/v1"),
    ],
)
def test_each_preset_has_its_documented_paths(preset: str, origin: str, prefix: str) -> None:
    gateway = choose_gateway("", preset_name=preset)
    assert gateway.origin == origin
    create = gateway.create(MODEL, {"prompt": "a cat"})
    assert (create.purpose, create.method) == (Purpose.CREATE, "POST")
    assert create.path == f"{prefix}/models/black-forest-labs/flux-1.1-pro/predictions"
    assert create.body == {"input": {"prompt": "a cat"}}
    get = gateway.get("abc")
    assert (get.purpose, get.method, get.path, get.body) == (Purpose.GET, "GET", f"{prefix}/predictions/abc", None)
    cancel = gateway.cancel("abc")
    assert (cancel.purpose, cancel.method, cancel.path) == (
        Purpose.CANCEL,
        "POST",
        f"{prefix}/predictions/abc/cancel",
    )
    assert (gateway.list().purpose, gateway.list().path) == (Purpose.LIST, f"{prefix}/predictions")


def test_only_replicate_lists_predictions() -> None:
    assert [name for name, preset in PRESETS.items() if preset.lists_predictions] == ["replicate"]


def test_the_slash_of_the_model_stays_and_everything_else_is_escaped() -> None:
    path = choose_gateway("api.deerapi.com").create("my owner/na?me#1", {}).path
    assert path == "/replicate/v1/models/my%20owner/na%3Fme%231/predictions"


def test_an_id_cannot_change_the_path() -> None:
    gateway = choose_gateway("api.deerapi.com")
    assert gateway.get("a%2Fb?c#d").path == "/replicate/v1/predictions/a%252Fb%3Fc%23d"
    for odd in ("a/../b", "..", ".", "a b", "a\nb", "a\\b", "a\u2028b", "", "a" * 201):
        with pytest.raises(ValueError, match="cannot be the id"):
            gateway.cancel(odd)


def test_webhooks_are_passed_on_beside_the_input() -> None:
    request = choose_gateway("api.deerapi.com").create(
        MODEL, {"prompt": "a cat"}, webhook="https://me.example/hook", webhook_events_filter=("completed",)
    )
    assert request.body == {
        "input": {"prompt": "a cat"},
        "webhook": "https://me.example/hook",
        "webhook_events_filter": ["completed"],
    }


def test_a_request_in_a_log_line_shows_no_query() -> None:
    request = choose_gateway("", preset_name="replicate").list("https://api.replicate.com/v1/predictions?cursor=secret")
    assert str(request) == "GET /v1/predictions"


@pytest.mark.parametrize(
    ("cursor", "path"),
    [
        ("https://evil.example/v9/steal?cursor=cD0yMDI%3D", "/v1/predictions?cursor=cD0yMDI%3D"),
        ("//evil.example?cursor=a#fragment", "/v1/predictions?cursor=a"),
        ("https://api.replicate.com/v1/predictions", "/v1/predictions"),
        ("http://[not-an-address?cursor=a", "/v1/predictions?cursor=a"),
        ("", "/v1/predictions"),
        (None, "/v1/predictions"),
    ],
)
def test_a_list_cursor_contributes_nothing_but_its_query(cursor: str | None, path: str) -> None:
    assert choose_gateway("", preset_name="replicate").list(cursor).path == path


@pytest.mark.parametrize("sample", [COMETAPI_CREATE, DEERAPI_CREATE])
def test_the_urls_of_an_answer_are_never_followed(sample: dict[str, object]) -> None:
    """`urls.get`, `urls.cancel`, `urls.stream` in an answer"""
    prediction = read_prediction(sample)
    assert isinstance(prediction, Prediction)
    gateway = choose_gateway("https://api.cometapi.com")
    assert gateway.origin == "https://api.cometapi.com"
    for request in (gateway.get(prediction.id), gateway.cancel(prediction.id)):
        assert request.path.startswith(f"/replicate/v1/predictions/{prediction.id}")
        assert "replicate.com" not in request.path
    kept = {value for value in vars(type(prediction)) if not value.startswith("_")}
    assert kept.isdisjoint({"urls", "get_url", "cancel_url", "stream_url"})


@given(
    prefix=st.sampled_from(["", "/", "/v1", "a/b/"]),
    prediction_id=st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(read_id),
)
def test_every_path_stays_on_the_origin(prefix: str, prediction_id: str) -> None:
    """the key: a path that began with two slashes, or with none, could name another host."""
    gateway = choose_gateway("https://gate.example", prefix=prefix)
    for request in (gateway.get(prediction_id), gateway.cancel(prediction_id), gateway.list()):
        assert request.path.startswith("/")
        assert not request.path.startswith("//")
        assert origin_of(f"{gateway.origin}{request.path}") == gateway.origin
        assert not request.headers


@pytest.mark.parametrize(
    ("host", "origin", "prefix", "preset"),
    [
        ("https://api.deerapi.com", "https://api.deerapi.com", "/replicate/v1", "deerapi"),
        ("api.deerapi.com", "https://api.deerapi.com", "/replicate/v1", "deerapi"),
        ("  HTTPS://API.DeerAPI.com:443/  ", "https://api.deerapi.com", "/replicate/v1", "deerapi"),
        ("api.cometapi.com/", "https://api.cometapi.com", "/replicate/v1", "cometapi"),
        ("https://api.replicate.com", "https://api.replicate.com", "/v1", "replicate"),
        ("https://gate.example:8443", "https://gate.example:8443", "/replicate/v1", "custom"),
        ("gate.example:8443/flux/v2/", "https://gate.example:8443", "/flux/v2", "custom"),
        ("https://api.deerapi.com.evil.example", "https://api.deerapi.com.evil.example", "/replicate/v1", "custom"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443", "/replicate/v1", "custom"),
        ("http://[::1]:8080", "http://[::1]:8080", "/replicate/v1", "custom"),
        ("http://localhost:8080", "http://localhost:8080", "/replicate/v1", "custom"),
        ("http://127.0.0.1:80/v1", "http://127.0.0.1", "/v1", "custom"),
    ],
)
def test_a_host_is_read_with_or_without_scheme_port_and_path(host: str, origin: str, prefix: str, preset: str) -> None:
    gateway = choose_gateway(host)
    assert (gateway.origin, gateway.prefix, gateway.preset.name) == (origin, prefix, preset)


def test_a_given_preset_and_prefix_win_over_what_the_host_says() -> None:
    gateway = choose_gateway("https://proxy.example/flux", preset_name="replicate", prefix="r/v1/")
    assert (gateway.origin, gateway.prefix, gateway.preset.name) == ("https://proxy.example", "/r/v1", "replicate")


@pytest.mark.parametrize("host", ["http://gate.example", "http://127.0.0.1.evil.example", "http://10.0.0.1"])
def test_plain_http_is_refused_unless_the_host_is_allowed(host: str) -> None:
    """the key: it would travel in the clear."""
    with pytest.raises(ValueError, match="allow_http"):
        choose_gateway(host)
    assert choose_gateway(host, allow_http=True).origin == host


@pytest.mark.parametrize("host", ["ftp://gate.example", "file:///etc/passwd", "ws://gate.example"])
def test_no_other_scheme_is_allowed_at_all(host: str) -> None:
    with pytest.raises(ValueError, match="https"):
        choose_gateway(host, allow_http=True)


@pytest.mark.parametrize(
    "host",
    [
        f"https://{KEY}@api.deerapi.com",
        f"https://user:{KEY}@api.deerapi.com",
        f"{KEY}:x@api.deerapi.com",
        f"https://api.deerapi.com?key={KEY}",
        f"https://api.deerapi.com#{KEY}",
        f"https://{KEY}@[broken",
        f"https://{KEY}@ho\u2100st.example",
        f"api.deerapi.com {KEY}",
    ],
)
def test_credentials_in_the_host_are_refused_and_not_repeated(host: str) -> None:
    """the key: a URL is no place for it, and neither is an error."""
    with pytest.raises(ValueError, match="password field") as caught:
        choose_gateway(host)
    assert KEY not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "host", ["https://", "https://:8080", "gate.example:port", "gate.example:0", "::1", "[::1", " "]
)
def test_a_host_that_is_no_host_is_refused_with_an_example(host: str) -> None:
    with pytest.raises(ValueError, match=r"https://api\.deerapi\.com"):
        choose_gateway(host)


@pytest.mark.parametrize("preset", ["", "custom"])
def test_a_connection_without_a_host_needs_a_preset_that_has_one(preset: str) -> None:
    with pytest.raises(ValueError, match="no host"):
        choose_gateway("", preset_name=preset)


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="deerapi, cometapi, replicate, bfl, custom"):
        choose_gateway("https://gate.example", preset_name="openai")


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Api.DeerAPI.com:443/x?y#z", "https://api.deerapi.com"),
        ("http://[::1]:80/", "http://[::1]"),
        ("https://user@host.example:444", "https://host.example:444"),
    ],
)
def test_origins_can_be_compared(url: str, origin: str) -> None:
    assert origin_of(url) == origin


def test_the_page_for_people_is_the_answers_own_or_the_presets() -> None:
    sample = read_prediction(COMETAPI_CREATE)
    bare = read_prediction({"id": "a?b", "status": "starting"})
    assert isinstance(sample, Prediction)
    assert isinstance(bare, Prediction)
    assert choose_gateway("api.cometapi.com").page(sample) == f"https://replicate.com/p/{sample.id}"
    assert choose_gateway("api.replicate.com").page(bare) == "https://replicate.com/p/a%3Fb"
    assert choose_gateway("api.deerapi.com").page(bare) == ""
