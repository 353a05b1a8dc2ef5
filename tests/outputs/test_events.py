from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_flux.outputs.events import asset_uri, record_asset_events
from airflow_provider_flux.outputs.storing import store_outputs
from tests.on_airflow.runs import run
from tests.outputs.drawings import data_uri, drawn


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("/data/a b/x.png", "file:///data/a b/x.png"),
        ("file:///data/x.png", "file:///data/x.png"),
        ("s3://conn@bucket/a@b/x.png", "s3://bucket/a@b/x.png"),
    ],
)
def test_an_asset_names_a_picture_without_its_connection(path, uri):
    assert asset_uri(path) == uri


@pytest.mark.usefixtures("airflow_db")
def test_each_stored_picture_becomes_an_asset_event(tmp_path: Path):
    from airflow.sdk import DAG, Asset, AssetAlias, task

    stem = str(tmp_path / "abc")
    outlets = [AssetAlias("new-pictures"), Asset(name="catalogue", uri="file:///catalogue")]
    with DAG("stored_pictures_make_events", schedule=None) as dag:

        @task(outlets=outlets)
        def make(**context):
            outputs = [data_uri(drawn()), data_uri(drawn("jpg"))]
            record_asset_events(
                context, outlets, store_outputs(outputs, stem, prediction_id="abc"), {"prompt": "a boat"}
            )

        make()

    finished = run(dag)

    assert finished.state == "success"
    events = {event.asset.uri: event.extra for event in finished.asset_events()}
    assert set(events) == {f"file://{stem}_0.png", f"file://{stem}_1.jpg", "file:///catalogue"}
    first = events[f"file://{stem}_0.png"]
    assert (first["prompt"], first["width"], first["height"], first["format"]) == ("a boat", 30, 20, "png")
    assert first["size"] == (tmp_path / "abc_0.png").stat().st_size
    assert [picture["uri"] for picture in events["file:///catalogue"]["pictures"]] == [
        f"file://{stem}_0.png",
        f"file://{stem}_1.jpg",
    ]
