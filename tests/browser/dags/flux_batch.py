"""A real batch, slow enough to be looked at while it runs."""

from __future__ import annotations

from airflow.sdk import DAG, Param

from airflow_provider_flux.operators.batch import FluxBatchOperator

THINGS = ("teapot", "porcelain cup", "bamboo tray", "brass kettle", "linen towel", "honey jar")
SETTINGS = ("in morning light", "on a marble table", "by the sea", "in a studio", "among autumn leaves")

ROWS = [
    {"sku": f"sku-{number:02d}", "name": f"{THINGS[number % len(THINGS)]} {SETTINGS[number % len(SETTINGS)]}"}
    for number in range(30)
]
ROWS[5]["name"] = "refused thing"

with DAG("ui_real_batch", schedule=None, catchup=False, params={"folder": Param("", type="string")}):
    FluxBatchOperator(
        task_id="make_catalogue",
        rows=ROWS,
        key="sku",
        model="black-forest-labs/flux-schnell",
        prompt="A {{ row.name }}, catalogue photo {{ row.sku }}",
        output_path="{{ params.folder }}",
        max_in_flight=6,
        poll_interval=1.0,
    )
