"""One request from its arrival to its answer: noted, checked, broken if so told, handled."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from airflow_provider_flux.emulator import errors
from airflow_provider_flux.emulator.fault_play import FaultPlay
from airflow_provider_flux.emulator.predictions import Prediction
from airflow_provider_flux.emulator.request_log import RequestRecord
from airflow_provider_flux.emulator.rules import Subject
from airflow_provider_flux.emulator.state import State

SCHEMES = frozenset({"bearer", "token"})  # replicate-python 0.x wrote "Token"
KEY_HEADERS = ("Authorization", "Proxy-Authorization", "x-key")
SHORTEST_SOUGHT_KEY = 6  # a shorter one would be found in innocent words
UNLIMITED = frozenset({"file", "page", "unknown", "foreign"})


@dataclass(frozen=True)
class Route:
    """What is known of a route before a request comes.

    :param kind: the kind of request, see :class:`RequestRecord`.
    :param flavour: whose errors it answers with: ``gateway``, ``bfl``, ``replicate`` or ``file``.
    :param origin: ``gateway`` or ``foreign``.
    :param needs_key: whether a key is asked for.
    """

    kind: str
    flavour: str = "gateway"
    origin: str = "gateway"
    needs_key: bool = True


class Call:
    """A request while it is handled.

    :param state: the emulator's state.
    :param request: the HTTP request.
    :param route: its route.
    :param record: its record in the ledger.
    """

    def __init__(self, state: State, request: web.Request, route: Route, record: RequestRecord) -> None:
        self.state = state
        self.request = request
        self.route = route
        self.record = record
        self.body = b""
        self._parsed: dict[str, Any] | None = None

    @property
    def path(self) -> dict[str, str]:
        """The path's named parts."""
        return dict(self.request.match_info)

    def json_object(self) -> dict[str, Any] | None:
        """Return the body when it is a JSON object."""
        if self._parsed is None:
            with contextlib.suppress(ValueError, RecursionError):
                parsed = json.loads(self.body)
                self._parsed = parsed if isinstance(parsed, dict) else None
        return self._parsed

    def prediction(self) -> Prediction | None:
        """Return the prediction that the address names, when queries may see it."""
        prediction_id = self.path.get("id") or self.request.query.get("id", "")
        self.record.prediction_id = prediction_id or None
        return self.state.known(prediction_id)

    def accepted(self, prediction: Prediction) -> None:
        """Note that this request made a prediction.

        :param prediction: the prediction made.
        """
        self.state.ledger.accept(self.record, prediction.id)

    def subject(self) -> Subject:
        """Describe the request to the fault rules."""
        prediction = None if self.route.kind == "create" else self.prediction()
        if prediction is not None:
            return Subject(self.route.kind, prediction.model.full_name, prediction.prompt)
        path, body = self.path, self.json_object() or {}
        given = body.get("input", body)
        prompt = str(given.get("prompt", "")) if isinstance(given, dict) else ""
        named = "/".join(path[part] for part in ("owner", "name", "model") if part in path)
        return Subject(self.route.kind, named or str(body.get("version") or body.get("model") or "") or None, prompt)


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


class Exchange:
    """Wraps handlers with everything that all routes share.

    :param state: the emulator's state.
    :param log: receives one line per request, when given.
    """

    def __init__(self, state: State, log: Callable[[str], None] | None = None) -> None:
        self._state = state
        self._log = log
        self._faults = FaultPlay(state)

    def endpoint(self, route: Route, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Make an aiohttp handler.

        :param route: what is known of the route.
        :param handler: answers the request when nothing stands against it.
        """

        async def answer(request: web.Request) -> web.StreamResponse:
            record = self._open(request, route)
            call = Call(self._state, request, route, record)
            try:
                if request.can_read_body:
                    call.body = await request.read()
                response = await self._answer(call, handler)
                record.status = None if self._gone(call) else response.status
            except errors.Refused as refused:
                response = refused.response
                record.status = response.status
            finally:
                self._write_line(record)
            return response

        return answer

    @staticmethod
    def _gone(call: Call) -> bool:
        transport = call.request.transport
        return transport is None or transport.is_closing()

    def _open(self, request: web.Request, route: Route) -> RequestRecord:
        return self._state.ledger.open(
            request.transport,
            at=self._state.now,
            origin=route.origin,
            method=request.method,
            path=request.path,
            kind=route.kind,
            had_authorization=self._carries_key(request),
            prefer=request.headers.get("Prefer"),
        )

    def _carries_key(self, request: web.Request) -> bool:
        if any(name in request.headers for name in KEY_HEADERS):
            return True
        key = self._state.settings.key or ""
        if len(key) < SHORTEST_SOUGHT_KEY:
            return False
        pattern = re.compile(rf"(?<![\w-]){re.escape(key)}(?![\w-])")
        return any(pattern.search(text) for text in (request.path_qs, *request.headers.values()))

    async def _answer(self, call: Call, handler: Handler) -> web.StreamResponse:
        if latency := self._state.settings.latency:
            await asyncio.sleep(latency)
        self._check_key(call)
        self._check_rate(call)
        rules = self._state.faults
        rule = rules.pick(call.subject()) if rules and call.route.kind != "page" else None
        if rule is None:
            return await handler(call)
        self._state.ledger.fault(call.record, rule.fault)
        return await self._faults.play(call, rule, handler)

    def _check_key(self, call: Call) -> None:
        if call.route.origin == "foreign":
            return
        sent = call.request.headers.get("Authorization")
        if sent is not None:
            scheme, _, token = sent.partition(" ")
            call.record.key_ok = scheme.lower() in SCHEMES and self.is_key(token)
        if call.route.needs_key and not call.record.key_ok:
            self._state.ledger.refuse_key(call.record)
            raise errors.Refused(errors.unauthenticated(call.route.flavour, self._state.settings.error_type))

    def is_key(self, token: str) -> bool:
        """Tell whether a token is the key.

        :param token: the token sent.
        """
        key = self._state.settings.key
        return bool(token) if key is None else hmac.compare_digest(token.encode(), key.encode())

    def _check_rate(self, call: Call) -> None:
        if call.route.kind in UNLIMITED:
            return
        if seconds := self._state.wait_for_token(call.route.kind):
            settings = self._state.settings
            wait = round(seconds, 3)
            raise errors.Refused(errors.too_many(call.route.flavour, settings.rate_hint, wait, settings.error_type))

    def _write_line(self, record: RequestRecord) -> None:
        if self._log is None:
            return
        fault = f" [{record.fault}]" if record.fault else ""
        self._log(f"{record.origin} {record.method} {record.path} -> {record.status or 'no answer'}{fault}")
