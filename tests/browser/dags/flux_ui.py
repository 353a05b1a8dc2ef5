"""DAGs for the tests of the UI: a real mapped run, rows without work, a batch that only plays its figures."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, BaseOperator, Context, Param

from airflow_provider_flux.operators.flux import FluxPredictionOperator

PROMPTS = (
    "a green enamel teapot, product photo on a plain background",
    "a white porcelain cup, product photo on a plain background",
    "a round bamboo tray, product photo on a plain background",
    "a refused picture",
    "a brass kettle, product photo on a plain background",
    "a linen tea towel, product photo on a plain background",
)


class Row(EmptyOperator):
    """A task instance that the scheduler ends without a worker; the test pushes its XComs."""

    def __init__(self, *, number: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.number = number


class PlayedFluxBatch(BaseOperator):
    """Says what a batch says, from a script in the run's conf: figures while it runs, a manifest in the end."""

    def execute(self, context: Context) -> str:
        script = json.loads(Path(context["params"]["script"]).read_text())
        started = datetime.now(timezone.utc).isoformat()
        for figures in script["figures"]:
            if "task_state_store" in context:
                now = datetime.now(timezone.utc).isoformat()
                context["task_state_store"].set("flux_batch", {**figures, "started_at": started, "updated_at": now})
            time.sleep(script["pause"])
        final = {**script["figures"][-1], "in_flight": 0, "manifest_path": script["manifest_path"]}
        final |= {"started_at": started, "updated_at": datetime.now(timezone.utc).isoformat(), "recent": []}
        context["ti"].xcom_push("flux_batch", final)
        return str(script["manifest_path"])


with DAG("ui_mapped", schedule=None, catchup=False):
    FluxPredictionOperator.partial(
        task_id="make_picture",
        model="black-forest-labs/flux-1.1-pro",
        wait_for_completion=True,
        deferrable=True,
        wait_before_defer=1.0,
        poll_interval=1.0,
    ).expand(prompt=list(PROMPTS))

with DAG("ui_rows", schedule=None, catchup=False):
    Row.partial(task_id="make_picture").expand(number=list(range(300)))

with DAG("ui_plain", schedule=None, catchup=False):
    EmptyOperator(task_id="nothing_to_see")

with DAG("ui_batch", schedule=None, catchup=False, params={"script": Param("", type="string")}):
    PlayedFluxBatch(task_id="make_catalogue")
