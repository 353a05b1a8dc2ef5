from __future__ import annotations

import subprocess
import sys

from airflow_provider_flux.outputs.lineage import operator_lineage
from airflow_provider_flux.outputs.storing import StoredPicture

PICTURES = [
    StoredPicture("s3://conn@bucket/shop/abc_0.png", "https://x/y.png?sig=secret", "00", 1234, 30, 20, "png"),
    StoredPicture("/data/abc_1.png", "", "11", 99, 30, 20, "png"),
]


def test_the_files_and_who_made_them_are_told_to_openlineage():
    lineage = operator_lineage(PICTURES, gateway="DeerAPI", model="black-forest-labs/flux-dev")
    assert lineage.inputs == []
    assert [(dataset.namespace, dataset.name) for dataset in lineage.outputs] == [
        ("s3://bucket", "shop/abc_0.png"),
        ("file", "/data/abc_1.png"),
    ]
    statistics = lineage.outputs[0].outputFacets["outputStatistics"]
    assert (statistics.size, statistics.fileCount) == (1234, 1)
    assert {tag.key: tag.value for tag in lineage.run_facets["tags"].tags} == {
        "flux_gateway": "DeerAPI",
        "flux_model": "black-forest-labs/flux-dev",
    }


def test_openlineage_writes_the_event_and_it_holds_no_signature():
    from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
    from openlineage.client.serde import Serde

    lineage = operator_lineage(PICTURES, gateway="DeerAPI", model="m/x")
    event = RunEvent(
        eventType=RunState.COMPLETE,
        eventTime="2026-11-22T00:00:00Z",
        run=Run(runId="0197a0a0-0000-7000-8000-000000000000", facets=lineage.run_facets),
        job=Job(namespace="airflow", name="shop.make"),
        outputs=lineage.outputs,
    )
    written = Serde.to_json(event)
    assert "shop/abc_0.png" in written
    assert "secret" not in written


def test_the_module_can_be_imported_where_openlineage_is_not_installed():
    probe = """
import sys
sys.modules["openlineage"] = None
sys.modules["airflow.providers.openlineage.extractors"] = None
import airflow_provider_flux.outputs.lineage
"""
    subprocess.run([sys.executable, "-c", probe], check=True, timeout=60)
