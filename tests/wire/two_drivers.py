"""Plays one request through the worker's driver and through the triggerer's, and says what came of it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from airflow_provider_flux.client import aio, rate_limiter, sync
from airflow_provider_flux.client.connection import GatewayAccess
from airflow_provider_flux.protocol.classify import Problem, absent, classify
from airflow_provider_flux.protocol.flows import Flow, Send
from airflow_provider_flux.protocol.gateways import choose_gateway
from airflow_provider_flux.protocol.messages import Reply, Request
from airflow_provider_flux.protocol.prediction import Absent, read_created, read_prediction
from tests.conftest import KEY

ID = "q4chw5rey9rmt0cww76t4h3ma4"
SCHNELL = "black-forest-labs/flux-schnell"
DRIVERS = ("worker", "triggerer")


@dataclass(frozen=True)
class Outcome:
    """What came of one request.

    :param said: ``ok`` and the status of the prediction, or the verdict and the reason.
    :param text: the failure as people read it.
    :param seconds: how long it took.
    """

    said: str
    text: str
    seconds: float
    outputs: tuple[str, ...] = ()


def access_to(url: str, *, key: str = KEY, **options: object) -> GatewayAccess:
    return GatewayAccess("flux_default", choose_gateway(url, allow_http=True), key, **options)  # type: ignore[arg-type]


def create(access: GatewayAccess) -> Request:
    return access.gateway.create(SCHNELL, {"prompt": "a boat"})


def get(access: GatewayAccess) -> Request:
    return access.gateway.get(ID)


def reply_of(driver: str, access: GatewayAccess, request: Request, limit: float = 8.0) -> Reply:
    """Send a request once."""

    def once() -> Flow[Reply]:
        reply: Reply = yield Send(request, limit)
        return reply

    rate_limiter._rate_limiters.clear()
    if driver == "worker":
        return sync.run(once(), access)

    async def in_a_loop() -> Reply:
        reply = await aio.run(once(), access)
        await asyncio.sleep(0.02)  # what was closed ends
        return reply

    return asyncio.run(in_a_loop())


def play(driver: str, access: GatewayAccess, request: Request, limit: float = 8.0) -> Outcome:
    """Send a request once, and say what came of it."""
    began = time.monotonic()
    reply = reply_of(driver, access, request, limit)
    seconds = time.monotonic() - began
    judged = classify(request, reply)
    if not isinstance(judged, Problem):
        is_create = request.body is not None
        read = read_created(judged.payload) if is_create else read_prediction(judged.payload, asked_for=ID)
        if not isinstance(read, Absent):
            return Outcome(f"ok {read.status.value}", read.id, seconds, read.outputs)
        judged = absent(request, read, judged.payload)
    return Outcome(f"{judged.verdict.value} {judged.failure.reason.value}", str(judged.failure), seconds)
