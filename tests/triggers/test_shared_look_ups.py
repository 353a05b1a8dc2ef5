"""Connections are looked up once for many triggers, and again when a key is refused."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from airflow.sdk import BaseHook

from airflow_provider_flux.client import connection_cache
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import FluxConnectionError
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.triggers.flux import CANNOT_TELL, FluxPredictionTrigger
from tests.conftest import KEY, Connect

SCHNELL = "black-forest-labs/flux-schnell"
BOAT = {"prompt": "A paper boat floating on calm water at sunrise."}


@pytest.fixture(autouse=True)
def connection(emulator: Emulator, connect: Connect) -> None:
    connect(emulator.url, gateway="deerapi", read_timeout=0.5)


@pytest.fixture
def look_ups(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids that Airflow was asked for."""
    asked: list[str] = []
    original = BaseHook.aget_connection

    async def counted(conn_id: str) -> Any:
        asked.append(conn_id)
        return await original(conn_id)

    monkeypatch.setattr(BaseHook, "aget_connection", counted)
    return asked


def trigger() -> FluxPredictionTrigger:
    now = time.time()
    return FluxPredictionTrigger(
        flux_conn_id="flux_default",
        prediction_id=FluxHook().create_prediction(SCHNELL, BOAT).id,
        model=SCHNELL,
        submitted_at=now,
        deadline=now + 20,
        poll_interval=0.2,
    )


async def fire(waiting: FluxPredictionTrigger) -> Any:
    (event,) = [event.payload async for event in waiting.run()]
    return event


async def test_fifty_triggers_ask_airflow_for_their_connection_once(look_ups: list[str]) -> None:
    events = await asyncio.gather(*[fire(trigger()) for _ in range(50)])

    assert {event["status"] for event in events} == {"succeeded"}
    assert look_ups == ["flux_default"]


async def test_a_connection_is_looked_up_again_after_a_while(look_ups: list[str]) -> None:
    for seconds in (0.0, connection_cache.FRESH_FOR - 1, connection_cache.FRESH_FOR + 1):
        await connection_cache.look_up("flux_default", clock=lambda at=seconds: at)  # type: ignore[misc]

    assert len(look_ups) == 2


async def test_a_look_up_that_failed_is_made_again(emulator: Emulator, connect: Connect) -> None:
    connect("", gateway="custom")
    with pytest.raises(FluxConnectionError):
        await connection_cache.look_up("flux_default")
    connect(emulator.url, gateway="deerapi")

    assert (await connection_cache.look_up("flux_default")).gateway.origin == emulator.url


async def test_a_look_up_outlives_the_trigger_that_began_it(look_ups: list[str]) -> None:
    first = asyncio.create_task(connection_cache.look_up("flux_default"))
    second = asyncio.create_task(connection_cache.look_up("flux_default"))
    await asyncio.sleep(0)
    first.cancel()

    assert (await second).key == KEY
    assert len(look_ups) == 1


async def test_a_key_that_was_changed_in_the_middle_of_a_wait_is_used_from_then_on(
    emulator: Emulator, connect: Connect
) -> None:
    waiting = trigger()
    connect(emulator.url, key="the-key-of-yesterday-0123", gateway="deerapi")
    await connection_cache.look_up("flux_default")
    connect(emulator.url, gateway="deerapi")

    assert (await fire(waiting))["status"] == "succeeded"
    assert emulator.posts == 1


async def test_a_key_that_stays_refused_hands_the_task_back(emulator: Emulator, connect: Connect) -> None:
    waiting = trigger()
    connect(emulator.url, key="the-key-of-yesterday-0123", gateway="deerapi")

    assert (await fire(waiting))["status"] == CANNOT_TELL
    assert emulator.gets == 1
