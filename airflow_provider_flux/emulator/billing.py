"""Price lists and balances; the money is play money."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from airflow_provider_flux.emulator import errors
from airflow_provider_flux.emulator.exchange import Call, Exchange, Route
from airflow_provider_flux.emulator.served_models import MODELS, Model
from airflow_provider_flux.emulator.state import State

UNITS_PER_USD = 500_000  # new-api's internal quota units
HUNDREDTHS = 100
CREATED = 1_767_225_600  # the first second of 2026


class BillingRoutes:
    """Model lists (apidoc.cometapi.com/overview/models.md) and balances (both gateways' balance pages).

    :param state: the emulator's state.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    def add_to(self, app: web.Application, exchange: Exchange) -> None:
        """Register the routes.

        :param app: the application of the gateway origin.
        :param exchange: wraps the handlers.
        """
        self._exchange = exchange
        models, balance = Route("models"), Route("balance")
        open_models, open_balance = Route("models", needs_key=False), Route("balance", needs_key=False)
        app.router.add_get("/api/models", exchange.endpoint(open_models, self.price_list))
        app.router.add_get("/v1/models", exchange.endpoint(models, self.model_list))
        app.router.add_get("/user/quota", exchange.endpoint(open_balance, self.quota))
        app.router.add_get("/v1/dashboard/billing/subscription", exchange.endpoint(balance, self.subscription))
        app.router.add_get("/v1/dashboard/billing/usage", exchange.endpoint(balance, self.usage))
        app.router.add_get("/api/usage/token", exchange.endpoint(balance, self.token_usage))

    async def price_list(self, call: Call) -> web.StreamResponse:
        """Answer with CometAPI's list of models and prices, which needs no key.

        :param call: the request.
        """
        data = [self._priced(model) for model in self._sold()]
        return errors.json_answer(
            {"success": True, "page": 1, "page_size": len(data), "total": len(data), "data": data}
        )

    async def model_list(self, call: Call) -> web.StreamResponse:
        """Answer with OpenAI's list shape.

        :param call: the request.
        """
        listed = [
            {"id": model.full_name, "object": "model", "created": CREATED, "owned_by": "local-stand-in"}
            for model in self._sold()
        ]
        return errors.json_answer({"object": "list", "data": listed})

    async def quota(self, call: Call) -> web.StreamResponse:
        """Answer with the balance; the key travels in the query string.

        :param call: the request.
        """
        call.record.key_ok = self._exchange.is_key(call.request.query.get("key", ""))
        settings = self._state.settings
        if not call.record.key_ok:
            self._state.ledger.refuse_key(call.record)
            return errors.unauthenticated("gateway", settings.error_type)
        spent = self._spent()
        left = round(settings.balance - spent, 6)
        key = {"name": "local-stand-in", "remain_quota": -1, "used_quota": spent}
        return errors.json_answer(
            {
                "username": "local-stand-in",
                "total_quota": left,
                "total_used_quota": spent,
                "request_count": self._state.ledger.counters.accepted,
                "keys": [key],
                "daily_quota": [],
            }
        )

    async def subscription(self, call: Call) -> web.StreamResponse:
        """Answer with the granted money in USD.

        :param call: the request.
        """
        granted = self._state.settings.balance
        limits = ("soft_limit_usd", "hard_limit_usd", "system_hard_limit_usd")
        return errors.json_answer(
            {
                "object": "billing_subscription",
                "has_payment_method": True,
                **dict.fromkeys(limits, granted),
                "access_until": 0,
            }
        )

    async def usage(self, call: Call) -> web.StreamResponse:
        """Answer with the money used, in hundredths of a USD.

        :param call: the request.
        """
        return errors.json_answer({"object": "list", "total_usage": round(self._spent() * HUNDREDTHS, 4)})

    async def token_usage(self, call: Call) -> web.StreamResponse:
        """Answer with the key's use in internal units.

        :param call: the request.
        """
        granted = round(self._state.settings.balance * UNITS_PER_USD)
        used = round(self._spent() * UNITS_PER_USD)
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
        return errors.json_answer({"code": True, "message": "ok", "data": usage})

    def _sold(self) -> list[Model]:
        return [model for name, model in MODELS.items() if name not in self._state.settings.unsold]

    def _spent(self) -> float:
        return round(sum((p.model.price or 0) * p.picture_count for p in self._state.store.all()), 6)

    def _priced(self, model: Model) -> dict[str, Any]:
        pricing = {"currency": "USD", "input": None, "output": None, "per_request": model.price, "per_second": None}
        return {
            "id": model.full_name,
            "provider": "local-stand-in",
            "model_type": "image",
            "features": ["text-to-image"],
            "pricing": pricing,
            "api_doc_url": f"{self._state.gateway_url}/",
        }
