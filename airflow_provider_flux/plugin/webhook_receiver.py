"""Receives a gateway's calls about predictions that have ended.

Anyone can reach this, so nothing is believed, asked or logged for what is not proved to be the gateway's own. A call
that is proved, and tells of an end, becomes an asset event; those of gateways that sign nothing are a hint only, after
which the prediction is asked for with our own key. Nobody relies on it: calls get lost, and tasks that wait go on
polling.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import anyio
from fastapi import APIRouter, HTTPException, Request, Response

from airflow_provider_flux.client.connection import GatewayAccess, find_connection
from airflow_provider_flux.exceptions import FluxConnectionError, FluxError
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.plugin.prediction_events import PredictionEvents
from airflow_provider_flux.plugin.webhook_proof import is_own, may_be_signed, secret_from_key
from airflow_provider_flux.protocol.dialects import IN_BFLS_STYLE
from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.prediction import Prediction, ids_in, read_prediction
from airflow_provider_flux.protocol.presets import WebhookProof
from airflow_provider_flux.protocol.storable import loads
from airflow_provider_flux.protocol.times import hours_since
from airflow_provider_flux.protocol.webhook_addresses import may_receive
from airflow_provider_flux.tasks.results import describe

T = TypeVar("T")

_log = logging.getLogger(__name__)

LARGEST_CALL = 1024 * 1024
"""Bytes."""

ANSWER_WITHIN = 0.08
"""Seconds. What takes longer goes on after the answer."""

MOST_PENDING = 2000
"""Calls that are proved and not done with. More are told to come again."""

KEPT = 60.0
"""Seconds for which a connection is known, or known not to be there."""

MOST_KEPT = 256
"""Connections, of which a stranger can make up any number."""

LOOKS = (0.0, 2.0, 10.0)
"""Seconds before each look at a prediction that a call says has ended."""

QUESTION_PATIENCE = 10.0
"""Seconds for which the gateway is asked in each look."""

OLDEST = 24.0
"""Hours after the end of a prediction at which nobody wants to hear of it any more."""

SECRET_LIFE = 600.0
"""Seconds after which a gateway is asked again what it signs with, and after which a failure is forgotten."""

MOST_LOOKUPS = 50
"""Look-ups of connections that wait. A stranger's made-up ids are no longer looked up then."""

AGAIN_AFTER = (2.0, 10.0, 30.0)
"""Seconds before each further try to make an event of a call that has been answered."""

router = APIRouter()


@dataclass
class Receiver:
    """What is known of a connection.

    :param secret: what its gateway signs with; empty as long as that is not known.
    :param asked_again_at: when that is asked for, again or at all.
    :param asking: held by whoever asks for it.
    """

    access: GatewayAccess
    events: PredictionEvents
    secret: str = ""
    asked_again_at: float = 0.0
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class Receivers:
    """The connections for which calls have come."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[float, Receiver | None]] = {}
        self._pending: set[asyncio.Task[None]] = set()
        self._under_way: Counter[tuple[str, str]] = Counter()
        # Few: a stranger must not keep the threads busy that others need.
        self._lookups = anyio.CapacityLimiter(2)
        self._questions = anyio.CapacityLimiter(4)

    async def of(self, conn_id: str) -> Receiver | None:
        """Return what is known of a connection; None if there is none that could be used.

        :raises HTTPException: if that cannot be told now, so that the gateway calls again.
        """
        known = self._kept.get(conn_id)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        if self._lookups.statistics().tasks_waiting >= MOST_LOOKUPS:
            if known is not None and known[1] is not None:
                return known[1]
            raise HTTPException(503)
        access = await self._looked_up(conn_id)
        # Only now: another call may have looked it up at the same time, and what is known must be known to both.
        _, before = self._kept.get(conn_id, (0.0, None))
        if access is None:
            receiver = None
        elif before is not None and before.access == access:
            receiver = before
        else:
            receiver = Receiver(access, PredictionEvents(access))
        self._kept.pop(conn_id, None)
        self._kept[conn_id] = (time.monotonic() + KEPT, receiver)
        if len(self._kept) > MOST_KEPT:
            # The one known longest goes, but one that has been of use only if there is no other.
            useless = (name for name, (_, one) in self._kept.items() if one is None)
            del self._kept[next(useless, next(iter(self._kept)))]
        return receiver

    async def secret_of(self, receiver: Receiver) -> str:
        """Return what a gateway signs with. Replicate is asked for it once, with the key.

        :raises HTTPException: if it cannot be told now, so that the gateway calls again.
        """
        async with receiver.asking:
            if time.monotonic() >= receiver.asked_again_at:
                # Whatever comes of it: a stranger's calls must not have the gateway asked over and over.
                receiver.asked_again_at = time.monotonic() + (SECRET_LIFE if receiver.secret else KEPT)
                receiver.secret = await self._asked_for_secret(receiver.access) or receiver.secret
                if receiver.secret:
                    receiver.asked_again_at = time.monotonic() + SECRET_LIFE
        if not receiver.secret:
            raise HTTPException(503)
        return receiver.secret

    async def begin(self, receiver: Receiver, payload: JSON) -> None:
        """Begin what a call that is proved asks for, and answer it soon.

        :raises HTTPException: if it could not be done, so that the gateway calls again.
        """
        call = _told(receiver.access, payload)
        name = (receiver.access.conn_id, call.prediction_id)
        if not call.prediction_id or receiver.events.knows(call.prediction_id) or name in self._under_way:
            return
        if len(self._pending) >= MOST_PENDING:
            raise HTTPException(503)
        doing = asyncio.create_task(self._do(receiver, call))
        self._keep(doing, name)
        done, _ = await asyncio.wait({doing}, timeout=ANSWER_WITHIN)
        if done and doing.exception() is not None:
            raise HTTPException(500)
        if not done:
            self._keep(asyncio.create_task(self._try_again(doing, receiver, call)), name)

    async def _try_again(self, doing: asyncio.Task[None], receiver: Receiver, call: _Call) -> None:
        """Make the event after all: the gateway has its answer, and does not call again."""
        await asyncio.wait({doing})
        for pause in AGAIN_AFTER:
            if doing.exception() is None:
                return
            await asyncio.sleep(pause)
            doing = asyncio.create_task(self._do(receiver, call))
            await asyncio.wait({doing})

    def _keep(self, doing: asyncio.Task[None], name: tuple[str, str]) -> None:
        """Remember a task until it is done, and that its prediction is under way."""
        self._under_way[name] += 1
        self._pending.add(doing)

        def forget(done: asyncio.Task[None]) -> None:
            self._pending.discard(done)
            self._under_way[name] -= 1
            if not self._under_way[name]:
                del self._under_way[name]

        doing.add_done_callback(forget)

    async def _do(self, receiver: Receiver, call: _Call) -> None:
        access = receiver.access
        try:
            prediction = call.prediction or await self._asked_for(access, call.prediction_id)
            if prediction is None or hours_since(prediction.completed_at) > OLDEST:
                return
            model, given = prediction.model, prediction.input
            facts = {**describe(prediction, access, model=model, input=given), "flux_conn_id": access.conn_id}
            await receiver.events.record(facts)
        except Exception as error:
            _log.warning(
                "A call about prediction %s of connection %s could not be made an asset event: %s",
                *(call.prediction_id, access.conn_id, f"{type(error).__name__}: {error}"),
            )
            raise

    async def _asked_for(self, access: GatewayAccess, prediction_id: str) -> Prediction | None:
        """Ask for a prediction with our own key; None if it has not ended, or is none of ours."""
        for pause in LOOKS:
            await asyncio.sleep(pause)
            try:
                seen = await self._in_thread(lambda: _asked(access.conn_id, prediction_id))
            except FluxError:
                continue
            if seen.status.is_terminal:
                return seen
        return None

    async def _looked_up(self, conn_id: str) -> GatewayAccess | None:
        try:
            return await anyio.to_thread.run_sync(find_connection, conn_id, limiter=self._lookups)
        except FluxConnectionError:
            return None
        except Exception as error:
            raise HTTPException(503) from error

    async def _asked_for_secret(self, access: GatewayAccess) -> str:
        """Return what a gateway signs with; empty if it cannot be told now."""
        if access.webhook_secret:
            return access.webhook_secret
        if access.gateway.preset.webhook_proof is WebhookProof.SECRET:
            return secret_from_key(access)
        try:
            hook = FluxHook(access.conn_id)
            return await self._in_thread(lambda: hook.webhook_secret(patience=QUESTION_PATIENCE))
        except FluxError as error:
            _log.warning("Calls for connection %s cannot be proved now: %s", access.conn_id, error)
            return ""

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._questions)


def _asked(conn_id: str, prediction_id: str) -> Prediction:
    return FluxHook(conn_id).get_prediction(prediction_id, deadline=time.time() + QUESTION_PATIENCE)


@dataclass(frozen=True)
class _Call:
    """What a call tells.

    :param prediction_id: empty if it tells of no end.
    :param prediction: as it was when it ended; None if it has to be asked for.
    """

    prediction_id: str = ""
    prediction: Prediction | None = None


def _told(access: GatewayAccess, payload: JSON) -> _Call:
    if not isinstance(payload, Mapping):
        return _Call()
    if access.gateway.preset.webhook_proof is WebhookProof.TOKEN:
        found = next(iter(ids_in(payload)), "")
        # A prediction in Replicate's style has these; in BFL's it has none of them.
        is_replicates = any(name in payload for name in ("input", "output", "urls", "created_at"))
        return _Call(f"{found}@{IN_BFLS_STYLE}" if found and not is_replicates else found)
    read = read_prediction(payload)
    if not isinstance(read, Prediction) or not read.status.is_terminal:
        return _Call()
    return _Call(read.id, read)


_receivers = Receivers()


@router.post("/webhooks/{flux_conn_id}")
async def receive(flux_conn_id: str, request: Request, token: str = "") -> Response:
    """Take a gateway's call. What is not proved is refused without a word, whatever is wrong with it."""
    body = await _body_of(request)
    receiver = await _receivers.of(flux_conn_id) if may_receive(flux_conn_id) else None
    if receiver is None:
        raise HTTPException(401)
    access = receiver.access
    needs_secret = access.gateway.preset.webhook_proof is not WebhookProof.TOKEN
    if not may_be_signed(access, request.headers):
        raise HTTPException(401)
    secret = await _receivers.secret_of(receiver) if needs_secret else ""
    if not is_own(access, secret, body, request.headers, token):
        raise HTTPException(401)
    try:
        payload: Any = loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400) from None
    await _receivers.begin(receiver, payload)
    return Response(status_code=200)


async def _body_of(request: Request) -> bytes:
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > LARGEST_CALL:
        raise HTTPException(413)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST_CALL:
            raise HTTPException(413)
    return bytes(body)
