"""A paid picture is fetched however its URL is spelled, and trusted as the gateway is."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_flux.exceptions import FluxOutputError, FluxOutputNotStoredError
from airflow_provider_flux.outputs.addresses import ForbiddenOriginError, check_url
from airflow_provider_flux.outputs.fetching import Fetcher, FetchRules
from airflow_provider_flux.protocol.prediction import Prediction, read_prediction
from airflow_provider_flux.protocol.urls import tidy
from tests.certificates import make_certificates
from tests.outputs.drawings import drawn
from tests.servers import RawServer, answering
from tests.wire.test_odd_answers import http

HERE = FetchRules(allow_private=True)

SPELLED = {
    "/a b.png": "/a%20b.png",
    "/a%20b.png": "/a%20b.png",
    "/a%2Fb%2fc.png": "/a%2Fb%2fc.png",
    "/a%20b c.png": "/a%20b%20c.png",
    "/100%.png": "/100%25.png",
    "/100% of%20it.png": "/100%25%20of%20it.png",
    "/ä.png": "/%C3%A4.png",
    "/猫/🐈.png": "/%E7%8C%AB/%F0%9F%90%88.png",
    "/[1](2){3}.png": "/[1](2)%7B3%7D.png",
    '/"a"<b>|c^`.png': "/%22a%22%3Cb%3E%7Cc%5E%60.png",
    "/a\\b.png": "/a/b.png",
    "/a\tb\r\n.png": "/ab.png",
    "/a+b,c;d=e!$&'()*@:~.png": "/a+b,c;d=e!$&'()*@:~.png",
    "/a.png?sig=a/b+c==&x=1 2": "/a.png?sig=a/b+c==&x=1%202",
    "/a.png?sig=%2B%2f&n=ä": "/a.png?sig=%2B%2f&n=%C3%A4",
    "/a.png?q=[1]|{2}": "/a.png?q=[1]%7C%7B2%7D",
    "?a b": "?a%20b",
    "/half\ud83d.png": "/half%EF%BF%BD.png",
}
AROUND = ["{}", " {}", "{} ", "\n{}\n", "\t {}\r\n", "\ufeff{}", "\u00a0{}\u200b", "\x00{}\x1f"]


@pytest.mark.parametrize("path", SPELLED)
def test_a_url_is_quoted_as_browsers_do(path: str) -> None:
    """an output URL, however it is spelled"""
    assert tidy(f"https://files.example{path}") == f"https://files.example{SPELLED[path]}"


@pytest.mark.parametrize("around", AROUND)
def test_what_surrounds_a_url_is_stripped(around: str) -> None:
    assert tidy(around.format("https://files.example/a b.png")) == "https://files.example/a%20b.png"
    payload = {"id": "a", "status": "succeeded", "output": [around.format("HTTPS://files.example/a b.png")]}
    prediction = read_prediction(payload)
    assert isinstance(prediction, Prediction)
    assert prediction.outputs == ("https://files.example/a%20b.png",)


@pytest.mark.parametrize(
    ("url", "is_allowed"),
    [
        ("https://bücher.example/ä.png", True),
        ("https://①②⑦.⓪.⓪.①/a.png", False),
        ("https://\uff11\uff16\uff19.254.169.254/a.png", False),
        ("https://good.example\\@127.0.0.1/a.png", False),
        ("https://good.example\uff0f@127.0.0.1/a.png", False),
        ("https://me:pw@good.example/a b.png", False),
        ("https://good.exa mple/a.png", False),
        ("https://169.254.169.254/a b.png", False),
        ("https://loc\nalhost/a.png", False),
        ("https://good.example:99999/a b.png", False),
        ("file:///etc/pass wd", False),
        ("https:///a b.png", False),
    ],
)
def test_it_is_checked_after_it_is_quoted(url: str, is_allowed: bool) -> None:
    if is_allowed:
        check_url(tidy(url), allow_private=False)
        return
    with pytest.raises(ForbiddenOriginError):
        check_url(tidy(url), allow_private=False)


@given(st.text(max_size=60), st.sampled_from(["https://files.example/", "http://files.example", " https://f.example?"]))
@settings(max_examples=500)
def test_a_tidy_url_is_plain_and_stays_as_it_is(text: str, start: str) -> None:
    url = tidy(start + text)
    assert tidy(url) == url
    if re.match(r"https?://(files|f)\.example[/?#]", url):
        tail = url.partition(".example")[2]
        assert re.fullmatch(r"(?:[!#-;=?-\[\]_a-z~@]|%[0-9A-Fa-f]{2})*", tail), tail
        check_url(url.replace("http:", "https:"), allow_private=False)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="%\\"), max_size=30))
def test_quoting_loses_nothing_and_is_done_once(text: str) -> None:
    url = tidy(f"https://files.example/{text}|")
    assert unquote(url) == f"https://files.example/{text}|"
    assert tidy(url) == url


def fetch(url: str, folder: Path, rules: FetchRules = HERE) -> str:
    with Fetcher(rules, sleep=lambda _: None) as fetcher, (folder / "file").open("w+b") as file:
        return fetcher.fetch(url, file, about="x").picture.format


@pytest.mark.parametrize("path", SPELLED)
def test_the_picture_is_fetched(path: str, tmp_path: Path) -> None:
    with RawServer(answering(http(drawn()))) as server:
        assert fetch(f" {server.url}{path}\n", tmp_path) == "png"
        asked = server.requests[0].split(b" ")[1].decode()
    wanted = SPELLED[path] if path.startswith("/") else f"/{SPELLED[path]}"
    assert unquote(asked) == unquote(wanted)
    assert "%25" not in asked or "%25" in wanted, "quoted once"


@pytest.mark.parametrize(
    ("location", "asked"),
    [
        ("/b c.png", "/b%20c.png"),
        ("  /b%20c.png  ", "/b%20c.png"),
        ("b c.png", "/folder/b%20c.png"),
        ("/ä.png", "/%C3%A4.png"),
        ("/100%.png", "/100%25.png"),
        ("?sig=a b", "/folder/a.png?sig=a%20b"),
    ],
)
def test_what_a_redirect_names_is_quoted_too(location: str, asked: str, tmp_path: Path) -> None:
    answers = [http(b"", f"Location: {location}", status="302 Found"), http(drawn())]
    with RawServer(lambda connection, _, __: connection.sendall(answers.pop(0))) as server:
        assert fetch(f"{server.url}/folder/a.png", tmp_path) == "png"
        assert server.requests[1].split(b" ")[1].decode() == asked


def test_a_redirect_to_a_forbidden_place_stays_forbidden_however_it_is_spelled(tmp_path: Path) -> None:
    for target in (
        " http://169.254.169.254/a b",
        "http://\uff11\uff16\uff19.254.169.254/",
        "\thttps:\\\\169.254.169.254/",
    ):
        with (
            RawServer(answering(http(b"", f"Location: {target}", status="302 Found"))) as server,
            pytest.raises((FluxOutputError, FluxOutputNotStoredError)),
        ):
            fetch(f"{server.url}/a.png", tmp_path)


class TestTrust:
    """Pictures are fetched with the authorities, proxies and bounds with which the gateway is asked."""

    @pytest.fixture(autouse=True)
    def no_settings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.lower(), raising=False)

    def test_the_connections_ca_file_is_trusted(self, tmp_path: Path) -> None:
        authority, certificate = make_certificates(tmp_path)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificate)
        with RawServer(answering(http(drawn())), tls=context) as server:
            rules = FetchRules(allow_private=True, ca_file=str(authority))
            assert fetch(f"{server.url}/a.png", tmp_path, rules) == "png"
            with pytest.raises(FluxOutputNotStoredError, match="not trusted"):
                fetch(f"{server.url}/a.png", tmp_path)

    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            ("REQUESTS_CA_BUNDLE", "/none/b.pem", r"/none/b\.pem \(REQUESTS_CA_BUNDLE\)"),
            ("ALL_PROXY", "socks5://me:secret-word@127.0.0.1:1080", r"socks5://127\.0\.0\.1:1080 of ALL_PROXY"),
            ("http_proxy", "http://me:secret-word@127.0.0.1:port", r"http://127\.0\.0\.1:port of http_proxy"),
        ],
    )
    def test_a_setting_that_cannot_be_used_is_told_after_one_try(
        self, name: str, value: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(name, value)
        with RawServer(answering(http(drawn()))) as server:
            with pytest.raises(FluxOutputNotStoredError, match=said) as caught:
                fetch(f"{server.url}/a.png", tmp_path)
            assert server.requests == []
        assert "secret-word" not in str(caught.value)
        assert "tries" not in str(caught.value)

    def test_a_proxy_without_a_scheme_is_used(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with RawServer(answering(http(drawn()))) as proxy:
            monkeypatch.setenv("http_proxy", f"127.0.0.1:{proxy.port}")
            assert fetch("http://files.example/a b.png", tmp_path) == "png"
            assert proxy.requests[0].startswith(b"GET http://files.example/a%20b.png")
