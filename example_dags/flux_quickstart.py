"""
### Two pictures, the quick start

For each picture one task asks a FLUX model for it and a second one waits until it is there. The sensor waits in the
triggerer, so it holds no worker slot.

Needs a connection `flux_default` of type *FLUX gateway* with an API key.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag

from airflow_provider_flux.operators.flux import FluxPredictionOperator
from airflow_provider_flux.sensors.flux import FluxPredictionSensor


@dag(
    schedule=None,
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=15)},
    doc_md=__doc__,
    tags=["example", "flux"],
)
def flux_quickstart() -> None:
    lantern = FluxPredictionOperator(
        task_id="make_lantern",
        model="black-forest-labs/flux-1.1-pro",
        input={
            "prompt": "A red paper lantern on a wooden table, studio photo",
            "aspect_ratio": "1:1",
            "output_format": "jpg",
        },
    )
    FluxPredictionSensor(
        task_id="lantern_ready",
        prediction_id=lantern.output,
        deferrable=True,
        timeout=timedelta(minutes=10),
    )

    boat = FluxPredictionOperator(
        task_id="make_boat",
        model="black-forest-labs/flux-schnell",
        input={
            "prompt": "A paper boat floating on calm water at sunrise.",
            "aspect_ratio": "1:1",
            "output_format": "webp",
            "output_quality": 80,
        },
    )
    FluxPredictionSensor(
        task_id="boat_ready",
        prediction_id=boat.output,
        deferrable=True,
        timeout=timedelta(minutes=10),
    )


flux_quickstart()
