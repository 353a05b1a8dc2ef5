"""
### Every day only what is new

A restaurant's menu gets its pictures every morning. The batch compares each row with the manifest of the day before:
dishes that are as they were keep their pictures and cost nothing, so that a day costs one picture, that of the special.

The batch's outlet is an asset, and a second DAG is scheduled by it. It asks the asset's latest event which manifest
there is and reads it: what is on the menu, and what has been made anew.

Needs a connection `flux_default` of type *FLUX gateway* with an API key. Unpause both DAGs.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.configuration import get_airflow_home
from airflow.sdk import Asset, dag, task

from airflow_provider_flux.operators.batch import FluxBatchOperator

MENU = Asset("flux_menu_pictures")
OUTPUT_PATH = f"{get_airflow_home()}/flux-pictures/menu"
DISHES = {
    "soup": "a bowl of tomato soup with basil",
    "pasta": "a plate of tagliatelle with mushrooms",
    "dessert": "a slice of lemon tart",
}
SPECIALS = ["dumplings", "a bean stew", "a risotto", "a vegetable curry", "fish and chips", "a pizza", "a roast"]


@dag(
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=15)},
    doc_md=__doc__,
    tags=["example", "flux"],
)
def flux_batch_incremental() -> None:
    @task
    def menu(dag_run: Any = None) -> list[dict[str, str]]:
        dishes = {**DISHES, "special": SPECIALS[dag_run.run_after.weekday()]}
        return [{"dish": dish, "look": look} for dish, look in dishes.items()]

    FluxBatchOperator(
        task_id="make_pictures",
        rows=menu(),
        key="dish",
        model="black-forest-labs/flux-schnell",
        prompt="{{ row.look }}, seen from above on a wooden table, food photo",
        input={"aspect_ratio": "4:3", "output_format": "webp"},
        output_path=OUTPUT_PATH,
        incremental=True,
        outlets=[MENU],
    )


@dag(schedule=[MENU], catchup=False, doc_md=__doc__, tags=["example", "flux"])
def flux_batch_consumer() -> None:
    @task(inlets=[MENU])
    def print_menu(inlet_events: Any = None) -> dict[str, str]:
        from airflow_provider_flux.batch.manifest import read_manifest

        manifest_path = inlet_events[MENU][-1].source_task_instance.xcom_pull()
        pictures = {}
        for row in read_manifest(manifest_path):
            print(f"{row['key']}: {row['path']} ({'as it was' if row['status'] == 'kept' else row['status']})")
            pictures[row["key"]] = row["path"]
        return pictures

    print_menu()


flux_batch_incremental()
flux_batch_consumer()
