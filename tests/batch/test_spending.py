"""What a batch has spent: by list or at most, as the gateway says it, and within its budget on every gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import FluxBudgetError
from airflow_provider_flux.hooks import gateway_calls
from airflow_provider_flux.protocol.catalogue import BFL_MODELS, MODELS
from airflow_provider_flux.protocol.dialects import dialect_of
from airflow_provider_flux.protocol.presets import PRESETS
from tests.batch.task_instance import SCHNELL, BatchTaskInstance, table
from tests.conftest import Connect


@pytest.mark.parametrize("gateway", PRESETS)
def test_a_budget_is_kept_in_every_cell(gateway: str, emulator: Emulator, connect: Connect, tmp_path: Path) -> None:
    """cost known, unknown, and the budget crossed; a budget where no price is published"""
    connect(emulator.url, gateway=gateway)
    models = [name for name in (*MODELS, *BFL_MODELS) if dialect_of(name) in PRESETS[gateway].dialects]
    rows = [{"sku": f"{at}", "name": name, "model": name} for at, name in enumerate(models)]
    batch = BatchTaskInstance(tmp_path, rows=rows, model="{{ row.model }}", budget_usd=0.0001)
    with pytest.raises(FluxBudgetError, match="row '0' would cost"):
        batch.execute()
    assert emulator.posts == 0

    batch.options["budget_usd"] = 5
    batch.clear()

    assert (emulator.posts, emulator.accepted) == (len(models), len(models))
    assert all(0 < line["cost_usd"] < 1 for line in batch.manifest())
    assert batch.totals["spent_usd"] == pytest.approx(sum(line["cost_usd"] for line in batch.manifest()))


@pytest.mark.parametrize(
    ("gateway", "model", "spent", "at_most", "measured"),
    [
        ("deerapi", SCHNELL, 0.009, True, 0.009),
        # CometAPI's list says it, and its account does not.
        ("cometapi", SCHNELL, 0.009, False, None),
        ("replicate", SCHNELL, 0.009, False, None),
        ("custom", SCHNELL, 0.009, True, None),
        ("bfl", "flux-2-pro", 0.09, False, 0.09),
        ("bfl", "flux-pro-1.1", 0.12, False, 0.12),
    ],
)
def test_what_is_spent_is_told_as_far_as_it_is_known(
    gateway: str,
    model: str,
    spent: float,
    at_most: bool,
    measured: float | None,
    *,
    emulator: Emulator,
    connect: Connect,
    tmp_path: Path,
) -> None:
    connect(emulator.url, gateway=gateway)
    batch = BatchTaskInstance(tmp_path, rows=table(3), model=model)

    batch.execute()

    totals = batch.totals
    assert (totals["spent_usd"], totals["spent_is_at_most"], totals["measured_usd"]) == (spent, at_most, measured)
    assert [line["cost_usd"] for line in batch.manifest()] == pytest.approx([spent / 3] * 3)
    assert {line["cost_is_at_most"] for line in batch.manifest()} == {at_most}
    figures = batch.store.kept["flux_batch"]
    assert (figures["spent_usd"], figures["spent_is_at_most"]) == (spent, at_most)


def test_cometapis_list_is_read_once_a_run(emulator: Emulator, connect: Connect, tmp_path: Path) -> None:
    connect(emulator.url, gateway="cometapi")
    batch = BatchTaskInstance(tmp_path, rows=table(8), fallbacks=[{"model": MODELS[1]}])
    batch.execute()
    assert [seen.path for seen in emulator.requests if seen.kind == "models"] == ["/api/models"]


@pytest.mark.parametrize("fault", ["500", "html", "reset_before_accept", "wrong_shape"])
@pytest.mark.parametrize("kind", ["models", "balance"])
def test_a_gateway_that_does_not_tell_prices_or_spending_holds_nothing_up(
    kind: str,
    fault: str,
    *,
    emulator: Emulator,
    connect: Connect,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gateway_calls, "FACTS_PATIENCE", 0.1)
    connect(emulator.url, gateway="cometapi" if kind == "models" else "deerapi")
    emulator.add_fault(fault, on=kind, times=None)
    batch = BatchTaskInstance(tmp_path, rows=table(2))

    batch.execute()

    assert batch.statuses() == ["succeeded"] * 2
    assert (batch.totals["spent_is_at_most"], batch.totals["measured_usd"]) == (True, None)


def test_all_that_was_paid_counts_also_for_ways_that_brought_no_picture(
    emulator: Emulator, connect: Connect, tmp_path: Path
) -> None:
    connect(emulator.url, gateway="replicate")
    emulator.add_outcome("PA", model="flux-1.1-pro", times=None)
    given: dict[str, Any] = {"model": "black-forest-labs/flux-1.1-pro", "fallbacks": [{"model": SCHNELL}]}
    batch = BatchTaskInstance(tmp_path, rows=table(2), **given)

    batch.execute()

    # What a failed prediction costs nobody says, so that it counts as one that has not failed.
    assert (batch.totals["spent_usd"], batch.totals["succeeded"]) == (0.086, 2)
