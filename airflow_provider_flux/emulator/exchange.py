"""One request from its arrival to its response: noted, checked, broken if so told, handled."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from airflow_provider_flux.emulator import faults
from airflow_provider_flux.emulator.calls import Call, Route
from airflow_provider_flux.emulator.request_log import RequestRecord
from airflow_provider_flux.emulator.responses import Refused
from airflow_provider_flux.emulator.state import State

SCHEMES = frozenset({"bearer", "token"})  # replicate-python 0.x wrote "Token"
KEY_HEADERS = ("Authorization", "Proxy-Authorization", "x-key")
SHORTEST_SOUGHT_KEY = 6  # a shorter one would be found in innocent words
UNLIMITED = frozenset({"file", "page", "unknown", "foreign"})


@dataclass(frozen=True)
class Exchange:
    """Wraps handlers with everything that all routes share, and gives one line per request to a log."""

    state: State
    log: Callable[[str], None] | None = None

    def endpoint(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Make the aiohttp handler of a route."""

        async def respond(request: web.Request) -> web.StreamResponse:
            record = self.state.ledger.open(
                request.transport,
                at=self.state.now,
                origin=route.origin,
                method=request.method,
                path=request.path,
                kind=route.kind,
                had_authorization=self._carries_key(request),
                prefer=request.headers.get("Prefer"),
            )
            call = Call(self.state, request, route, record)
            try:
                if request.can_read_body:
                    call.body = await request.read()
                response = await self._response(call)
                gone = request.transport is None or request.transport.is_closing()
                record.status = None if gone else response.status
            except Refused as refused:
                response = refused.response
                record.status = response.status
            finally:
                self._write_line(record)
            return response

        return respond

    def _carries_key(self, request: web.Request) -> bool:
        if any(name in request.headers for name in KEY_HEADERS):
            return True
        key = self.state.settings.key or ""
        if len(key) < SHORTEST_SOUGHT_KEY:
            return False
        pattern = re.compile(rf"(?<![\w-]){re.escape(key)}(?![\w-])")
        return any(pattern.search(text) for text in (request.path_qs, *request.headers.values()))

    async def _response(self, call: Call) -> web.StreamResponse:
        if latency := self.state.settings.latency:
            await asyncio.sleep(latency)
        if call.route.origin == "gateway":
            self._check_key(call)
        seconds = 0.0 if call.route.kind in UNLIMITED else self.state.wait_for_token(call.route.kind)
        if seconds:
            raise Refused(call.wording.too_many(self.state.settings.rate_hint, round(seconds, 3)))
        rules = self.state.faults
        rule = rules.pick(call.subject()) if rules and call.route.kind != "page" else None
        if rule is None:
            return await call.route.handler(call)
        self.state.ledger.count("faults", call.record, fault=rule.fault)
        return await faults.play(call, rule)

    def _check_key(self, call: Call) -> None:
        if call.route.flavour == "bfl_itself":
            call.record.key_ok = self.state.is_key(call.request.headers.get("x-key", ""))
        elif (sent := call.request.headers.get("Authorization")) is not None:
            scheme, _, token = sent.partition(" ")
            call.record.key_ok = scheme.lower() in SCHEMES and self.state.is_key(token)
        if call.route.needs_key and not call.record.key_ok:
            self.state.ledger.count("unauthorized", call.record)
            raise Refused(call.wording.error(401))

    def _write_line(self, record: RequestRecord) -> None:
        if self.log is not None:
            fault = f" [{record.fault}]" if record.fault else ""
            self.log(f"{record.origin} {record.method} {record.path} -> {record.status or 'no answer'}{fault}")
