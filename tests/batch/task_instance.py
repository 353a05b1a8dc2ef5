"""The life of one batch task over its tries, with what Airflow keeps between them: the task state store."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.operators.batch import FluxBatchOperator
from tests.durable.task_instance import Store, Tries

SCHNELL = "black-forest-labs/flux-schnell"


def table(count: int, **columns: Any) -> list[dict[str, Any]]:
    """Rows with the columns ``sku`` and ``name``."""
    return [{"sku": f"sku-{number}", "name": f"thing {number}", **columns} for number in range(count)]


class BatchTaskInstance(Tries):
    """One task instance.

    :param folder: where everything is stored.
    :param options: the operator's arguments; may be changed between tries.
    """

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__()
        self.folder = folder
        self.options: dict[str, Any] = {
            "task_id": "make",
            "model": SCHNELL,
            "prompt": "A studio photo of {{ row.name }}",
            "key": "sku",
            "output_path": str(folder),
            "poll_interval": 0.05,
            **options,
        }
        self.run_id = "run-1"
        self.task_id = "make"
        self.map_index = -1
        self.operator = FluxBatchOperator(**self.options)

    def execute(self) -> Any:
        """Run one try."""
        self.xcoms.clear()
        self.operator = FluxBatchOperator(**self.options)
        return self.operator.execute(self.context())

    def next_run(self) -> Any:
        """Run in the DAG's next run."""
        self.run_id = f"run-{int(self.run_id.rpartition('-')[2]) + 1}"
        self.try_number, self.max_tries = 1, 3
        self.store = Store()
        return self.execute()

    def on_kill(self) -> None:
        """End the try that runs, as Airflow does it."""
        self.operator.on_kill()

    def context(self) -> Any:
        instance = SimpleNamespace(
            dag_id="dag",
            run_id=self.run_id,
            task_id=self.task_id,
            map_index=self.map_index,
            try_number=self.try_number,
            max_tries=self.max_tries,
            xcom_push=self.xcoms.__setitem__,
        )
        return {"ti": instance, "task_state_store": self.store, "params": {"colour": "blue"}}

    @property
    def totals(self) -> dict[str, Any]:
        return dict(self.xcoms["flux_batch"])

    def manifest(self, path: str | None = None) -> list[dict[str, Any]]:
        return read_lines(Path(path or self.folder / "manifest.jsonl"))

    def statuses(self) -> list[str]:
        return [listed["status"] for listed in self.manifest()]

    def ledger(self, name: str = "manifest.jsonl.ledger") -> list[Path]:
        return sorted((self.folder / name).glob("*.jsonl"))


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    """Write a table as JSON Lines, and return its path."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return str(path)


def kill_after_posts(batch: BatchTaskInstance, emulator: Emulator, posts: int) -> threading.Thread:
    """End the try as soon as so many creates have arrived."""

    def watch() -> None:
        while emulator.posts < posts:
            time.sleep(0.01)
        batch.on_kill()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread
