"""Webhook calls, signed as Replicate signs them, to this very machine only."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Callable

import aiohttp

from airflow_provider_flux.emulator.answers import Answers
from airflow_provider_flux.emulator.creation import is_loopback
from airflow_provider_flux.emulator.outcomes import STARTING, SUCCEEDED
from airflow_provider_flux.emulator.predictions import Prediction, new_id
from airflow_provider_flux.emulator.state import State

STEP = 0.05
LIMIT = 5.0
PAUSES = (0.5, 1.0, 2.0)  # only the final call is repeated (replicate.com/docs/topics/webhooks)
REDIRECTS_FROM = 300


def signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    """Sign a webhook call.

    :param secret: the secret with its ``whsec_`` head.
    :param message_id: the ``webhook-id`` header.
    :param timestamp: the ``webhook-timestamp`` header.
    :param body: the raw body.
    """
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


class Webhooks:
    """Follows the predictions that asked for webhook calls.

    :param state: the emulator's state.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._answers = Answers(state)
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    def watch(self, prediction: Prediction) -> None:
        """Follow a prediction, when it names an address on this machine.

        :param prediction: the new prediction.
        """
        if prediction.webhook is None or not is_loopback(prediction.webhook):
            return
        task = asyncio.get_running_loop().create_task(self._follow(prediction))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End all calls."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _follow(self, prediction: Prediction) -> None:
        events = prediction.webhook_events
        if "start" in events:
            await self._reached(lambda: prediction.at(self._state.now).status != STARTING)
            await self._call(prediction, "start")
        await self._reached(lambda: prediction.at(self._state.now).ended is not None)
        if "output" in events and prediction.at(self._state.now).status == SUCCEEDED:
            await self._call(prediction, "output")
        if "completed" in events:
            await self._insist(prediction)

    async def _reached(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110 - status is derived from a clock, nothing announces a change
            await asyncio.sleep(STEP)

    async def _insist(self, prediction: Prediction) -> None:
        message_id = f"msg_{new_id('replicate')}"
        for pause in (*PAUSES, None):
            if await self._call(prediction, "completed", message_id) or pause is None:
                return
            await asyncio.sleep(pause)

    async def _call(self, prediction: Prediction, event: str, message_id: str | None = None) -> bool:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LIMIT))
        message_id = message_id or f"msg_{new_id('replicate')}"
        timestamp = str(int(self._state.now))
        shape = "bfl" if prediction.flavour == "bfl" else "prediction"
        body = json.dumps(self._answers.shaped(prediction, shape)).encode()
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": signature(self._state.webhook_secret, message_id, timestamp, body),
        }
        address, status = prediction.webhook or "", None
        try:
            async with self._session.post(
                address, data=body, headers=headers, allow_redirects=False, ssl=False
            ) as answer:
                status = answer.status
        except (aiohttp.ClientError, asyncio.TimeoutError, ValueError):
            pass
        path = address.partition("?")[0]  # a token may travel in the query string
        self._state.ledger.delivered(prediction_id=prediction.id, event=event, address=path, status=status)
        return status is not None and status < REDIRECTS_FROM
