"""
### Photos that are there already get another background

A shop has taken photos of what it sells. FLUX Kontext puts each thing on a plain white background, and the FLUX tab of
the run shows every picture before and after. A person approves them under *Required Actions*; only then are they
copied to the folder of published pictures.

The photos may lie in any storage that Airflow reaches: set the parameter `photos` to a path such as
`s3://aws_default@photos/shelf`. They are read and checked before anything is paid for, and a photo that has not changed
costs nothing the next time.

Needs a connection `flux_default` of type *FLUX gateway* with an API key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow.configuration import get_airflow_home
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import dag, task

from airflow_provider_flux.operators.batch import FluxBatchOperator

QUESTION = """\
{{ ti.xcom_pull(task_ids="restyle", key="flux_batch")["succeeded"] }} photos have a new background. The tab *FLUX* of
this run shows each of them before and after."""


@dag(
    schedule=None,
    catchup=False,
    params={
        "photos": str(Path(__file__).parent / "photos"),
        "output_path": f"{get_airflow_home()}/flux-pictures/restyled",
        "published_path": f"{get_airflow_home()}/flux-pictures/published-photos",
    },
    doc_md=__doc__,
    tags=["example", "flux"],
)
def flux_restyle_photos() -> None:
    @task
    def photos(params: dict[str, str] | None = None) -> list[dict[str, str]]:
        from airflow.sdk import ObjectStoragePath

        found = sorted(ObjectStoragePath((params or {})["photos"]).iterdir(), key=str)
        return [{"thing": photo.stem, "photo": str(photo)} for photo in found if photo.suffix == ".jpg"]

    restyle = FluxBatchOperator(
        task_id="restyle",
        rows=photos(),
        key="thing",
        model="black-forest-labs/flux-kontext-pro",
        prompt="The same {{ row.thing }} on a plain white background, soft light from the left",
        input={"input_image": "{{ row.photo }}"},
        output_path="{{ params.output_path }}",
        retries=2,
    )
    approve = ApprovalOperator(task_id="approve", subject="Publish these photos?", body=QUESTION)

    @task
    def publish(manifest_path: str, params: dict[str, str] | None = None) -> list[str]:
        from airflow.sdk import ObjectStoragePath

        from airflow_provider_flux.batch.manifest import read_manifest

        folder = ObjectStoragePath((params or {})["published_path"])
        folder.mkdir(parents=True, exist_ok=True)
        made: list[dict[str, Any]] = [row for row in read_manifest(manifest_path) if row["path"]]
        for row in made:
            picture = ObjectStoragePath(row["path"])
            (folder / f"{row['key']}{picture.suffix}").write_bytes(picture.read_bytes())
        return [row["key"] for row in made]

    restyle >> approve >> publish(restyle.output)


flux_restyle_photos()
