"""A batch that holds a lease in a process of its own: ``python -m tests.batch.holder FOLDER``.

It says ``held`` once it has the lease, and answers each line of its input with what :meth:`LeaseFile.verify` says.
"""

from __future__ import annotations

import logging
import os
import sys

# What Airflow prints must not get between the answers.
ANSWERS = os.dup(1)
os.dup2(2, 1)

from airflow_provider_flux.batch import lease  # noqa: E402
from airflow_provider_flux.exceptions import FluxLeaseLostError  # noqa: E402


def answer(text: str) -> None:
    os.write(ANSWERS, f"{text}\n".encode())


def main(folder: str) -> None:
    lease.HEARTBEAT = 0.1
    wanted = lease.Lease(dag_id="dag", task_id="make", run_id="run-1", map_index=-1, try_number=1)
    file = lease.LeaseFile(folder, wanted, f"{folder}/manifest.jsonl", logging.getLogger(__name__))
    file.acquire(waits=False, adopts=False, is_stopped=lambda: False)
    file.start_heartbeat()
    answer("held")
    for _ in sys.stdin:
        try:
            file.verify()
        except FluxLeaseLostError as lost:
            answer(f"lost: {lost}")
        else:
            answer("still held")


if __name__ == "__main__":
    main(sys.argv[1])
