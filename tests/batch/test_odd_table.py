"""A table such as people bring: rows with characters of all of Unicode, quotes, braces, nulls and repeats."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import FluxInputError
from tests.batch.task_instance import BatchTaskInstance, write_table
from tests.conftest import Connect

PIECES = (
    *(
        "{{ row.name }}",
        "{% raw %}",
        "{# comment #}",
        "{{",
        "}}",
        "{}",
        "%s",
        "%(key)s",
        "$HOME",
        "\\",
        "\\n",
        "\\u0041",
    ),
    *('"', "'", "`", "“quoted”", "<b>", "&amp;", "]]>", "-- ", "; DROP TABLE rows", "../..", "=1+1", "@", "#", "|"),
    *("\n", "\r\n", "\r", "\t", "\x0b", "\x0c", "\x1c", "\x1b[31m", "\x7f", "\x85", "\u2028", "\u2029"),
    *("null", "None", "NaN", "true", "1984", "1e5", "007", "-0", " lead", "trail ", "\ufeff", "\u200b", "\u202e"),
)
CANNOT_BE_SENT = ("half \ud83d", "nul \x00", None)


def odd_table(count: int, seed: int) -> tuple[list[dict[str, Any]], set[str]]:
    """Return rows, and the keys of those that must be refused."""
    random_source = random.Random(seed)
    # Unicode's blocks begin at multiples of 16; all but the smallest few hold one of these.
    characters = [chr(code) for code in range(0x20, 0x110000, 64) if not 0xD800 <= code < 0xE000]
    random_source.shuffle(characters)
    rows, refused = [], set()
    for number in range(count):
        key = f"row-{number}" if number % 3 else f"ключ {number} / ä?%#{random_source.choice(characters)}"
        block = [characters[(number * 11 + offset) % len(characters)] for offset in range(11)]
        name: str | None = "".join(random_source.sample([*block, *random_source.sample(PIECES, 4)], 15))
        if number % 50 == 7:
            name = CANNOT_BE_SENT[number // 50 % len(CANNOT_BE_SENT)]
            refused.add(key)
        elif number % 50 == 9:
            name = rows[-1]["name"]  # a repeat under another key is another picture
        rows.append({"sku": key, "name": name, "unused": random_source.choice([None, [], {"a": 1}, 2**70, "\x00"])})
    return rows, refused


@pytest.fixture(autouse=True)
def gateway(emulator: Emulator, connect: Connect) -> None:
    emulator.settings(small_pictures=True)
    connect(emulator.url, gateway="deerapi", read_timeout=5)


@pytest.mark.parametrize("count", [400, pytest.param(1600, marks=pytest.mark.chaos)])
def test_each_row_of_an_odd_table_is_made_as_it_is_or_refused_before_it_is_paid_for(
    emulator: Emulator, tmp_path: Path, count: int
) -> None:
    rows, refused = odd_table(count, seed=20261127)
    instance = BatchTaskInstance(
        tmp_path, rows=write_table(tmp_path / "table.jsonl", rows), prompt="A photo of: {{ row.name }}"
    )
    instance.execute()

    manifest = {listed["key"]: listed for listed in instance.manifest()}
    asked = {row["sku"].strip(): f"A photo of: {row['name']}" for row in rows}
    failed = {key for key, listed in manifest.items() if listed["status"] == "failed"}
    assert list(manifest) == list(asked)
    assert failed == refused
    assert (emulator.posts, emulator.accepted) == (count - len(refused), count - len(refused))
    sent = sorted(str(prediction.input["prompt"]) for prediction in emulator.predictions)
    assert sent == sorted(asked[key] for key in manifest if key not in refused)
    for key, listed in manifest.items():
        if key in refused:
            assert listed["error"]
        else:
            assert listed["prompt"] == asked[key]
            assert Path(listed["path"]).stat().st_size

    instance.next_run()
    assert emulator.posts == count - len(refused)


def test_a_key_that_stands_twice_among_them_is_refused_before_anything_is_paid_for(
    emulator: Emulator, tmp_path: Path
) -> None:
    rows, _ = odd_table(1600, seed=3)
    rows[-1]["sku"] = rows[12]["sku"]
    with pytest.raises(FluxInputError, match="rows 13 and 1600 both have"):
        BatchTaskInstance(tmp_path, rows=json.loads(json.dumps(rows))).execute()
    assert emulator.posts == 0
