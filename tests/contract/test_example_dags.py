"""The example DAGs import as they are, without a warning."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "example_dags").glob("*.py"))


def test_there_are_examples() -> None:
    assert {"flux_quickstart", "flux_wait_in_one_task", "flux_mapped_prompts"} <= {path.stem for path in EXAMPLES}


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
