"""
### Another model when one is out

A picture is asked of the model that is wanted most. If that cannot be had (no channel, no credit, a failure of the
model), another one is taken, and only if what came before certainly costs nothing more. What the result tells is which
model made the picture, and why the others did not.

A fallback may name another connection as well, of another account or another service:

    {"flux_conn_id": "flux_bfl", "model": "flux-2-pro", "input": {"width": 1024, "height": 1024}}

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
def flux_with_fallbacks() -> None:
    picture = FluxPredictionOperator(
        task_id="make_picture",
        model="black-forest-labs/flux-2-pro",
        prompt="A lighthouse on a cliff in the evening, oil painting",
        input={"aspect_ratio": "16:9"},
        fallbacks=[
            {"model": "black-forest-labs/flux-1.1-pro"},
            {"model": "black-forest-labs/flux-schnell"},
        ],
        wait_for_completion=True,
        deferrable=True,
        timeout=timedelta(minutes=10),
    )

    @task
    def tell(result: dict) -> str:
        for way in result["passed_over"]:
            print(f"not {way['model']} at {way['gateway']}: {way['reason']} ({way['error']})")
        return f"{result['model']} at {result['gateway']}"

    tell(picture.output["flux_result"])


flux_with_fallbacks()
