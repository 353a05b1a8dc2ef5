"""Makes one asset event for each prediction of which a gateway's call has told the end, by Airflow's REST API."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

from fastapi import HTTPException

from airflow_provider_flux.client.connection import GatewayAccess
from airflow_provider_flux.plugin.rest import PAGE, AirflowRest, in_process
from airflow_provider_flux.protocol.webhook_addresses import asset_uri

_log = logging.getLogger(__name__)

MEMORY = timedelta(hours=24)
"""A prediction that has ended before that is not told of: its picture is gone."""

MOST_KNOWN = 100_000
"""Predictions that are known to have an event."""

TOKEN_LIFE = 600.0
"""Seconds for which a token of Airflow's is used."""

SCHEDULERS_TIME = 60.0
"""Seconds for which the scheduler is given time to take the events that are queued."""

LOOK_EVERY = 0.3
"""Seconds."""

ID = "id"
"""Name of a prediction's id among the facts of an event."""


class PredictionEvents:
    """The events of one connection's predictions.

    :param access: the connection, which says in whose name they are made.
    """

    def __init__(self, access: GatewayAccess) -> None:
        self._access = access
        self._uri = asset_uri(access.conn_id)
        self._known: dict[str, None] = {}
        self._read_until: datetime | None = None
        self._lock = asyncio.Lock()
        self._to_record = 0
        self._token = ""
        self._token_since = 0.0

    def knows(self, prediction_id: str) -> bool:
        """Tell whether there is an event for a prediction already, as far as this process has seen."""
        return prediction_id in self._known

    async def record(self, facts: Mapping[str, Any]) -> None:
        """Make an event for a prediction, unless there is one.

        :param facts: as a ``flux_result`` has them.
        :raises HTTPException: if Airflow refuses, with its own words.
        """
        self._to_record += 1
        try:
            async with self._lock:
                try:
                    await self._record_as_user(facts)
                except HTTPException as refused:
                    if refused.status_code not in (401, 403) or not self._token:
                        raise
                    # Airflow's tokens live for as long as its settings say, and one that has run out is forbidden.
                    self._token = ""
                    await self._record_as_user(facts)
        finally:
            self._to_record -= 1

    async def _record_as_user(self, facts: Mapping[str, Any]) -> None:
        async with self._rest() as rest:
            await self._record(rest, facts)

    async def _record(self, rest: AirflowRest, facts: Mapping[str, Any]) -> None:
        if self.knows(facts[ID]):
            return
        asset_id = await self._asset_id(rest)
        if asset_id is None:
            _log.info("No DAG is scheduled on Asset(%r), so that a call about it makes no event", self._uri)
            return
        await self._let_the_scheduler_take_others(rest, asset_id)
        # Only now, since another API server may have been told of it meanwhile.
        await self._read_events(rest, asset_id)
        if not self.knows(facts[ID]):
            await rest.post("/assets/events", {"asset_id": asset_id, "extra": dict(facts)})
            self._remember(facts[ID])

    async def _let_the_scheduler_take_others(self, rest: AirflowRest, asset_id: int) -> None:
        """Hold the last event of a burst back as long as another one is queued.

        Airflow up to 3.3 makes no run for an event that comes while another one is queued; the next event brings it
        along (apache/airflow#56050), and after the last there is none.
        """
        until = time.monotonic() + SCHEDULERS_TIME
        while self._to_record == 1 and time.monotonic() < until:
            queued = await rest.find(f"/assets/{asset_id}/queuedEvents")
            if not queued or not queued["queued_events"]:
                return
            await asyncio.sleep(LOOK_EVERY)

    async def _asset_id(self, rest: AirflowRest) -> int | None:
        found = await rest.get("/assets", uri_pattern=self._uri, limit=PAGE)
        return next((int(asset["id"]) for asset in found["assets"] if asset["uri"].rstrip("/") == self._uri), None)

    async def _read_events(self, rest: AirflowRest, asset_id: int) -> None:
        """Take note of the events that there are, of this process and of others."""
        now = datetime.now(timezone.utc)
        since = (self._read_until or now) - (MEMORY if self._read_until is None else timedelta(seconds=60))
        offset = 0
        while True:
            page = await rest.get(
                "/assets/events", asset_id=asset_id, timestamp_gte=since.isoformat(), limit=PAGE, offset=offset
            )
            events = page["asset_events"]
            for event in events:
                self._remember(str((event.get("extra") or {}).get(ID)))
            offset += len(events)
            if len(events) < PAGE:
                break
        self._read_until = now

    def _remember(self, prediction_id: str) -> None:
        self._known[prediction_id] = None
        if len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]

    @asynccontextmanager
    async def _rest(self) -> AsyncIterator[AirflowRest]:
        async with in_process() as rest:
            if time.monotonic() - self._token_since > TOKEN_LIFE or not self._token:
                self._token = await rest.log_in(self._access.airflow_user, self._access.airflow_password)
                self._token_since = time.monotonic()
            rest.authorize(self._token)
            yield rest
