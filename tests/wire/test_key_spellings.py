"""The key in whatever spelling a gateway repeats it: in no error, log line, result or span."""

from __future__ import annotations

import base64
import html
import json
import logging
import re
import time
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from airflow_provider_flux.exceptions import FluxError
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.protocol.redaction import HIDDEN, hide
from airflow_provider_flux.tasks.results import describe, ending_error
from tests.conftest import Connect
from tests.servers import RawServer, answering
from tests.wire.test_odd_answers import http, says
from tests.wire.two_drivers import DRIVERS, ID, SCHNELL, access_to, create, get, play

KEY = "sk-live/4f3b+9c2a/77de=="

Spelling = Callable[[str], str]

SPELLINGS: dict[str, Spelling] = {
    "as it is": str,
    "JSON": lambda key: json.dumps(key)[1:-1],
    "JSON with escaped slashes": lambda key: json.dumps(key)[1:-1].replace("/", "\\/"),
    "JSON, all but letters escaped": lambda key: re.sub(r"\W", lambda found: f"\\u{ord(found[0]):04x}", key),
    "JSON, all escaped": lambda key: "".join(f"\\u{ord(character):04X}" for character in key),
    "URL": lambda key: quote(key, safe=""),
    "URL in lower case": lambda key: re.sub("%..", lambda found: found[0].lower(), quote(key, safe="")),
    "URL, slashes kept": quote,
    "URL, all quoted": lambda key: "".join(f"%{ord(character):02X}" for character in key),
    "form": quote_plus,
    "form read": lambda key: key.replace("+", " "),
    "URL twice": lambda key: quote(quote(key, safe=""), safe=""),
    "HTML": html.escape,
    "HTML, decimal": lambda key: re.sub(r"\W", lambda found: f"&#{ord(found[0])};", key),
    "HTML, hexadecimal": lambda key: re.sub(r"\W", lambda found: f"&#x{ord(found[0]):X};", key),
    "HTML, padded": lambda key: "".join(f"&#{ord(character):04d};" for character in key),
    "HTML, named": lambda key: key.replace("/", "&sol;").replace("+", "&plus;").replace("=", "&equals;"),
    "Python": lambda key: repr(key)[1:-1],
    "Python bytes": lambda key: repr(key.encode())[2:-1],
    "Python, hexadecimal": lambda key: "".join(f"\\x{ord(character):02x}" for character in key),
    "octal": lambda key: re.sub(r"\W", lambda found: f"\\{ord(found[0]):03o}", key),
    "JavaScript": lambda key: re.sub(r"\W", lambda found: f"\\u{{{ord(found[0]):x}}}", key),
    "old JavaScript": lambda key: re.sub(r"\W", lambda found: f"%u{ord(found[0]):04x}", key),
    "shell": lambda key: re.sub(r"(\W)", r"\\\1", key),
    "capitals": str.upper,
}
BASIC: dict[str, Spelling] = {
    f"Basic authentication of {user!r}": lambda key, user=user: base64.b64encode(f"{user}{key}".encode()).decode()  # type: ignore[misc]
    for user in ("", "a", "ab", "user:", "api-key:")
}
KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=80)


@given(
    key=KEYS | st.just(KEY),
    names=st.lists(st.sampled_from([name for name in SPELLINGS if name != "capitals"]), min_size=1, max_size=2),
    around=st.tuples(st.text(max_size=20), st.text(max_size=20)),
)
@settings(max_examples=150, deadline=None)
def test_a_key_is_hidden_in_every_spelling_of_a_spelling(key: str, names: list[str], around: tuple[str, str]) -> None:
    # Two spellings of one kind, such as HTML of HTML, are what a gateway behind a gateway makes.
    written = key
    for name in names:
        written = SPELLINGS[name](written)
    assume("form read" not in names or names == ["form read"])
    hidden = hide(f"{around[0]}<{written}>{around[1]}", key)
    assert f"<{HIDDEN}>" in hidden, (names, written)


@given(key=KEYS, user=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=8))
@settings(max_examples=30, deadline=None)
def test_a_key_is_hidden_in_base64_whatever_is_before_it(key: str, user: str) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        written = encode(f"{user}{key}".encode()).decode()
        for text in (written, quote(written, safe=""), written.replace("/", "\\/")):
            left = hide(f"Authorization: Basic {text}", key)
            assert HIDDEN in left
            assert len(left) <= len("Authorization: Basic ") + len(base64.b64encode(user.encode())) + 20


LONG = ("a", "\\", "%25", "&amp;", "&#x0", "\\u0073", "%73", "\\u005c", "&#0")


@pytest.mark.parametrize("text", [piece * (1_000_000 // len(piece)) for piece in LONG], ids=range(len(LONG)))
def test_looking_for_it_takes_no_longer_than_in_proportion(text: str) -> None:
    began = time.monotonic()
    assert hide(text, KEY) == text
    assert hide(f"{text}{KEY}", KEY).endswith(HIDDEN)
    assert time.monotonic() - began < 5


def test_other_text_stays_and_a_short_key_is_no_secret() -> None:
    text = json.dumps({"output": ["https://a.example/x%2Fy.png?sig=4f3b%2B"], "logs": "100%|\u2588| sk-live"})
    assert hide(text, KEY) == text
    assert hide("boat", "boat") == "boat"


def in_message(written: str) -> bytes:
    return http(b'{"error": {"message": "bad key <%s>", "code": "x"}}' % written.encode(), status="401 No")


def in_text(written: str) -> bytes:
    return http(f"bad key <{written}>".encode(), "Content-Type: text/plain", status="400 No")


def in_page(written: str) -> bytes:
    return http(f"<html><title>Bad key &lt;{written}&gt;</title>".encode(), "Content-Type: text/html")


def in_a_list(written: str) -> bytes:
    return http(b'{"errors": [{"detail": ["a", "<%s>"]}]}' % written.encode(), status="422 No")


def in_odd_json(written: str) -> bytes:
    return http(b'{"what": {"headers": [["Authorization", "Bearer %s"]]}}' % written.encode())


def in_a_redirect(written: str) -> bytes:
    return http(b"", f"Location: https://x.example/login/{written}/back", status="302 Found")


def in_a_header(written: str) -> bytes:
    return http(b'{"error": {"message": "no"}}', f"X-Request-Id: {written}", status="403 No")


def in_a_broken_header(written: str) -> bytes:
    return http(b'{"error": {"message": "no"}}', f"odd {written}", f"X: {written}", status="403 No")


def in_a_cookie(written: str) -> bytes:
    return http(b'{"error": {"message": "no"}}', f"Set-Cookie: {written}", status="403 No")


PLACES = {
    place.__name__: place
    for place in (
        in_message,
        in_text,
        in_page,
        in_a_list,
        in_odd_json,
        in_a_redirect,
        in_a_header,
        in_a_broken_header,
        in_a_cookie,
    )
}
CORE = "4f3b"
"""Part of the key that most spellings leave alone."""


def assert_nowhere(text: str, written: str) -> None:
    assert written not in text
    assert KEY not in text
    assert CORE not in text.lower(), text


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("spelling", [*SPELLINGS, *BASIC])
def test_no_failure_tells_it(spelling: str, place: str, driver: str, caplog: pytest.LogCaptureFixture) -> None:
    """the key"""
    caplog.set_level(logging.DEBUG)
    written = (SPELLINGS | BASIC)[spelling](KEY)
    with RawServer(answering(PLACES[place](written))) as server:
        access = access_to(server.url, key=KEY)
        told = [play(driver, access, request).text for request in (create(access), get(access))]
    for text in (*told, *(record.getMessage() for record in caplog.records)):
        assert_nowhere(text, written)


@pytest.mark.parametrize("spelling", [name for name in SPELLINGS if "bytes" not in name])
def test_no_result_of_a_failed_prediction_tells_it(
    spelling: str, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """the key"""
    written = SPELLINGS[spelling](KEY)
    body = {"id": ID, "status": "failed", "error": f"bad <{written}>", "logs": written, "metrics": {"a": written}}
    raws = [says(body)]
    if "\\" in written and "JSON" in spelling:
        # As the gateway's own encoder writes it, once.
        raws.append(http(json.dumps({**body, "error": "@", "logs": ""}).replace("@", written).encode()))
    for raw in raws:
        with RawServer(answering(raw)) as server:
            connect(server.url, key=KEY, allow_http=True)
            hook = FluxHook()
            prediction = hook.create_prediction(SCHNELL, {"prompt": "a boat"})
            result = describe(prediction, hook.access, model=SCHNELL, input={})
            for text in (str(result), json.dumps(result), str(ending_error(prediction)), repr(prediction)):
                assert_nowhere(text, written)
    assert_nowhere(caplog.text, written)


def test_no_error_of_the_hook_tells_it(connect: Connect) -> None:
    """the key"""
    for written in map(SPELLINGS.__getitem__, SPELLINGS):
        with RawServer(answering(in_message(written(KEY)))) as server:
            connect(server.url, key=KEY)
            with pytest.raises(FluxError) as caught:
                FluxHook().create_prediction(SCHNELL, {"prompt": "a boat"})
            assert_nowhere(f"{caught.value} {caught.value!r} {vars(caught.value)}", written(KEY))
