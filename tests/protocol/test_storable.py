"""What everybody can store: checked with the very encoders that Airflow, its database and files use."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_flux.protocol.storable import dumps, find_unstorable, loads, storable

ANY_TEXT = st.text(st.characters(blacklist_categories=()) | st.sampled_from("\x00\ud83d\ude00\ud800\udfff"))
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=20,
)


def check_that_all_can_store(value: Any) -> None:
    msgspec.msgpack.encode(value)  # a task and its supervisor
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)  # files
    text.encode("utf-8")
    assert "\\u0000" not in text  # PostgreSQL's JSONB


@given(ANY_JSON)
def test_what_is_written_is_one_line_for_every_reader(value: Any) -> None:
    assert len(f"{dumps(value)}\n".splitlines()) == 1


@given(ANY_JSON)
def test_what_is_made_storable_can_be_stored_by_all(value: Any) -> None:
    check_that_all_can_store(storable(value))


@given(ANY_JSON)
def test_what_has_been_made_storable_is_left_alone(value: Any) -> None:
    once = storable(value)
    assert storable(once) == once
    assert not list(find_unstorable(once, "x"))


@given(ANY_JSON)
def test_what_has_nothing_to_be_found_is_left_alone(value: Any) -> None:
    if not list(find_unstorable(value, "x")):
        assert storable(value) == value
        check_that_all_can_store(value)


@given(ANY_JSON)
def test_what_somebody_else_has_written_is_storable_once_read(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value).encode()):
        check_that_all_can_store(loads(text))


@given(ANY_JSON)
def test_what_is_written_is_read_again_as_it_was(value: Any) -> None:
    assert loads(dumps(value)) == storable(value)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("cat \ud83d", "cat \ufffd"),
        ("\ude00 cat", "\ufffd cat"),
        ("\ud83d\ude00", "😀"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("a\x00b", "a\ufffdb"),
        ("\ufeff é 漢 😀\u2028\x85\x7f", "\ufeff é 漢 😀\u2028\x85\x7f"),
        (math.nan, None),
        (math.inf, None),
        (-math.inf, None),
        (-0.0, -0.0),
        (2**64, str(2**64)),
        (-(2**63) - 1, str(-(2**63) - 1)),
        (2**64 - 1, 2**64 - 1),
        (10**5000, hex(10**5000)),
        (True, True),
        ({"a\x00": [math.nan, {"\ud800": 2**70}]}, {"a\ufffd": [None, {"\ufffd": str(2**70)}]}),
        ((1, "\udc00"), [1, "\ufffd"]),
    ],
    ids=itertools.count(),
)
def test_each_kind_becomes_what_it_is_said_to_become(value: Any, stored: Any) -> None:
    assert storable(value) == stored


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ('{"a": NaN, "b": Infinity, "c": -Infinity}', {"a": None, "b": None, "c": None}),
        ('{"predict_time": 1e999}', {"predict_time": None}),
        ('"\\ud83d"', "\ufffd"),
        ('"\\uD83D\\uDE00"', "😀"),
        ('"a\\u0000"', "a\ufffd"),
        ("1" * 30, "1" * 30),
        ("9" * 5000, "9" * 5000),
        ("-9223372036854775808", -(2**63)),
        ("18446744073709551615", 2**64 - 1),
    ],
    ids=itertools.count(),
)
def test_what_gateways_write_is_read_as_something_storable(text: str, read: Any) -> None:
    assert loads(text) == loads(text.encode()) == read


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("cat \ud83d", "input.prompt: half of a character (U+D83D) at position 5 of the text cannot be stored"),
        ("\x00cat", "input.prompt: a NUL (U+0000) at position 1 of the text cannot be stored"),
        (["a", {"b": math.nan}], "input.prompt[1].b: nan cannot be sent as JSON"),
        (2**64, "input.prompt: an integer of 65 bits cannot be stored; 64 are the limit"),
        ({"a\x00": 1}, "input.prompt: the name 'a\\x00': a NUL (U+0000) at position 2 of the text cannot be stored"),
    ],
)
def test_what_cannot_be_stored_is_named_with_its_place(value: Any, problem: str) -> None:
    assert list(find_unstorable(value, "input.prompt")) == [problem]
