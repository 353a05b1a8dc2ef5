"""One connection in every form in which Airflow lets people write it, and what is said of those that are wrong."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from airflow.sdk import Connection
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_flux.client import connection_fields
from airflow_provider_flux.client.connection import GatewayAccess, read_connection
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import FluxConnectionError
from airflow_provider_flux.hooks.flux import FluxHook
from tests.conftest import KEY, Connect

SECRET = "sk-live/4f3b+9c2a=="
ODD = quote(SECRET, safe="")
DEER = "https://api.deerapi.com"


def connection(**fields: Any) -> Any:
    """Build a connection as the UI's form, the CLI's flags and a secrets backend do, field by field."""
    extra = fields.pop("extra", None)
    text = extra if extra is None or isinstance(extra, str) else json.dumps(extra)
    return Connection(conn_id="c", conn_type="flux", **{"password": SECRET, **fields}, extra=text)


def of_uri(uri: str) -> Any:
    return Connection.from_uri(uri, conn_id="c")


def of_json(**fields: Any) -> Any:
    return Connection.from_json(json.dumps({"conn_type": "flux", "password": SECRET, **fields}), conn_id="c")


def where(access: GatewayAccess) -> str:
    return f"{access.gateway.origin}{access.gateway.prefix}"


DEERS = f"{DEER}/replicate/v1"

FORMS: list[tuple[Any, str]] = [
    (connection(host=DEER), DEERS),
    (connection(host="api.deerapi.com"), DEERS),
    (connection(host=f"{DEER}/"), DEERS),
    (connection(host=f"{DEER}///"), DEERS),
    (connection(host=f" {DEER}\n"), DEERS),
    (connection(host="HTTPS://API.DeerAPI.com"), DEERS),
    (connection(host=f"{DEER}:443"), DEERS),
    (connection(host=DEER, port=443), DEERS),
    (connection(host="api.deerapi.com", schema="https"), DEERS),
    (connection(host="api.deerapi.com", schema="HTTPS"), DEERS),
    (connection(host=DEER, schema="http"), DEERS),
    (connection(host=f"{DEER}/replicate/v1"), DEERS),
    (connection(host=f"{DEER}/replicate/v1/"), DEERS),
    (connection(host=DEER, schema="replicate/v1"), DEERS),
    (connection(host=DEER, schema="/replicate/v1/"), DEERS),
    (connection(host=DEER, extra={"gateway": "DeerAPI "}), DEERS),
    (connection(host="", extra={"gateway": "deerapi"}), DEERS),
    (connection(host=None, extra={"gateway": "deerapi"}), DEERS),
    (connection(host=DEER, extra={"gateway": None, "path_prefix": None, "prices": None, "allow_http": None}), DEERS),
    (connection(host=DEER, extra={"gateway": "", "prices": "", "read_timeout": ""}), DEERS),
    (connection(host=DEER, extra=""), DEERS),
    (connection(host=DEER, extra="{}"), DEERS),
    (of_json(host=DEER), DEERS),
    (of_json(host="api.deerapi.com", port="443", extra="{}"), DEERS),
    (of_json(host=DEER, extra={"gateway": "deerapi"}), DEERS),
    (of_uri(f"flux://:{ODD}@api.deerapi.com"), DEERS),
    (of_uri(f"flux://:{ODD}@api.deerapi.com/"), DEERS),
    (of_uri(f"flux://:{ODD}@api.deerapi.com:443/https"), DEERS),
    (of_uri(f"flux://:{ODD}@{quote(DEER, safe='')}"), DEERS),
    (of_uri(f"flux://https://:{ODD}@api.deerapi.com"), DEERS),
    (of_uri(f"flux://https://:{ODD}@api.deerapi.com/replicate/v1"), DEERS),
    (of_uri(f"flux://:{ODD}@{quote(DEER + '/replicate/v1', safe='')}/?gateway=deerapi"), DEERS),
    (of_uri(f"flux://:{ODD}@/?gateway=deerapi"), DEERS),
    (of_uri(connection(host=DEER, extra={"gateway": "deerapi"}).get_uri()), DEERS),
    (of_uri(connection(host=DEER, extra={"prices": {"a/b": 1}, "allow_http": True}).get_uri()), DEERS),
    (connection(host="https://x.example/replicate", port=8443), "https://x.example:8443/replicate"),
    (connection(host="https://x.example:8443/replicate"), "https://x.example:8443/replicate"),
    (connection(host="https://x.example:8443/replicate", port=8443), "https://x.example:8443/replicate"),
    (connection(host="x.example/replicate", port=8443), "https://x.example:8443/replicate"),
    (connection(host="x.example:8443", schema="replicate"), "https://x.example:8443/replicate"),
    (connection(host="https://x.example:", port=8443, schema="replicate"), "https://x.example:8443/replicate"),
    (connection(host="x.example", port=8443, extra={"path_prefix": "/replicate/"}), "https://x.example:8443/replicate"),
    (of_uri(f"flux://:{ODD}@x.example:8443/replicate"), "https://x.example:8443/replicate"),
    (of_uri(f"flux://:{ODD}@x.example:8443/?path_prefix=replicate"), "https://x.example:8443/replicate"),
    (of_uri(f"flux://https://:{ODD}@x.example:8443/replicate"), "https://x.example:8443/replicate"),
    (of_uri(f"flux://:{ODD}@{quote('https://x.example/replicate', safe='')}:8443"), "https://x.example:8443/replicate"),
    (connection(host="http://127.0.0.1:8088"), "http://127.0.0.1:8088/replicate/v1"),
    (connection(host="127.0.0.1", port=8088, schema="http"), "http://127.0.0.1:8088/replicate/v1"),
    (of_uri(f"flux://:{ODD}@127.0.0.1:8088/http"), "http://127.0.0.1:8088/replicate/v1"),
    (of_uri(f"flux://http://:{ODD}@127.0.0.1:8088"), "http://127.0.0.1:8088/replicate/v1"),
    (connection(host="http://[::1]:8088"), "http://[::1]:8088/replicate/v1"),
    (connection(host="http://[::1]", port=8088), "http://[::1]:8088/replicate/v1"),
    (connection(host="::1", port=8088, schema="http"), "http://[::1]:8088/replicate/v1"),
    (connection(host="2001:db8::1"), "https://[2001:db8::1]/replicate/v1"),
    (connection(host="https://[2001:db8::1]/replicate", port=8443), "https://[2001:db8::1]:8443/replicate"),
    (of_uri(f"flux://:{ODD}@[2001:db8::1]:8443/replicate"), "https://[2001:db8::1]:8443/replicate"),
]


@pytest.mark.parametrize(("given_as", "expected"), FORMS)
def test_every_form_of_a_connection_leads_to_the_same_place(given_as: Any, expected: str) -> None:
    """a connection in any form of Airflow's"""
    access = read_connection(given_as)
    assert (where(access), access.key) == (expected, SECRET)


TRUE = [True, 1, "true", "True", " TRUE ", "1", "yes", "on", "y", "t"]
FALSE = [False, 0, "false", "False", "0", "no", "off", "n", "f", None, "", "None", "null"]


@pytest.mark.parametrize("name", ["allow_http", "private_outputs", "prefer_wait"])
@pytest.mark.parametrize("value", [*TRUE, *FALSE])
def test_a_flag_may_be_a_text(name: str, value: Any) -> None:
    expected = value in TRUE and not (value is False or (value == 0 and value != ""))
    found = {
        "allow_http": lambda access: access.gateway.origin == "http://x.example",
        "private_outputs": lambda access: access.private_outputs,
        "prefer_wait": lambda access: access.gateway.waits_on_create,
    }[name]
    for made in (
        connection(host="x.example", schema="http", extra={"allow_http": True, name: value}),
        of_uri(f"flux://:{ODD}@x.example/http?" + urlencode({"allow_http": "true", name: value})),
        of_uri(f"flux://:{ODD}@x.example/http?" + urlencode({"__extra__": json.dumps({"allow_http": 1, name: value})})),
    ):
        if name == "allow_http" and not expected:
            with pytest.raises(FluxConnectionError, match="not https"):
                read_connection(made)
        else:
            assert found(read_connection(made)) is expected


@pytest.mark.parametrize("value", [60, 60.0, "60", " 60 ", "60.0", "6e1"])
@pytest.mark.parametrize("name", ["connect_timeout", "read_timeout", "requests_per_minute"])
def test_a_number_may_be_a_text(name: str, value: Any) -> None:
    attribute = {"requests_per_minute": "chosen_per_minute"}.get(name, name)
    for made in (
        connection(host=DEER, extra={name: value}),
        connection(host=DEER, extra={f"extra__flux__{name}": value}),
        of_uri(f"flux://:{ODD}@api.deerapi.com/?" + urlencode({name: value})),
    ):
        assert getattr(read_connection(made), attribute) == 60.0


@pytest.mark.parametrize(
    "extra",
    [
        {"prices": {"a/b": 0.5}},
        {"prices": '{"a/b": 0.5}'},
        {"prices": ' {"a/b": 0.5}\n'},
        '{"prices": {"a/b": 0.5}}',
        json.dumps('{"prices": {"a/b": 0.5}}'),
    ],
)
def test_prices_may_be_a_text(extra: Any) -> None:
    assert read_connection(connection(host=DEER, extra=extra)).prices["a/b"].per_picture == 0.5
    as_uri = f"flux://:{ODD}@api.deerapi.com/?" + urlencode({"prices": '{"a/b": 0.5}'})
    assert read_connection(of_uri(as_uri)).prices["a/b"].per_picture == 0.5


@pytest.mark.parametrize("key", [f"{SECRET}\n", f" {SECRET} ", f"\t{SECRET}\r\n", f"\u00a0{SECRET}", f"\ufeff{SECRET}"])
def test_white_space_around_a_key_does_not_matter(key: str) -> None:
    assert read_connection(connection(host=DEER, password=key)).key == SECRET


@pytest.mark.parametrize("key", ["abcdefghkey==", "MYTOKEN==", "tokenized-4f3b", "keyless-4f3b", "Bearer-4f3b9c2a"])
def test_a_key_that_only_looks_like_more_than_a_key_is_one(key: str) -> None:
    assert read_connection(connection(host=DEER, password=key)).key == key


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"password": None}, "no key"),
    ({"password": " \n"}, "no key"),
    ({"password": None, "login": SECRET}, "login field is not used"),
    ({"password": f"Bearer {SECRET}"}, "begins with 'Bearer'"),
    ({"password": f"bearer: {SECRET}"}, "begins with 'Bearer'"),
    ({"password": f"Token {SECRET}"}, "begins with 'Token'"),
    ({"password": f"Authorization: Bearer {SECRET}"}, "begins with 'Authorization'"),
    ({"password": f'"{SECRET}"'}, "has quotes around it"),
    ({"password": f"'{SECRET}'\n"}, "has quotes around it"),
    ({"password": f"\u201c{SECRET}\u201d"}, "has quotes around it"),
    ({"password": f"{SECRET}'"}, "has quotes around it"),
    ({"password": f"FLUX_API_KEY={SECRET}"}, "an assignment"),
    ({"password": f"export REPLICATE_API_TOKEN={SECRET}"}, "an assignment"),
    ({"password": f"{SECRET}\n{SECRET}"}, "several lines"),
    ({"password": f"{SECRET}\r\nX-Header: 1"}, "several lines"),
    ({"password": f"{SECRET}\x00"}, "no HTTP header can carry"),
    ({"password": f"{SECRET} {SECRET}"}, "no HTTP header can carry"),
    ({"password": "pass\u00e9-4f3b+9c2a=="}, "no HTTP header can carry"),
    ({"password": "***"}, "stars"),
    ({"host": ""}, "no host"),
    ({"host": None, "port": 8443}, "no host"),
    ({"host": "http://api.deerapi.com"}, "not https"),
    ({"host": "ftp://api.deerapi.com"}, "not https"),
    ({"host": f"https://user:{SECRET}@api.deerapi.com"}, "key into the password field"),
    ({"host": f"https://{SECRET}@api.deerapi.com"}, "not a plain URL"),
    ({"host": f"{DEER}?key=1"}, "not a plain URL"),
    ({"host": f"{DEER}#top"}, "not a plain URL"),
    ({"host": "https:/api.deerapi.com"}, "not a plain URL"),
    ({"host": "https//api.deerapi.com"}, "not a plain URL"),
    ({"host": "https://https://api.deerapi.com"}, "not a plain URL"),
    ({"host": "https://api deerapi.com"}, "not a plain URL"),
    ({"host": DEER, "port": 99999}, "not a plain URL"),
    ({"host": f"{DEER}:8443", "port": 9000}, "names port 8443 and the port field 9000"),
    ({"host": f"{DEER}/a", "schema": "b"}, "the schema field another one"),
    ({"host": f"{DEER}/replicate/v1/models/a/b/predictions"}, f"shorten it to {DEER}\\."),
    ({"host": f"{DEER}/replicate/v1/predictions"}, f"shorten it to {DEER}\\."),
    ({"host": f"{DEER}/replicate/v1/predictions/abc/cancel"}, f"shorten it to {DEER}\\."),
    ({"host": f"{DEER}/v1/chat/completions"}, "address of a single call"),
    ({"host": "https://api.replicate.com/v1/models"}, r"shorten it to https://api.replicate.com\."),
    ({"host": "https://x.example/ai/v1/models/a/b/predictions"}, r"shorten it to https://x.example/ai/v1\."),
    ({"host": DEER, "schema": "replicate/v1/models/a/b/predictions"}, "address of a single call"),
    ({"extra": {"path_prefix": "/replicate/v1/predictions"}}, "goes too far"),
    ({"extra": {"path_prefix": f"{DEER}/replicate/v1"}}, "must be a path"),
    ({"extra": {"path_prefix": "/a?b"}}, "must be a path"),
    ({"extra": {"path_prefix": 5}}, "must be a text"),
    ({"extra": {"gateway": "deerap"}}, "unknown gateway.*did you mean deerapi"),
    ({"extra": {"gateway": ["deerapi"]}}, "must be a text"),
    ({"extra": {"allow_http": "perhaps"}}, "must be true or false"),
    ({"extra": {"allow_http": 2}}, "must be true or false"),
    ({"extra": {"allow_http": {}}}, "must be true or false"),
    ({"extra": {"read_timeout": "60s"}}, "must be a number of seconds"),
    ({"extra": {"read_timeout": True}}, "must be a number of seconds"),
    ({"extra": {"read_timeout": 0}}, "must be a number of seconds"),
    ({"extra": {"read_timeout": "nan"}}, "must be a number of seconds"),
    ({"extra": {"requests_per_minute": "-1"}}, "must be a number of requests"),
    ({"extra": {"requests_per_minute": [60]}}, "must be a number of requests"),
    ({"extra": {"prices": "0.003"}}, "must be an object of prices"),
    ({"extra": {"prices": "{a/b: 1}"}}, "prices in extra is not JSON"),
    ({"extra": "allow_http=true"}, "extra is not a JSON object"),
    ({"extra": "[1]"}, "extra is not a JSON object"),
]


@pytest.mark.parametrize(("fields", "said"), WRONG)
def test_a_connection_that_cannot_be_used_says_what_to_change(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(FluxConnectionError, match=said) as caught:
        read_connection(connection(**{"host": DEER, **fields}))
    assert SECRET not in str(caught.value)
    assert "Connection 'c': " in str(caught.value)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("reqests_per_minute", "; did you mean requests_per_minute?"),
        ("allow-http", "; did you mean allow_http?"),
        ("Gateway", "; did you mean gateway?"),
        ("timeout", "; did you mean read_timeout?"),
        ("zzz", ""),
    ],
)
def test_an_unknown_name_in_the_extra_is_a_warning_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, name: str, hint: str
) -> None:
    monkeypatch.setattr(connection_fields, "_warned", set())
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            read_connection(connection(host=DEER, extra={name: 1}))
    (record,) = caplog.records
    assert record.getMessage() == f"Connection 'c': extra has {name!r}, which is not read{hint}"


def test_extra_may_be_an_object_already() -> None:
    made = SimpleNamespace(
        conn_id="c", host=DEER, port=None, schema=None, login=None, password=SECRET, extra={"read_timeout": 5}
    )
    assert read_connection(made).read_timeout == 5.0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.env", f"c=flux://:{ODD}@api.deerapi.com/?allow_http=true"),
        ("c.json", json.dumps({"c": {"conn_type": "flux", "host": DEER, "password": SECRET, "extra": {"prices": {}}}})),
        ("c.yaml", f"c:\n  conn_type: flux\n  host: {DEER}\n  password: {SECRET}\n  extra:\n    allow_http: yes\n"),
    ],
)
def test_a_secrets_backend_of_files(tmp_path: Path, name: str, text: str) -> None:
    from airflow.secrets.local_filesystem import load_connections_dict

    (tmp_path / name).write_text(text)
    access = read_connection(load_connections_dict(str(tmp_path / name))["c"])  # type: ignore[arg-type]
    assert (where(access), access.key) == (DEERS, SECRET)


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_all_spellings_of_one_connection_give_the_same_settings(data: st.DataObject) -> None:
    draw = data.draw
    name, port = draw(st.sampled_from(["x.example", "127.0.0.1", "[2001:db8::1]"])), draw(st.sampled_from([None, 8443]))
    path, scheme = draw(st.sampled_from(["", "replicate", "a/b/v1"])), draw(st.sampled_from(["http", "https"]))
    numbers = {option: draw(st.integers(1, 900)) for option in ("read_timeout", "requests_per_minute")}
    key = draw(st.text(st.sampled_from("abcXYZ019-_/+=.~%&@:#?"), min_size=12, max_size=40))
    extra = {**numbers, "allow_http": True, "private_outputs": draw(st.booleans())}
    bare = name.strip("[]")
    expected = read_connection(
        connection(host=f"{scheme}://{name}{f':{port}' if port else ''}/{path}", password=key, extra=json.dumps(extra))
    )
    texts = {option: str(value) for option, value in extra.items()}
    lower = {option: value.lower() for option, value in texts.items()}
    space = draw(st.sampled_from(["", " ", "\n"]))
    query = urlencode(draw(st.sampled_from([texts, lower, {"__extra__": json.dumps(extra)}])))
    authority = f":{quote(key, safe='')}@{name}{f':{port}' if port else ''}"
    spelled = [
        connection(host=f"{scheme}://{name}/{path}", port=port, password=key + space, extra=extra),
        connection(host=f"{scheme}://{name}", port=port, schema=path, password=space + key, extra=texts),
        connection(host=f"{scheme}://{name}", port=port, schema=f"/{path}/", password=key, extra=lower),
        connection(host=bare, port=port, schema=scheme, password=key, extra={**texts, "path_prefix": path}),
        of_json(host=f"{scheme}://{name}/{path}{space}", port=port, password=key, extra=json.dumps(texts)),
        of_uri(f"flux://{scheme}://{authority}/{path}?{query}"),
        of_uri(f"flux://{authority}/{scheme}?{query}&" + urlencode({"path_prefix": path}))
        if "__extra__" not in query
        else of_uri(f"flux://{scheme}://{authority}/{path}?{query}"),
        of_uri(connection(host=f"{scheme}://{name}/{path}", port=port, password=key, extra=extra).get_uri()),
    ]
    for made in spelled:
        assert read_connection(made) == expected
        assert read_connection(made).key == key


@pytest.mark.parametrize("conn_id", [None, 7, "", " "])
def test_an_id_that_is_none_is_refused(conn_id: Any) -> None:
    with pytest.raises(FluxConnectionError, match="flux_conn_id must be the id of a connection"):
        FluxHook(conn_id).access  # noqa: B018


def test_a_connection_that_there_is_not_is_an_error_of_this_package() -> None:
    with pytest.raises(FluxConnectionError, match="correct flux_conn_id"):
        FluxHook("flux_missing").access  # noqa: B018


def test_a_key_that_was_stripped_is_hidden_in_logs_all_the_same(connect: Connect) -> None:
    from airflow.sdk._shared.secrets_masker import redact

    connect(DEER, key=f"{SECRET}-hidden\n")
    assert FluxHook().access.key == f"{SECRET}-hidden"
    assert redact(f"the key is {SECRET}-hidden!") == "the key is ***!"


def test_a_key_that_ends_in_a_newline_works(emulator: Emulator, connect: Connect) -> None:
    connect(emulator.url, key=f"{KEY}\n")
    made = FluxHook().create_prediction("black-forest-labs/flux-schnell", {"prompt": "A boat"})
    assert made.id == emulator.predictions[0].id
    assert emulator.posts == 1
