"""Whether a call is a gateway's own, by what only that gateway can know."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from standardwebhooks.webhooks import Webhook

from airflow_provider_flux.client.connection import GatewayAccess
from airflow_provider_flux.protocol.presets import WebhookProof
from airflow_provider_flux.protocol.webhook_addresses import shared_secret, url_token

BFL_SIGNATURE = "x-bfl-signature"


SIGNED_WITH = ("webhook-id", "webhook-timestamp", "webhook-signature")
"""The headers of Standard Webhooks."""


def may_be_signed(access: GatewayAccess, headers: Mapping[str, str]) -> bool:
    """Tell whether a call has all that its proof takes, before a gateway is asked what it signs with."""
    proof = access.gateway.preset.webhook_proof
    return proof is not WebhookProof.SIGNATURE or all(name in headers for name in SIGNED_WITH)


def is_own(access: GatewayAccess, secret: str, body: bytes, headers: Mapping[str, str], token: str) -> bool:
    """Tell whether a call is the gateway's own.

    :param secret: what it signs with; see :meth:`.webhook_receiver.Receivers.secret_of`.
    :param headers: names in lower case.
    :param token: from the URL.
    """
    proof = access.gateway.preset.webhook_proof
    if proof is WebhookProof.SIGNATURE:
        return _is_signed(secret, body, headers)
    if proof is WebhookProof.SECRET:
        return _is_of_bfl(secret, body, headers)
    return hmac.compare_digest(token.encode(), url_token(access.key, access.conn_id).encode())


def secret_from_key(access: GatewayAccess) -> str:
    """Return what BFL is told to sign with."""
    return access.webhook_secret or shared_secret(access.key, access.conn_id)


def _is_signed(secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
    """Check Replicate's signature, which is that of Standard Webhooks; a call of more than 5 minutes ago is none."""
    try:
        Webhook(secret).verify(body, dict(headers), json_parse=False)
    except Exception:  # noqa: BLE001 (what a stranger sends may fail in any way)
        return False
    return True


def _is_of_bfl(secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
    """Check what BFL proves itself with: its skills repository says a signature, its OpenAPI file an echo."""
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    signed = headers.get(BFL_SIGNATURE, "").removeprefix("sha256=")
    return hmac.compare_digest(signed.encode(), signature.encode()) or hmac.compare_digest(
        headers.get(BFL_SIGNATURE, "").encode(), secret.encode()
    )
