"""
### A picture for each product of a SQL table

One task makes the pictures of all rows, many at a time, and the next one writes their paths back to the table. Run it
again and only products that are new or have changed cost anything. Whatever ends the task, a retry goes on where it
stopped.

Prompt and input are made of the row's columns: texts as templates, and a function where a number must stay a number.

Needs a connection `flux_default` of type *FLUX gateway* with an API key, and `products_db` to any SQL database, such as
`sqlite:///tmp/products.db` with the package `apache-airflow-providers-sqlite`. Where the pictures go is a parameter:
`s3://connection@bucket/folder` works just as well as a local folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from datetime import timedelta
from typing import Any

from airflow.configuration import get_airflow_home
from airflow.sdk import BaseHook, dag, task

from airflow_provider_flux.operators.batch import FluxBatchOperator

CONNECTION = "products_db"
COLUMNS = ("sku", "name", "look", "shape", "file_format", "seed")
DEMO_PRODUCTS = [
    ("TEA-01", "teapot", "green enamel", "1:1", "png", 11),
    ("CUP-07", "cup", "white porcelain", "4:3", "webp", 12),
    ("TRAY-3", "tray", "round, of bamboo", "16:9", "jpg", 13),
    ("JUG-22", "jug", "blue glass", "3:4", "webp", 14),
]


def picture_input(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"aspect_ratio": row["shape"], "output_format": row["file_format"], "seed": row["seed"]}


@dag(
    schedule=None,
    catchup=False,
    params={"output_path": f"{get_airflow_home()}/flux-pictures/catalogue"},
    default_args={"retries": 2, "retry_delay": timedelta(seconds=15)},
    doc_md=__doc__,
    tags=["example", "flux"],
)
def flux_product_catalogue() -> None:
    @task
    def make_demo_table() -> None:
        hook = BaseHook.get_hook(CONNECTION)
        hook.run(
            "CREATE TABLE IF NOT EXISTS products (sku VARCHAR(20) PRIMARY KEY, name VARCHAR(100), look VARCHAR(100),"
            " shape VARCHAR(10), file_format VARCHAR(10), seed INTEGER, picture VARCHAR(1000))"
        )
        if not hook.get_first("SELECT 1 FROM products"):
            hook.insert_rows("products", DEMO_PRODUCTS, target_fields=COLUMNS)

    @task
    def products() -> list[dict[str, Any]]:
        found = BaseHook.get_hook(CONNECTION).get_records(
            "SELECT sku, name, look, shape, file_format, seed FROM products ORDER BY sku"
        )
        return [dict(zip(COLUMNS, row, strict=True)) for row in found]

    @task
    def write_paths_back(manifest_path: str) -> int:
        from airflow_provider_flux.batch.manifest import read_manifest

        paths = [(row["path"], row["key"]) for row in read_manifest(manifest_path) if row["path"]]
        hook = BaseHook.get_hook(CONNECTION)
        mark = hook.placeholder
        update = f"UPDATE products SET picture = {mark} WHERE sku = {mark}"  # noqa: S608 (marks only; values follow)
        with closing(hook.get_conn()) as connection, closing(connection.cursor()) as cursor:
            cursor.executemany(update, paths)
            connection.commit()
        return len(paths)

    rows = products()
    pictures = FluxBatchOperator(
        task_id="make_pictures",
        rows=rows,
        key="sku",
        model="black-forest-labs/flux-schnell",
        prompt="A {{ row.name }}, {{ row.look }}, product photo on a plain background",
        input=picture_input,
        output_path="{{ params.output_path }}",
        max_in_flight=8,
    )
    make_demo_table() >> rows
    write_paths_back(pictures.output)


flux_product_catalogue()
