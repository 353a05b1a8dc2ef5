"""
### One table, several workers

A large table is split into parts, and each part is a mapped task that makes its rows' pictures, on whatever worker is
free. The parts are read from the table's file row by row, so nothing large goes through XCom. When all are done, a
plain task makes one manifest of theirs, in the table's order.

One task makes many pictures at a time by itself: parts are for tables of thousands of rows, not for speed on small
ones. What all tasks together may ask of the gateway is the connection's rate.

Needs a connection `flux_default` of type *FLUX gateway* with an API key.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from airflow.configuration import get_airflow_home
from airflow.sdk import ObjectStoragePath, dag, task

from airflow_provider_flux.batch.rows import split_rows
from airflow_provider_flux.operators.batch import FluxBatchOperator

PARTS = 3


@dag(
    schedule=None,
    catchup=False,
    params={
        "table": f"{get_airflow_home()}/flux-pictures/animals/table.jsonl",
        "output_path": f"{get_airflow_home()}/flux-pictures/animals",
    },
    default_args={"retries": 2, "retry_delay": timedelta(seconds=15)},
    doc_md=__doc__,
    tags=["example", "flux"],
)
def flux_mapped_batches() -> None:
    @task
    def write_demo_table(params: dict[str, str] | None = None) -> None:
        animals = ["an otter", "a heron", "a hedgehog", "a red fox", "a barn owl", "a badger", "a hare", "a kingfisher"]
        rows = [{"id": f"animal-{number}", "animal": animal} for number, animal in enumerate(animals, 1)]
        table = ObjectStoragePath((params or {})["table"])
        if not table.exists():
            table.parent.mkdir(parents=True, exist_ok=True)
            table.write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    pictures = FluxBatchOperator.partial(
        task_id="make_pictures",
        key="id",
        model="black-forest-labs/flux-schnell",
        prompt="{{ row.animal }} at the edge of a wood, watercolour",
        input={"aspect_ratio": "1:1", "output_format": "webp"},
        output_path="{{ params.output_path }}",
        max_in_flight=8,
    ).expand(rows=split_rows("{{ params.table }}", PARTS))

    @task
    def merge(params: dict[str, str] | None = None) -> dict[str, Any]:
        from airflow_provider_flux.batch.manifest import merge_manifests

        return merge_manifests(f"{(params or {})['output_path']}/manifest.jsonl", PARTS)

    write_demo_table() >> pictures >> merge()


flux_mapped_batches()
