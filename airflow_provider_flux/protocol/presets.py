"""The gateways: what each one is called, where it lives, and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from airflow_provider_flux.protocol.dialects import BFL, DEPLOYMENT, MODEL, VERSION, Dialect

GATEWAY_PREFIX = "/replicate/v1"
"""Where DeerAPI, CometAPI and gateways like them serve Replicate's API."""

GATEWAY_BFL_PREFIX = "/flux/v1"
"""Where they serve calls in BFL's style."""

REQUESTS_PER_MINUTE = 30_000
"""Our own choice for gateways that publish no limit, to be corrected by their 429s.

500 a second is what a mapped run of 1,000 needs at most: 200 a second at a poll every 5 s, and up to 400 when they are
deferred as fast as a triggerer takes them up (125 a second) and are polled three times soon after. Of 10,000 that are
pending at the longest interval of 15 s it makes a poll every 20 s.
"""


class WebhookProof(Enum):
    """How a gateway's calls are known to be its own."""

    SIGNATURE = auto()
    """By Replicate's signature, with a secret that it tells."""
    SECRET = auto()
    """By a secret that was given with the create (BFL)."""
    TOKEN = auto()
    """By nothing of its own, since the signing secret belongs to the gateway's account at Replicate: by a token in the
    URL."""


@dataclass(frozen=True, slots=True)
class Preset:
    """What is known of a gateway before anything is asked.

    :param name: the name used in the connection's ``gateway`` field.
    :param label: the name people know it by.
    :param origin: scheme and host; empty for a gateway that the connection's host names.
    :param prefix: path under which the predictions are.
    :param bfl_prefix: path of the calls in BFL's style; empty where there are none.
    :param dialects: how predictions can be asked for.
    :param key_header: the header that carries the key.
    :param key_scheme: what stands before the key in it.
    :param lists_predictions: whether past predictions can be listed.
    :param status_is_exact: whether the status is never behind the output.
    :param waits_on_create: whether it holds the answer to a create back until the prediction has ended, when asked to
        with ``Prefer: wait``.
    :param ends_predictions: whether it ends a prediction by itself when asked to with ``Cancel-After``.
    :param bills_on_create: whether the answer to a create tells what it costs, in credits.
    :param webhook_proof: how its calls are known to be its own.
    :param webhook_secret_path: a free request that tells what it signs with; empty where it does not.
    :param identity_path: a free request that needs the key, for the test button; empty where none is known.
    :param balance_path: a free request that tells what may be spent in all; empty where none is known.
    :param usage_path: a free request that tells what has been spent of it; empty where none is known.
    :param files_path: where files can be uploaded that inputs may name; empty where they cannot.
    :param models_path: a free request that lists the models on offer; empty where none is known.
    :param price_list_path: a free request that tells what models cost; empty where none is known.
    :param prediction_page: page of one prediction for people, with ``{id}``; empty where none is known.
    :param requests_per_minute: how many requests one connection sends in a minute at most.
    :param creates_per_minute: the same for creates, where they have a limit of their own; None if they share the other.
    """

    name: str
    label: str
    origin: str = ""
    prefix: str = GATEWAY_PREFIX
    bfl_prefix: str = GATEWAY_BFL_PREFIX
    dialects: tuple[Dialect, ...] = (MODEL, VERSION, BFL)
    key_header: str = "Authorization"
    key_scheme: str = "Bearer "
    lists_predictions: bool = False
    status_is_exact: bool = False
    waits_on_create: bool = False
    ends_predictions: bool = False
    bills_on_create: bool = False
    webhook_proof: WebhookProof = WebhookProof.TOKEN
    webhook_secret_path: str = ""
    identity_path: str = ""
    balance_path: str = ""
    usage_path: str = ""
    files_path: str = ""
    models_path: str = ""
    price_list_path: str = ""
    prediction_page: str = ""
    requests_per_minute: float = REQUESTS_PER_MINUTE
    creates_per_minute: float | None = None


PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "deerapi",
            "DeerAPI",
            origin="https://api.deerapi.com",
            identity_path="/v1/models",
            balance_path="/v1/dashboard/billing/subscription",
            usage_path="/v1/dashboard/billing/usage",
            models_path="/v1/models",
        ),
        Preset(
            "cometapi",
            "CometAPI",
            origin="https://api.cometapi.com",
            identity_path="/v1/models",
            models_path="/v1/models",
            price_list_path="/api/models",
        ),
        Preset(
            "replicate",
            "Replicate",
            origin="https://api.replicate.com",
            prefix="/v1",
            bfl_prefix="",
            dialects=(MODEL, VERSION, DEPLOYMENT),
            lists_predictions=True,
            status_is_exact=True,
            waits_on_create=True,
            ends_predictions=True,
            webhook_proof=WebhookProof.SIGNATURE,
            webhook_secret_path="/v1/webhooks/default/secret",  # noqa: S106 (a path)
            identity_path="/v1/account",
            files_path="/v1/files",
            prediction_page="https://replicate.com/p/{id}",
            # Replicate's rate limit page.
            requests_per_minute=3_000,
            creates_per_minute=600,
        ),
        Preset(
            "bfl",
            "BFL",
            origin="https://api.bfl.ai",
            prefix="/v1",
            bfl_prefix="/v1",
            dialects=(BFL,),
            key_header="x-key",
            key_scheme="",
            status_is_exact=True,
            bills_on_create=True,
            webhook_proof=WebhookProof.SECRET,
            identity_path="/v1/credits",
            balance_path="/v1/credits",
        ),
        Preset("custom", "custom gateway"),
    )
}
