"""What other DAGs, OpenLineage and monitoring are told of a batch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, Asset, AssetAlias

from airflow_provider_flux import telemetry
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.operators.batch import FluxBatchOperator
from tests.batch.task_instance import SCHNELL, BatchTaskInstance, table
from tests.conftest import Connect
from tests.on_airflow.runs import FinishedRun, run


@pytest.fixture(autouse=True)
def gateway(emulator: Emulator, connect: Connect) -> None:
    emulator.settings(small_pictures=True)
    connect(emulator.url, gateway="deerapi", read_timeout=2)


def run_batch(name: str, folder: Path, **options: Any) -> FinishedRun:
    with DAG(name, schedule=None) as dag:
        FluxBatchOperator(
            task_id="make",
            rows=table(6),
            key="sku",
            model=SCHNELL,
            prompt="{{ row.name }}",
            output_path=str(folder),
            poll_interval=0.1,
            outlets=[Asset(name=f"{name}_table", uri=f"file:///{name}"), AssetAlias(f"{name}_manifest")],
            **options,
        )
    return run(dag)


@pytest.mark.usefixtures("airflow_db")
def test_each_outlet_gets_one_event_with_the_totals_though_a_row_has_failed(emulator: Emulator, tmp_path: Path) -> None:
    emulator.add_outcome("E005", times=1)

    finished = run_batch("batch_events", tmp_path)

    assert finished.state == "success"
    manifest = f"{tmp_path}/manifest.jsonl"
    events = {event.asset.uri: event.extra for event in finished.asset_events()}
    assert set(events) == {"file:///batch_events", f"file://{manifest}"}
    for extra in events.values():
        assert (extra["manifest_path"], extra["total"], extra["succeeded"], extra["failed"]) == (manifest, 6, 5, 1)
        assert {"kept", "unknown", "removed", "spent_usd"} < set(extra)


@pytest.mark.usefixtures("airflow_db")
def test_a_batch_that_fails_makes_no_event(emulator: Emulator, tmp_path: Path) -> None:
    emulator.add_outcome("E005", times=None)

    finished = run_batch("batch_without_events", tmp_path)

    assert finished.state == "failed"
    assert finished.asset_events() == []


def test_openlineage_is_told_of_the_manifest_and_the_folder(tmp_path: Path) -> None:
    batch = BatchTaskInstance(tmp_path, rows=table(3))
    instance = SimpleNamespace()
    assert batch.operator.get_openlineage_facets_on_complete(instance) is None
    batch.execute()

    lineage = batch.operator.get_openlineage_facets_on_complete(instance)

    assert lineage is not None
    told = [(dataset.namespace, dataset.name) for dataset in lineage.outputs]
    assert told == [("file", f"{tmp_path}/manifest.jsonl"), ("file", str(tmp_path))]
    assert lineage.outputs[0].outputFacets["outputStatistics"].rowCount == 3
    assert [tag.value for tag in lineage.run_facets["tags"].tags] == ["DeerAPI"]


class Told:
    """Stands for Airflow's Stats, and notes what it is told."""

    def __init__(self) -> None:
        self.timings: list[str] = []
        self.pending: list[int] = []

    def incr(self, *_: Any, **__: Any) -> None: ...

    def timing(self, name: str, *_: Any, **__: Any) -> None:
        self.timings.append(name)

    def gauge(self, name: str, value: int) -> None:
        assert name == "flux.predictions.pending"
        self.pending.append(value)


def test_monitoring_sees_the_run_time_of_each_row_and_what_is_pending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    monkeypatch.setattr(telemetry, "_stats", lambda: told)
    monkeypatch.setattr(telemetry, "GAUGE_INTERVAL", 0.0)

    BatchTaskInstance(tmp_path, rows=table(6)).execute()

    assert told.timings.count("flux.predictions.run_time") == told.timings.count("flux.predictions.delay") == 6
    assert max(told.pending) > 1
    assert told.pending[-1] == 0
