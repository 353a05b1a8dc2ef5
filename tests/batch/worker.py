"""Tries of a batch, each in a process of its own that a test can kill: ``python -m tests.batch.worker``.

Each line of its input describes a try. It is run in a forked child, so that Airflow is imported only once; the child's
process id is written out, and then how it ended.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

ANSWERS = os.dup(1)
# What Airflow prints must not get between the answers.
os.dup2(2, 1)

from airflow_provider_flux.batch import lease, ledger, list_lookups, row_run, run  # noqa: E402
from airflow_provider_flux.client import aio  # noqa: E402
from airflow_provider_flux.operators.batch import FluxBatchOperator  # noqa: E402
from airflow_provider_flux.outputs import storing  # noqa: E402
from airflow_provider_flux.protocol import lookup, schedule  # noqa: E402

IMPORTED_ONCE = (aio, run, storing)


def run_try(settings: dict[str, Any]) -> None:
    """Run one try. What Airflow keeps is not needed: the ledger is all that outlives a kill."""
    schedule.BACKOFF_BASE = 0.02
    # A try that hangs says where, instead of holding up all that comes after it.
    faulthandler.dump_traceback_later(240, exit=True)
    lookup.LOOKS_AFTER = (0.1, 0.5, 1.0)
    list_lookups.SHORTEST_PAUSE = 0.2
    for name, seconds in settings.get("lease", {}).items():
        setattr(row_run if name == "LEASE_FRESHNESS" else lease, name, seconds)
    if settings["dies_at"]:
        die_at(**settings["dies_at"])
    os.environ["AIRFLOW_CONN_FLUX_DEFAULT"] = json.dumps(settings["connection"])
    instance = SimpleNamespace(
        dag_id="dag",
        run_id=settings.get("run_id", "run-1"),
        task_id="make",
        map_index=-1,
        try_number=settings["try_number"],
        max_tries=100,
        xcom_push=lambda key, value: None,
    )
    operator = FluxBatchOperator(task_id="make", **settings["options"])
    # As Airflow's task runner does it: the signal ends nothing by itself.
    signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())
    operator.execute({"ti": instance})  # type: ignore[typeddict-item]


def die_at(step: str, number: int, moment: str) -> None:
    """Let this process kill itself at a step of the ledger.

    :param step: ``write_lines`` or ``remove``.
    :param number: at which of these steps, from 1.
    :param moment: ``before`` or ``after`` it.
    """
    ledger.SEGMENTS_LIMIT = 3 if step == "remove" else ledger.SEGMENTS_LIMIT
    carry_out: Callable[..., None] = getattr(ledger, step)
    steps = 0

    def carry_out_and_die(*arguments: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == number and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        carry_out(*arguments)
        if steps == number:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(ledger, step, carry_out_and_die)


def main() -> None:
    """Run a try for each line of the input."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            code = 1
            try:
                run_try(json.loads(line))
                code = 0
            except BaseException:  # noqa: BLE001 (nothing of the child may get into the parent's loop)
                traceback.print_exc()
            finally:
                os._exit(code)
        os.write(ANSWERS, f"{child}\n".encode())
        _, status = os.waitpid(child, 0)
        os.write(ANSWERS, f"{os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    main()
