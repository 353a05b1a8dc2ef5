"""
### One picture per row

Rows come from a first task, each row becomes a mapped task that makes its picture, and a last task puts rows and
pictures together. `max_active_tis_per_dagrun` bounds how many predictions run at a time.

Needs a connection `flux_default` of type *FLUX gateway* with an API key.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from airflow.sdk import dag, task

from airflow_provider_flux.operators.flux import FluxPredictionOperator


@dag(
    schedule=None,
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=15)},
    doc_md=__doc__,
    tags=["example", "flux"],
)
def flux_mapped_prompts() -> None:
    @task
    def products() -> list[dict[str, str]]:
        return [
            {"sku": "TEA-01", "name": "a green enamel teapot"},
            {"sku": "CUP-07", "name": "a white porcelain cup"},
            {"sku": "TRAY-3", "name": "a round bamboo tray"},
        ]

    @task
    def model_inputs(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [
            {
                "prompt": f"{row['name']}, product photo on a plain background",
                "aspect_ratio": "4:3",
                "output_format": "webp",
            }
            for row in rows
        ]

    @task
    def catalogue(rows: list[dict[str, str]], pictures: Iterable[list[str]]) -> list[dict[str, str]]:
        return [{**row, "picture": urls[0]} for row, urls in zip(rows, pictures, strict=True)]

    rows = products()
    pictures = FluxPredictionOperator.partial(
        task_id="make_picture",
        model="black-forest-labs/flux-schnell",
        wait_for_completion=True,
        deferrable=True,
        timeout=timedelta(minutes=10),
        max_active_tis_per_dagrun=4,
        map_index_template="{{ task.input['prompt'] }}",
    ).expand(input=model_inputs(rows))
    catalogue(rows, pictures.output)


flux_mapped_prompts()
