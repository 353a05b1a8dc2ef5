"""Webhook calls, signed as Replicate and BFL sign theirs, to this very machine only."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import ipaddress
import json
from collections.abc import Callable
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from airflow_provider_flux.emulator.predictions import Prediction, new_id
from airflow_provider_flux.emulator.rules import STARTING, SUCCEEDED
from airflow_provider_flux.emulator.shapes import View
from airflow_provider_flux.emulator.state import State

STEP = 0.05
LIMIT = 5.0
PAUSES = (0.5, 1.0, 2.0)  # only the final call is repeated (replicate.com/docs/topics/webhooks)


def is_loopback(host: str) -> bool:
    """Tell whether a host is this very machine."""
    with contextlib.suppress(ValueError):
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    return False


def leads_here(address: str) -> bool:
    """Tell whether an http(s) address leads to this very machine."""
    with contextlib.suppress(ValueError):
        return is_loopback(urlsplit(address).hostname or "")
    return False


def signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    """Sign a webhook call with a secret that has a ``whsec_`` head."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


class Webhooks:
    """Follows the predictions that asked for webhook calls."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    def watch(self, prediction: Prediction) -> None:
        """Follow a new prediction, when it names an address on this machine."""
        if prediction.webhook is None or not leads_here(prediction.webhook):
            return
        task = asyncio.get_running_loop().create_task(self._follow(prediction))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _follow(self, prediction: Prediction) -> None:
        events = prediction.webhook_events
        if "start" in events:
            await self._reached(lambda: prediction.at(self._state.now).status != STARTING)
            await self._call(prediction, "start", new_id("replicate"))
        await self._reached(lambda: prediction.at(self._state.now).ended is not None)
        if "output" in events and prediction.at(self._state.now).status == SUCCEEDED:
            await self._call(prediction, "output", new_id("replicate"))
        if "completed" in events:
            message = new_id("replicate")
            for pause in (*PAUSES, None):
                if await self._call(prediction, "completed", message) or pause is None:
                    return
                await asyncio.sleep(pause)

    async def _reached(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110 - status is derived from a clock, nothing announces a change
            await asyncio.sleep(STEP)

    async def _call(self, prediction: Prediction, event: str, message: str) -> bool:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LIMIT))
        message_id, timestamp = f"msg_{message}", str(int(self._state.now))
        shape = "bfl" if prediction.flavour == "bfl" else "prediction"
        shown = View(self._state, prediction).shaped(shape)
        body = json.dumps({**shown, "timestamp": timestamp} if shape == "bfl" else shown).encode()
        headers = {"Content-Type": "application/json"}
        if prediction.flavour != "bfl":
            headers["webhook-id"], headers["webhook-timestamp"] = message_id, timestamp
            headers["webhook-signature"] = signature(self._state.webhook_secret, message_id, timestamp, body)
        elif prediction.webhook_secret:
            digest = hmac.new(prediction.webhook_secret.encode(), body, hashlib.sha256).hexdigest()
            headers["X-BFL-Signature"] = f"sha256={digest}"
        address, status = prediction.webhook or "", None
        call = self._session.post(address, data=body, headers=headers, allow_redirects=False, ssl=False)
        with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError, ValueError):
            async with call as response:
                status = response.status
        path = address.partition("?")[0]  # a token may travel in the query string
        self._state.ledger.delivered(prediction_id=prediction.id, event=event, address=path, status=status)
        return status is not None and status < 300


WEBHOOKS = web.AppKey("webhooks", Webhooks)
