"""Ways to wait that are compared. Each is entered once for a run and lends a function that waits for one prediction.

All of them wait in one event loop, and Airflow's triggers are driven as the triggerer drives them. Imports stay inside,
so that a run loads its own library only.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

POOL_SIZE = 32
PATIENCE = 3600.0
"""Seconds until a trigger would give up by itself: longer than any run."""
MODEL = "black-forest-labs/flux-1.1-pro"


@dataclass(frozen=True)
class Setting:
    """What an adapter is told.

    :param origin: scheme, host and port of the gateway.
    :param interval: seconds between two polls.
    """

    origin: str
    interval: float


Wait = Callable[[int, float], Awaitable[bool]]
"""Wait for a prediction by its number; tell whether it was seen to succeed. Only who asks nobody needs its end."""

Adapter = Callable[[Setting], AbstractAsyncContextManager[Wait]]


@asynccontextmanager
async def nothing(_setting: Setting) -> AsyncIterator[Wait]:
    """No network: the same tasks sleep until their predictions end. What every run costs anyway."""

    async def wait(_number: int, ends: float) -> bool:
        await asyncio.sleep(max(0.0, ends - time.monotonic()))
        return True

    yield wait


@asynccontextmanager
async def floor(setting: Setting) -> AsyncIterator[Wait]:
    """As little as can be done with aiohttp: one session, one bounded pool, no handling of any error."""
    import aiohttp

    headers = {"Authorization": "Bearer benchmark-key"}
    async with aiohttp.ClientSession(
        setting.origin, connector=aiohttp.TCPConnector(limit=POOL_SIZE), headers=headers
    ) as session:

        async def wait(number: int, _ends: float) -> bool:
            while True:
                await asyncio.sleep(setting.interval)
                async with session.get(f"/replicate/v1/predictions/{number}") as response:
                    if json.loads(await response.read())["status"] == "succeeded":
                        return True

        yield wait


def provider(*, fitted: bool) -> Adapter:
    """Return this provider's trigger.

    :param fitted: poll at the times fitted to the model instead of the fixed interval.
    """

    @asynccontextmanager
    async def adapter(setting: Setting) -> AsyncIterator[Wait]:
        from airflow_provider_flux.triggers.flux import FluxPredictionTrigger

        async def wait(number: int, _ends: float) -> bool:
            now = time.time()
            event = await _fire(
                FluxPredictionTrigger(
                    flux_conn_id="flux_benchmark",
                    prediction_id=str(number),
                    model=MODEL,
                    submitted_at=now,
                    deadline=now + PATIENCE,
                    poll_interval=None if fitted else setting.interval,
                )
            )
            return bool(event["status"] == "succeeded")

        yield wait

    return adapter


@asynccontextmanager
async def http_sensor(setting: Setting) -> AsyncIterator[Wait]:
    """The HTTP provider's trigger, helped by a route that answers 404 until the prediction has ended."""
    from airflow.providers.http.triggers.http import HttpSensorTrigger

    async def wait(number: int, _ends: float) -> bool:
        trigger = HttpSensorTrigger(f"ready/{number}", "http_benchmark", poke_interval=setting.interval)
        return bool(await _fire(trigger))

    yield wait


@asynccontextmanager
async def dbt_cloud(setting: Setting) -> AsyncIterator[Wait]:
    """The dbt Cloud provider's trigger, with answers in dbt Cloud's own shape."""
    from airflow.providers.dbt.cloud.triggers.dbt import DbtCloudRunJobTrigger

    async def wait(number: int, _ends: float) -> bool:
        trigger = DbtCloudRunJobTrigger("dbt_benchmark", number, time.time() + PATIENCE, setting.interval, 1)
        event = await _fire(trigger)
        return bool(event["status"] == "success")

    yield wait


@asynccontextmanager
async def replicate(setting: Setting) -> AsyncIterator[Wait]:
    """Replicate's own Python client, one for all predictions."""
    from replicate.client import Client
    from replicate.prediction import Prediction

    client = Client(api_token="benchmark-key", base_url=f"{setting.origin}/replicate")  # noqa: S106
    client.poll_interval = setting.interval

    async def wait(number: int, _ends: float) -> bool:
        prediction = Prediction(**{**_NEW, "id": str(number)})
        prediction._client = client
        await prediction.async_wait()
        return prediction.status == "succeeded"

    yield wait


ADAPTERS: Mapping[str, Adapter] = {
    "nothing": nothing,
    "floor": floor,
    "provider": provider(fitted=False),
    "provider-fitted": provider(fitted=True),
    "http-sensor": http_sensor,
    "dbt-cloud": dbt_cloud,
    "replicate": replicate,
}


_NEW: dict[str, Any] = {"model": MODEL, "version": "hidden", "status": "starting", "input": {}, "output": None}
"""What Replicate's client is told of a prediction when it is made, besides its id."""

LABELS: Mapping[str, str] = {
    "nothing": "null run",
    "floor": "bare aiohttp, shared",
    "provider": "this provider, every 5 s",
    "provider-fitted": "this provider, fitted polls",
    "http-sensor": "HttpSensorTrigger",
    "dbt-cloud": "DbtCloudRunJobTrigger",
    "replicate": "replicate.async_wait",
}


def connections(port: int) -> dict[str, str]:
    """Return the Airflow connections of the triggers, as environment variables."""
    origin = f"https://127.0.0.1:{port}"
    # More than any run needs: here it is the polls that are counted, not the provider's budget for them.
    flux = {"conn_type": "flux", "host": origin, "password": "benchmark-key", "extra": {"requests_per_minute": 10**7}}
    http = {"conn_type": "http", "host": origin, "extra": {"Authorization": "Bearer benchmark-key"}}
    dbt = {"conn_type": "dbt_cloud", "host": f"127.0.0.1:{port}", "login": "1", "password": "benchmark-key"}
    named = {"FLUX_BENCHMARK": flux, "HTTP_BENCHMARK": http, "DBT_BENCHMARK": dbt}
    return {f"AIRFLOW_CONN_{name}": json.dumps(connection) for name, connection in named.items()}


async def _fire(trigger: Any) -> Any:
    """Drive a trigger to its first event, as the triggerer does for a task."""
    async for event in trigger.run():
        return event.payload
    raise RuntimeError("the trigger ended without an event")
