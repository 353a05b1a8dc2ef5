"""Whole lives of tasks under seeded faults and kills: the gateway's ledger and the task's state agree afterwards.

One seed again, with its record: ``.venv/bin/python scripts/chaos.py --only SEED --tell``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# The first test waits for all seeds.
pytestmark = [pytest.mark.chaos, pytest.mark.timeout(450)]

ROOT = Path(__file__).parent.parent.parent
QUICK_SEEDS = tuple(range(6))
REGRESSION_SEEDS = (
    *(100075, 100099, 100149, 100155, 100201, 100203, 100216, 100267),
    *(100309, 100359, 100411, 100415, 101517),
)
"""Every seed that ever broke a promise. A change of ``plan.py`` or of the emulator's list of faults gives them other
plans: replace them then by seeds whose plans have the same faults and kills."""


def chaos(reports: Path, *arguments: str, limit: float) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own: it forks, which a process with threads must not."""
    command = [sys.executable, "scripts/chaos.py", "--json", str(reports), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """What became of the quick seeds and of those that ever failed."""
    path = tmp_path_factory.mktemp("chaos") / "reports.json"
    finished = chaos(path, "--jobs", "6", "--only", *map(str, QUICK_SEEDS + REGRESSION_SEEDS), limit=400)
    assert path.exists(), finished.stderr
    return {report["seed"]: report for report in json.loads(path.read_text())}


@pytest.mark.parametrize("seed", QUICK_SEEDS + REGRESSION_SEEDS)
def test_every_promise_is_kept(reports: dict[int, dict[str, Any]], seed: int) -> None:
    report = reports[seed]
    assert report["problems"] == {}, "\n".join(report["record"])
