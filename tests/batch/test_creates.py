"""How creates travel."""

from __future__ import annotations

import time
from pathlib import Path

from airflow_provider_flux.client import aio
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.protocol.flows import Conversation
from airflow_provider_flux.protocol.messages import Log
from tests.batch.life import SCHNELL, BatchLife
from tests.conftest import Connect


async def test_a_create_never_goes_over_a_kept_connection(emulator: Emulator, connect: Connect) -> None:
    """A connection that the other side closes just then would leave the outcome unknown for no reason."""
    connect(emulator.url, gateway="deerapi")
    access = FluxHook().access
    log: Log = FluxHook().log
    talk = Conversation(access.gateway, log)
    request = access.gateway.create(SCHNELL, {"prompt": "x"})

    async with aio.shared_session(access):
        for _ in range(3):
            made = await aio.run(talk.submit(request, deadline=time.time() + 5), access)
            await aio.run(talk.get(made.id, deadline=time.time() + 5), access)

    connections = {
        kind: {seen.connection for seen in emulator.requests if seen.kind == kind} for kind in ("create", "get")
    }
    assert len(connections["create"]) == 3
    assert len(connections["get"]) == 1
    assert not connections["create"] & connections["get"]


def test_a_listed_prediction_of_another_row_with_the_same_input_is_not_taken(
    emulator: Emulator, connect: Connect, tmp_path: Path
) -> None:
    """POST: read timeout, reset, 5xx after sending"""
    connect(emulator.url, gateway="replicate")
    emulator.add_fault("500", on="create", skip=1, times=1)
    rows = [{"sku": sku, "name": "the same thing"} for sku in ("a", "b")]
    life = BatchLife(tmp_path, rows=rows, max_in_flight=1)
    life.execute()
    assert (emulator.posts, emulator.accepted) == (3, 2)
    assert len({line["prediction_id"] for line in life.manifest()}) == 2
    assert life.statuses() == ["succeeded", "succeeded"]
