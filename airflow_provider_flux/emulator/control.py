"""The emulator's own routes under ``/_emulator``: look at the ledger, set faults, outcomes and settings."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from airflow_provider_flux.emulator import errors
from airflow_provider_flux.emulator.faults import FaultRule
from airflow_provider_flux.emulator.outcomes import OutcomeRule
from airflow_provider_flux.emulator.pages import NOTICE
from airflow_provider_flux.emulator.snapshots import prediction_json, snapshot
from airflow_provider_flux.emulator.state import State

PREFIX = "/_emulator"
SHOWN = 1000


class ControlRoutes:
    """For other processes; only this very machine is let in, and nothing here is counted.

    :param state: the emulator's state.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    def add_to(self, app: web.Application) -> None:
        """Register the routes.

        :param app: the application of the gateway origin.
        """
        for method, name, handler in (
            ("GET", "/state", self.show_state),
            ("GET", "/ledger", self.show_ledger),
            ("POST", "/faults", self.add_faults),
            ("DELETE", "/faults", self.clear_faults),
            ("POST", "/outcomes", self.add_outcomes),
            ("DELETE", "/outcomes", self.clear_outcomes),
            ("POST", "/settings", self.change_settings),
            ("POST", "/finish", self.finish),
            ("POST", "/reset", self.reset),
        ):
            app.router.add_route(method, PREFIX + name, _local_only(handler))

    async def show_state(self, request: web.Request) -> web.Response:
        """Answer with addresses, settings, counters and rules.

        :param request: the request.
        """
        state = self._state
        return _answer(
            {
                "notice": NOTICE,
                "url": state.gateway_url,
                "foreign_url": state.foreign_url,
                "settings": state.settings.as_json(),
                "counters": state.ledger.as_json(0)["counters"],
                "faults": state.faults.as_json(),
                "outcomes": state.outcomes.as_json(),
            }
        )

    async def show_ledger(self, request: web.Request) -> web.Response:
        """Answer with counters, predictions and the latest requests; ``?limit=`` bounds both lists.

        :param request: the request.
        """
        state = self._state
        limit = max(int(request.query.get("limit", SHOWN)), 0)
        predictions = state.store.all()
        shown = predictions[-limit:] if limit else []
        return _answer(
            {
                "notice": NOTICE,
                **state.ledger.as_json(limit),
                "predictions": [prediction_json(snapshot(p, state.now)) for p in shown],
            }
        )

    async def add_faults(self, request: web.Request) -> web.Response:
        """Add one fault rule or a list of them.

        :param request: the request.
        """
        for fields in await _objects(request):
            self._state.faults.add(FaultRule(**fields))
        return _answer({"faults": self._state.faults.as_json()})

    async def clear_faults(self, request: web.Request) -> web.Response:
        """Forget all fault rules.

        :param request: the request.
        """
        self._state.faults.clear()
        return _answer({"faults": []})

    async def add_outcomes(self, request: web.Request) -> web.Response:
        """Add one outcome rule or a list of them.

        :param request: the request.
        """
        for fields in await _objects(request):
            self._state.outcomes.add(OutcomeRule(**fields))
        return _answer({"outcomes": self._state.outcomes.as_json()})

    async def clear_outcomes(self, request: web.Request) -> web.Response:
        """Forget all outcome rules.

        :param request: the request.
        """
        self._state.outcomes.clear()
        return _answer({"outcomes": []})

    async def change_settings(self, request: web.Request) -> web.Response:
        """Replace the settings named.

        :param request: the request.
        """
        for fields in await _objects(request):
            self._state.change(**fields)
        return _answer({"settings": self._state.settings.as_json()})

    async def finish(self, request: web.Request) -> web.Response:
        """Let one prediction's run be over now: ``{"id": ..., "outcome": ...}``.

        :param request: the request.
        """
        finished = []
        for fields in await _objects(request):
            now = self._state.now
            prediction = self._state.store.finish(fields["id"], now, fields.get("outcome"))
            finished.append(prediction_json(snapshot(prediction, now)))
        return _answer({"predictions": finished})

    async def reset(self, request: web.Request) -> web.Response:
        """Forget everything and go back to the first settings.

        :param request: the request.
        """
        self._state.reset()
        return _answer({"reset": True})


Handler = Callable[[web.Request], Awaitable[web.Response]]


def _local_only(handler: Handler) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        try:
            local = ipaddress.ip_address(request.remote or "").is_loopback
        except ValueError:
            local = False
        if not local:
            return _answer({"error": "only this machine may use these routes"}, 403)
        try:
            return await handler(request)
        except (ValueError, TypeError, KeyError) as error:
            return _answer({"error": f"{type(error).__name__}: {error}"}, 400)

    return answer


def _answer(body: dict[str, Any], status: int = 200) -> web.Response:
    return errors.json_answer(body, status)


async def _objects(request: web.Request) -> list[dict[str, Any]]:
    parsed = json.loads(await request.read())
    listed = parsed if isinstance(parsed, list) else [parsed]
    if not all(isinstance(fields, dict) for fields in listed):
        raise ValueError("send a JSON object or a list of them")
    return listed
