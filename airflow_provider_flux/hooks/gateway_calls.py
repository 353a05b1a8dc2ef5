"""Calls to one gateway: what a connection describes, asked, with failures as the package's own errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from functools import cached_property
from typing import Any, TypeVar

from airflow.sdk import BaseHook

from airflow_provider_flux.client.connection import GatewayAccess, find_connection
from airflow_provider_flux.exceptions import (
    FluxConnectionError,
    FluxDeadlineError,
    FluxError,
    FluxGatewayError,
    FluxInputError,
    call_error,
    gateway_error,
)
from airflow_provider_flux.protocol.classify import Failure, Reason, Verdict
from airflow_provider_flux.protocol.flows import CallFailed, Conversation, Flow
from airflow_provider_flux.protocol.list_prices import Quote
from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.prediction import NoIdError
from airflow_provider_flux.protocol.presets import WebhookProof
from airflow_provider_flux.protocol.pricing import CREDIT_USD, Prices, read_price_list
from airflow_provider_flux.protocol.submission import NotSubmitted
from airflow_provider_flux.protocol.webhook_addresses import may_receive, url_token, webhook_url

T = TypeVar("T")

PATIENCE = 120.0
"""Seconds for which a call retries transient problems when the caller sets no deadline."""


FACTS_PATIENCE = 10.0
"""Seconds. Prices and spending are good to know, and no reason to wait."""


def deadline_or_default(deadline: float | None) -> float:
    """Return when a call gives up, in seconds since the epoch."""
    return time.time() + PATIENCE if deadline is None else deadline


class GatewayCalls(BaseHook):
    """Calls over one connection, and the free ones that tell of the account.

    :param flux_conn_id: connection of type ``flux``.
    """

    default_conn_name = "flux_default"

    def __init__(self, flux_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.flux_conn_id = flux_conn_id

    @cached_property
    def access(self) -> GatewayAccess:
        """The connection, read once."""
        return find_connection(self.flux_conn_id)

    @property
    def gateway_name(self) -> str:
        """The gateway's name, for messages."""
        return self.access.gateway.preset.label

    def models(self) -> list[str]:
        """Return the ids of the models that the gateway offers to this key (DeerAPI and CometAPI).

        :raises FluxConnectionError: if the gateway has no such list.
        """
        payload = self._read(self.access.gateway.preset.models_path, "list of models")
        entries = payload.get("data") if isinstance(payload, dict) else None
        if not isinstance(entries, list):
            raise self._malformed("list of models")
        return [entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]

    def balance(self, *, patience: float = PATIENCE) -> float:
        """Return what is left to spend, in USD (DeerAPI and BFL: CometAPI takes the key in a URL, Replicate has none).

        :param patience: seconds for which it is asked.
        :raises FluxConnectionError: if the gateway does not tell.
        """
        limit = self._read(self.access.gateway.preset.balance_path, "balance", patience)
        try:
            if self.access.gateway.preset.bills_on_create:
                return float(limit["credits"]) * CREDIT_USD
            return float(limit["hard_limit_usd"]) - self.used(patience=patience)
        except (KeyError, TypeError, ValueError):
            raise self._malformed("balance") from None

    def used(self, *, patience: float = PATIENCE) -> float:
        """Return what the account has used since it exists, in USD (DeerAPI only).

        :param patience: seconds for which it is asked.
        :raises FluxConnectionError: if the gateway does not tell.
        """
        usage = self._read(self.access.gateway.preset.usage_path, "usage", patience)
        try:
            # In hundredths of a dollar, while the limit is in dollars (DeerAPI's balance page).
            return float(usage["total_usage"]) / 100
        except (KeyError, TypeError, ValueError):
            raise self._malformed("usage") from None

    def spending(self) -> float | None:
        """Return what the account has spent, counted from some moment on, in USD; None if that is not told.

        Of two answers, the difference is what all who use the account have spent in between (DeerAPI and BFL).
        """
        preset = self.access.gateway.preset
        try:
            if preset.usage_path:
                return self.used(patience=FACTS_PATIENCE)
            return -self.balance(patience=FACTS_PATIENCE) if preset.bills_on_create else None
        except FluxError as error:
            self.log.warning("What is spent is not measured: %s", error)
            return None

    def learn_prices(self) -> None:
        """Ask the gateway what its models cost, if it tells and has not been asked. Costs of this hook go by it."""
        if not self.access.gateway.preset.price_list_path or self.access.listed_prices:
            return
        try:
            listed = self.price_list(patience=FACTS_PATIENCE)
        except FluxError as error:
            self.log.warning(
                "What %s asks is not known, and taken to be no more than elsewhere: %s", self.gateway_name, error
            )
            return
        today = datetime.now(timezone.utc).date().isoformat()
        quotes = {model: Quote(price, f"{self.gateway_name}'s list", today) for model, price in listed.items()}
        self.access = replace(self.access, listed_prices=quotes)
        self.log.info("%s lists prices of %d models, as of %s", self.gateway_name, len(quotes), today)

    def price_list(self, *, patience: float = PATIENCE) -> Prices:
        """Return what the gateway says its models cost, in USD (CometAPI only; the first page of its public list).

        :param patience: seconds for which it is asked.
        :raises FluxConnectionError: if the gateway has no such list.
        """
        try:
            return read_price_list(self._read(self.access.gateway.preset.price_list_path, "prices", patience))
        except ValueError:
            raise self._malformed("prices") from None

    def webhook_url(self) -> str:
        """Return the URL at which this Airflow receives the gateway's calls; ``webhook="auto"`` stands for it.

        It holds a token where nothing else tells that a call is the gateway's own: it is as secret as a password.

        :raises FluxConnectionError: if the connection does not say where the gateway reaches this Airflow.
        """
        access = self.access
        if not access.webhook_base_url:
            raise FluxConnectionError(
                f"Connection {self.flux_conn_id!r} does not say where its gateway reaches this Airflow: set "
                "webhook_base_url in its extra to the API server's URL, such as https://airflow.example.com."
            )
        if not may_receive(access.conn_id):
            raise FluxConnectionError(
                f"No webhook can be received for connection {self.flux_conn_id!r}: its id is a part of the URL, and "
                "may have letters, digits, '_', '-' and '.' only."
            )
        needs_token = access.gateway.preset.webhook_proof is WebhookProof.TOKEN
        token = url_token(access.key, access.conn_id) if needs_token else ""
        return webhook_url(access.webhook_base_url, access.conn_id, token)

    def webhook_secret(self, *, patience: float = PATIENCE) -> str:
        """Return what the gateway signs its calls with (Replicate only).

        :param patience: seconds for which it is asked.
        :raises FluxConnectionError: if the gateway does not tell.
        :raises FluxGatewayError: if it cannot be told now.
        """
        told = self._read(self.access.gateway.preset.webhook_secret_path, "webhook secret", patience)
        key = told.get("key") if isinstance(told, Mapping) else None
        if not isinstance(key, str) or not key:
            raise self._malformed("webhook secret")
        return key

    @property
    def _conversation(self) -> Conversation:
        return Conversation(self.access.gateway, self.log)

    def _run(self, flow: Flow[T], carry_out: Callable[[Any], Any] | None = None) -> T:
        from airflow_provider_flux.client.sync import run

        return run(flow, self.access, carry_out=carry_out)

    def _call(self, flow: Flow[T], about: str, *, model: str = "", carry_out: Callable[[Any], Any] | None = None) -> T:
        try:
            return self._run(flow, carry_out)
        except NotSubmitted as nothing:
            cause = nothing.__cause__
            error = cause if isinstance(cause, FluxError) else FluxDeadlineError(str(nothing), "", canceled=False)
            raise error from None
        except NoIdError as no_id:
            raise FluxInputError(f"{no_id}. Nothing was sent.") from None
        except CallFailed as failed:
            raise call_error(self.access.gateway, failed, about=about, model=model) from None

    def _read(self, path: str, about: str, patience: float = PATIENCE) -> JSON:
        if not path:
            raise FluxConnectionError(f"{self.gateway_name} does not tell its {about}.")
        request = self.access.gateway.read(path)
        return self._call(self._conversation.read(request, deadline=time.time() + patience), about)

    def _malformed(self, about: str) -> FluxGatewayError:
        failure = Failure(Reason.MALFORMED, "the answer does not have the documented shape", about)
        return gateway_error(self.gateway_name, failure, Verdict.REFUSED)
