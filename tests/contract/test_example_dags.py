"""The example DAGs import as they are, without a warning."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "example_dags").glob("*.py"))


RUN_ALL = """
import runpy, sys
for path in sys.argv[1:]:
    print("##", path, file=sys.stderr)
    runpy.run_path(path)
"""


def test_there_are_examples() -> None:
    assert {
        "flux_quickstart",
        "flux_wait_in_one_task",
        "flux_mapped_prompts",
        "flux_product_catalogue",
        "flux_batch_incremental",
        "flux_approve_before_publish",
        "flux_mapped_batches",
        "flux_with_fallbacks",
        "flux_event_driven",
    } <= {path.stem for path in EXAMPLES}


@pytest.fixture(scope="module")
def told() -> str:
    """What Python tells while it runs all examples in one process, each after its name."""
    program = (
        "import runpy, sys\nfor path in sys.argv[1:]:\n    print('##', path, file=sys.stderr)\n    runpy.run_path(path)"
    )
    command = [sys.executable, "-W", "always", "-c", program, *map(str, EXAMPLES)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert finished.returncode == 0, finished.stderr
    return finished.stderr


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_imports_without_a_warning_of_its_own(told: str, path: Path) -> None:
    _, found, of_this = told.partition(f"## {path}\n")
    assert found
    lines = of_this.partition("\n## ")[0].splitlines()
    assert [line for line in lines if "Warning" in line and ("example_dags" in line or "flux" in line)] == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_says_in_the_ui_what_it_shows(path: Path) -> None:
    told = ast.get_docstring(ast.parse(path.read_text("utf-8")), clean=True)
    assert told is not None
    assert told.startswith("### ")
    assert "doc_md=__doc__" in path.read_text("utf-8")
