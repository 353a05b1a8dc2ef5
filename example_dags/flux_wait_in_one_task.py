"""
### One picture, one task

The operator asks for the picture and waits for it: a moment on the worker, then in the triggerer. What it returns is
the list of the picture's URLs. They work for an hour at most, so a next task should use them soon.

Needs a connection `flux_default` of type *FLUX gateway* with an API key.
"""

from __future__ import annotations

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
def flux_wait_in_one_task() -> None:
    picture = FluxPredictionOperator(
        task_id="make_lighthouse",
        model="black-forest-labs/flux-1.1-pro",
        input={
            "prompt": "A lighthouse on a cliff in the evening, oil painting",
            "aspect_ratio": "16:9",
            "output_format": "png",
        },
        wait_for_completion=True,
        deferrable=True,
        timeout=timedelta(minutes=10),
    )

    @task
    def print_urls(urls: list[str]) -> None:
        for url in urls:
            print(url)

    print_urls(picture.output)


flux_wait_in_one_task()
