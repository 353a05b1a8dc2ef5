"""The emulator's own routes under ``/_emulator``: look at the ledger, set faults, outcomes and settings.

They are for other processes on this very machine; nothing here is counted.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from airflow_provider_flux.emulator.responses import NOTICE, json_response
from airflow_provider_flux.emulator.rules import FaultRule, OutcomeRule
from airflow_provider_flux.emulator.state import State
from airflow_provider_flux.emulator.webhooks import is_loopback

SHOWN = 1000
Control = Callable[[State, Mapping[str, str], bytes], dict[str, Any]]


def _show_state(state: State, query: Mapping[str, str], body: bytes) -> dict[str, Any]:
    return {
        "notice": NOTICE,
        "url": state.gateway_url,
        "foreign_url": state.foreign_url,
        "settings": state.settings.as_json(),
        "counters": state.ledger.as_json(0)["counters"],
        "faults": state.faults.as_json(),
        "outcomes": state.outcomes.as_json(),
    }


def _show_ledger(state: State, query: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """Show counters, predictions and the latest requests; ``?limit=`` bounds both lists."""
    limit = max(int(query.get("limit", SHOWN)), 0)
    shown = state.predictions()[-limit:] if limit else []
    predictions = [prediction.snapshot(state.now).as_json() for prediction in shown]
    return {"notice": NOTICE, **state.ledger.as_json(limit), "predictions": predictions}


def _add(name: str, kind: type[FaultRule] | type[OutcomeRule]) -> Control:
    def add(state: State, query: Mapping[str, str], body: bytes) -> dict[str, Any]:
        book = getattr(state, name)
        for fields in _objects(body):
            book.add(kind(**fields))
        return {name: book.as_json()}

    return add


def _clear(name: str) -> Control:
    def clear(state: State, query: Mapping[str, str], body: bytes) -> dict[str, Any]:
        getattr(state, name).clear()
        return {name: []}

    return clear


def _change_settings(state: State, query: Mapping[str, str], body: bytes) -> dict[str, Any]:
    for fields in _objects(body):
        state.change(**fields)
    return {"settings": state.settings.as_json()}


def _finish(state: State, query: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """Let predictions' runs be over now: ``{"id": ..., "outcome": ...}`` or a list of these."""
    finished = [state.finish(each["id"], each.get("outcome")) for each in _objects(body)]
    return {"predictions": [shot.as_json() for shot in finished]}


def _reset(state: State, query: Mapping[str, str], body: bytes) -> dict[str, Any]:
    state.reset()
    return {"reset": True}


CONTROLS: dict[tuple[str, str], Control] = {
    ("GET", "/_emulator/state"): _show_state,
    ("GET", "/_emulator/ledger"): _show_ledger,
    ("POST", "/_emulator/faults"): _add("faults", FaultRule),
    ("DELETE", "/_emulator/faults"): _clear("faults"),
    ("POST", "/_emulator/outcomes"): _add("outcomes", OutcomeRule),
    ("DELETE", "/_emulator/outcomes"): _clear("outcomes"),
    ("POST", "/_emulator/settings"): _change_settings,
    ("POST", "/_emulator/finish"): _finish,
    ("POST", "/_emulator/reset"): _reset,
}


def endpoint(state: State, control: Control) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Make the aiohttp handler of a control; only this very machine is let in."""

    async def respond(request: web.Request) -> web.Response:
        if not is_loopback(request.remote or ""):
            return json_response({"error": "only this machine may use these routes"}, status=403)
        try:
            return json_response(control(state, request.query, await request.read()))
        except (ValueError, TypeError, KeyError) as error:
            return json_response({"error": f"{type(error).__name__}: {error}"}, status=400)

    return respond


def _objects(body: bytes) -> list[dict[str, Any]]:
    parsed = json.loads(body)
    listed = parsed if isinstance(parsed, list) else [parsed]
    if not all(isinstance(fields, dict) for fields in listed):
        raise ValueError("send a JSON object or a list of them")
    return listed
