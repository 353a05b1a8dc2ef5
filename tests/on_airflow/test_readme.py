"""The README's examples, as they are written there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.operators.flux import FluxPredictionOperator
from tests.conftest import Connect
from tests.on_airflow.runs import run

pytestmark = pytest.mark.usefixtures("airflow_db")

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
WAYS = [
    ("black-forest-labs/flux-2-pro", "deerapi"),
    ("black-forest-labs/flux-1.1-pro", "deerapi"),
    ("black-forest-labs/flux-2-pro", "replicate"),
    ("flux-2-pro", "bfl"),
]


def example_with(text: str) -> str:
    """Return the only example in which a text stands."""
    (found,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if text in block]
    return str(found)


@pytest.mark.parametrize("out", range(len(WAYS)))
def test_each_fallback_of_the_readme_makes_the_picture_when_its_turn_comes(
    out: int, emulator: Emulator, connect: Connect
) -> None:
    connect(emulator.url, gateway="deerapi", read_timeout=2)
    connect(emulator.url, conn_id="flux_replicate", gateway="replicate", read_timeout=2)
    connect(emulator.url, conn_id="flux_bfl", gateway="bfl", read_timeout=2)
    for _ in range(out):
        emulator.add_fault("402", on="create", times=1)
    names: dict[str, Any] = {"FluxPredictionOperator": FluxPredictionOperator}
    with DAG("of_the_readme") as dag:
        exec(example_with("fallbacks=["), names)

    finished = run(dag)

    assert finished.state == "success"
    result = finished.xcom("make_picture", "flux_result")
    assert (result["model"], result["gateway"]) == WAYS[out]
    assert [(way["model"], way["gateway"]) for way in result["passed_over"]] == WAYS[:out]
    assert (emulator.posts, emulator.accepted) == (out + 1, 1)
