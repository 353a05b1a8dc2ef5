"""Model lists (apidoc.cometapi.com/overview/models.md) and balances (both gateways' pages); the money is play money."""

from __future__ import annotations

from aiohttp import web

from airflow_provider_flux.emulator.calls import Call
from airflow_provider_flux.emulator.responses import json_response
from airflow_provider_flux.emulator.served_models import MODELS, Model
from airflow_provider_flux.emulator.state import State

UNITS_PER_USD = 500_000  # new-api's internal quota units
_PRICING = {"currency": "USD", "input": None, "output": None}
CREATED = 1_767_225_600  # the first second of 2026


async def price_list(call: Call) -> web.StreamResponse:
    """Respond with CometAPI's list of models and prices, which needs no key."""
    data = [
        {
            "id": model.full_name,
            "provider": "local-stand-in",
            "model_type": "image",
            "features": ["text-to-image"],
            "pricing": {**_PRICING, "per_request": model.price, "per_second": None},
            "api_doc_url": f"{call.state.gateway_url}/",
        }
        for model in _sold(call.state)
    ]
    return json_response({"success": True, "page": 1, "page_size": len(data), "total": len(data), "data": data})


async def model_list(call: Call) -> web.StreamResponse:
    """Respond in OpenAI's list shape."""
    facts = {"object": "model", "created": CREATED, "owned_by": "local-stand-in"}
    return json_response({"object": "list", "data": [{"id": model.full_name, **facts} for model in _sold(call.state)]})


async def quota(call: Call) -> web.StreamResponse:
    """Respond with the balance; the key travels in the query string."""
    state = call.state
    call.record.key_ok = state.is_key(call.request.query.get("key", ""))
    if not call.record.key_ok:
        state.ledger.count("unauthorized", call.record)
        return call.wording.error(401)
    spent = _spent(state)
    return json_response(
        {
            "username": "local-stand-in",
            "total_quota": round(state.settings.balance - spent, 6),
            "total_used_quota": spent,
            "request_count": state.ledger.counters.accepted,
            "keys": [{"name": "local-stand-in", "remain_quota": -1, "used_quota": spent}],
            "daily_quota": [],
        }
    )


async def subscription(call: Call) -> web.StreamResponse:
    """Respond with the granted money in USD."""
    limits = ("soft_limit_usd", "hard_limit_usd", "system_hard_limit_usd")
    granted = dict.fromkeys(limits, call.state.settings.balance)
    return json_response({"object": "billing_subscription", "has_payment_method": True, **granted, "access_until": 0})


async def usage(call: Call) -> web.StreamResponse:
    """Respond with the money used, in hundredths of a USD."""
    return json_response({"object": "list", "total_usage": round(_spent(call.state) * 100, 4)})


async def token_usage(call: Call) -> web.StreamResponse:
    """Respond with the key's use in internal units."""
    granted, used = (round(usd * UNITS_PER_USD) for usd in (call.state.settings.balance, _spent(call.state)))
    usage = {
        "object": "token_usage",
        "name": "local-stand-in",
        "total_granted": granted,
        "total_used": used,
        "total_available": granted - used,
        "unlimited_quota": False,
        "model_limits": {},
        "model_limits_enabled": False,
        "expires_at": 0,
    }
    return json_response({"code": True, "message": "ok", "data": usage})


def _sold(state: State) -> list[Model]:
    return [model for name, model in MODELS.items() if name not in state.settings.unsold]


def _spent(state: State) -> float:
    return round(sum((made.model.price or 0) * made.picture_count for made in state.predictions()), 6)
