from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_flux.outputs.naming import safe_part, task_stem, without_connection

FACTS = {"dag_id": "shop", "run_id": "manual", "task_id": "make", "map_index": 3, "prediction_id": "abc"}


def test_a_stem_is_made_of_what_stays_the_same_in_a_retry():
    assert task_stem("s3://c@b/p", **FACTS) == "s3://c@b/p/shop/manual/make/3/abc"
    assert task_stem("/data/", **{**FACTS, "map_index": -1}) == "/data/shop/manual/make/-1/abc"


def test_a_run_id_loses_its_odd_characters_and_stays_readable():
    part = safe_part("scheduled__2026-11-22T09:43:54.123456+00:00")
    assert re.fullmatch(r"scheduled__2026-11-22T09-43-54\.123456-00-00-[0-9a-f]{10}", part)


def test_parts_that_differ_only_in_odd_characters_stay_apart():
    parts = ["a:b", "a+b", "a/b", "a-b", "a b", "ä:b", "ö:b", "..", ".", "", "...", ".a", "a.", "A:b"]
    assert len({safe_part(part) for part in parts}) == len(parts)


def test_long_parts_fit_into_any_file_system_and_stay_apart():
    one, other = safe_part("x" * 250), safe_part("x" * 249 + "y")
    assert one != other
    assert len(one) < 200


@given(st.text(max_size=300))
def test_a_part_is_always_safe_and_always_the_same(text):
    part = safe_part(text)
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", part)
    assert not part.endswith(".")
    assert len(part) < 200
    assert part == safe_part(text)


@given(st.text(max_size=40), st.text(max_size=40))
def test_two_texts_never_become_one_part(one, other):
    assert (safe_part(one) == safe_part(other)) == (one == other)


def test_a_path_is_told_without_its_connection():
    assert without_connection("s3://conn@bucket/a/b@c.png") == ("s3", "bucket", "/a/b@c.png")
    assert without_connection("s3://bucket/a") == ("s3", "bucket", "/a")
    assert without_connection("file:///tmp/a#b") == ("file", "", "/tmp/a#b")
    assert without_connection("/tmp/a?b") == ("", "", "/tmp/a?b")
