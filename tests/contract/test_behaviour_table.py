"""The table of promised behaviour has tests for each of its rows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    line.split(" | ")[0].removeprefix("| ")
    for line in (ROOT / "docs" / "behaviour.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| Event", "| ---"))
]


@pytest.mark.parametrize("row", ROWS)
def test_a_promise_has_a_test_that_carries_its_name(row: str) -> None:
    sources = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
    named = re.compile(r"(def test_\w+|class Test\w+)\b[^\"]*\"\"\"[^\"]*" + re.escape(row))
    assert any(named.search(source) for source in sources)
