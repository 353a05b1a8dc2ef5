"""
### A person looks before anything is published

The pictures are made and stored, then Airflow's own approval task shows them to a person in the UI, under *Required
Actions*. Only what is approved is copied to the folder of published pictures; a refusal skips that. The task waits for
an answer as long as it takes, and holds no worker slot.

The Markdown of the question shows the pictures by their URLs at the gateway, which live for ten minutes to an hour.
What is published comes from the stored files, which stay.

Needs a connection `flux_default` of type *FLUX gateway* with an API key.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.configuration import get_airflow_home
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import dag, task

from airflow_provider_flux.operators.flux import FluxPredictionOperator

QUESTION = """\
Made of the prompt *{{ ti.xcom_pull(task_ids="make_posters", key="flux_result")["prompt"] }}*:

{% for url in ti.xcom_pull(task_ids="make_posters", key="flux_result")["outputs"] -%}
![Poster {{ loop.index }}]({{ url }})
{% endfor %}"""


@dag(
    schedule=None,
    catchup=False,
    params={
        "output_path": f"{get_airflow_home()}/flux-pictures/posters",
        "published_path": f"{get_airflow_home()}/flux-pictures/published",
    },
    doc_md=__doc__,
    tags=["example", "flux"],
)
def flux_approve_before_publish() -> None:
    posters = FluxPredictionOperator(
        task_id="make_posters",
        model="black-forest-labs/flux-schnell",
        input={
            "prompt": "A poster for a summer concert in a park, screen print in three colours",
            "aspect_ratio": "3:4",
            "num_outputs": 2,
        },
        output_path="{{ params.output_path }}",
        wait_for_completion=True,
        deferrable=True,
        timeout=timedelta(minutes=10),
        retries=2,
        retry_delay=timedelta(seconds=15),
    )
    approve = ApprovalOperator(
        task_id="approve",
        subject="Publish these posters?",
        body=QUESTION,
    )

    @task
    def publish(paths: list[str], params: dict[str, str] | None = None) -> list[str]:
        from airflow.sdk import ObjectStoragePath

        folder = ObjectStoragePath((params or {})["published_path"])
        folder.mkdir(parents=True, exist_ok=True)
        published = [folder / ObjectStoragePath(path).name for path in paths]
        for path, copy in zip(paths, published, strict=True):
            copy.write_bytes(ObjectStoragePath(path).read_bytes())
        return [str(copy) for copy in published]

    posters >> approve >> publish(posters.output)


flux_approve_before_publish()
