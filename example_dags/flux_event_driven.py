"""
### A DAG that starts when a picture is done

`flux_ask_for_pictures` asks for pictures and ends at once: nothing waits for them. When one is done, the gateway calls
this Airflow, which makes an asset event of it, and `flux_event_driven` starts by itself, stores the picture, and hands
on its path. It does so for every prediction of the connection that names this Airflow as its webhook, also for those
that any other program has made.

Needs a connection `flux_default` of type *FLUX gateway* with an API key and, in its extra, `webhook_base_url` (where
the gateway reaches this Airflow's API server) and `airflow_user` with `airflow_password` (who may make asset events).
"""

from __future__ import annotations

from datetime import timedelta

from airflow.configuration import get_airflow_home
from airflow.sdk import Asset, dag, task

from airflow_provider_flux.operators.flux import FluxPredictionOperator
from airflow_provider_flux.sensors.flux import FluxPredictionSensor

PROMPTS = ["A green enamel teapot, product photo", "A white porcelain cup, product photo"]


@dag(schedule=None, catchup=False, doc_md=__doc__, tags=["example", "flux"])
def flux_ask_for_pictures() -> None:
    FluxPredictionOperator.partial(
        task_id="ask",
        model="black-forest-labs/flux-schnell",
        webhook="auto",
        retries=2,
        retry_delay=timedelta(seconds=15),
    ).expand(prompt=PROMPTS)


@dag(
    schedule=Asset("flux://predictions/flux_default"),
    catchup=False,
    params={"output_path": f"{get_airflow_home()}/flux-pictures/events"},
    doc_md=__doc__,
    tags=["example", "flux"],
)
def flux_event_driven() -> None:
    @task
    def made(triggering_asset_events: dict[Asset, list] | None = None) -> list[str]:
        events = [event for some in (triggering_asset_events or {}).values() for event in some]
        return sorted({event.extra["id"] for event in events if event.extra["status"] == "succeeded"})

    pictures = FluxPredictionSensor.partial(
        task_id="store",
        output_path="{{ params.output_path }}",
        deferrable=True,
        timeout=600,
        retries=2,
        retry_delay=timedelta(seconds=15),
    ).expand(prediction_id=made())

    @task
    def publish(paths: list[list[str]]) -> list[str]:
        published = [path for some in paths for path in some]
        for path in published:
            print(path)
        return published

    publish(pictures.output)


flux_ask_for_pictures()
flux_event_driven()
