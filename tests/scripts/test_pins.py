"""The pins fit each other and work with every package index."""

from __future__ import annotations

from pathlib import Path

import pytest

from test_matrix import AIRFLOWS

ROOT = Path(__file__).parents[2]
PIN_FILES = [ROOT / "requirements-dev.txt", *sorted((ROOT / "constraints").glob("*.txt"))]


@pytest.mark.parametrize("path", PIN_FILES, ids=lambda path: path.name)
def test_pins_name_no_package_index(path: Path) -> None:
    lines = path.read_text().splitlines()

    assert [line for line in lines if "==" not in line or "//" in line or line.startswith("-")] == []


def test_each_airflow_of_the_matrix_has_its_constraints() -> None:
    constraints = {path.name for path in (ROOT / "constraints").glob("airflow-*.txt")}

    assert constraints == {f"airflow-{version}.txt" for version in AIRFLOWS}
    for version in AIRFLOWS:
        pins = (ROOT / "constraints" / f"airflow-{version}.txt").read_text().splitlines()
        assert f"apache-airflow=={version}" in pins


def test_the_development_environment_is_the_newest_airflow() -> None:
    assert f"apache-airflow=={AIRFLOWS[-1]}" in (ROOT / "requirements-dev.txt").read_text().splitlines()
