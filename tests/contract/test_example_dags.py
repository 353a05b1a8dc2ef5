"""The example DAGs import as they are, without a warning."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "example_dags").glob("*.py"))


def test_there_are_examples() -> None:
    assert {
        "flux_quickstart",
        "flux_wait_in_one_task",
        "flux_mapped_prompts",
        "flux_product_catalogue",
        "flux_batch_incremental",
        "flux_approve_before_publish",
        "flux_mapped_batches",
    } <= {path.stem for path in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_imports_without_a_warning_of_its_own(path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-W", "always", str(path)], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert told.returncode == 0, told.stderr
    own = [
        line for line in told.stderr.splitlines() if "Warning" in line and ("example_dags" in line or "flux" in line)
    ]
    assert own == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_says_in_the_ui_what_it_shows(path: Path) -> None:
    told = ast.get_docstring(ast.parse(path.read_text("utf-8")), clean=True)
    assert told is not None
    assert told.startswith("### ")
    assert "doc_md=__doc__" in path.read_text("utf-8")
