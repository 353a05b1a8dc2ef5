"""How predictions are asked for: for each way its paths and its fields.

Which one is spoken follows from how a model is written, and where a prediction is asked for from its id alone, so that
whoever has the id (a record, a trigger, a sensor) needs nothing else.

=============================== ============= ======================================================
Model                           Dialect       Where
=============================== ============= ======================================================
``owner/name``                  ``MODEL``     Replicate and the gateways
``owner/name:version``, or the  ``VERSION``   Replicate and the gateways (on theirs: the "legacy" page)
version's 64 digits alone
``deployments/owner/name``      ``DEPLOYMENT``  Replicate
``flux-pro-1.1``                ``BFL``       BFL, and the gateways in BFL's style
=============================== ============= ======================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from airflow_provider_flux.protocol.messages import JSON


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way to ask for a prediction.

    :param create: path of a create, with ``{model}``.
    :param query: path of a query, with ``{id}``.
    :param cancel: path of a cancel, with ``{id}``; empty where there is none.
    :param input_field: field of a create that holds the input; empty if the input is the body itself.
    :param version_field: field of a create that names the model; empty if the path does.
    :param webhook_field: field of a create that holds the URL to call.
    :param secret_field: field of a create that holds what the call is to be signed with; empty where there is none.
    :param events_field: field of a create that says what to call it for; empty where that cannot be said.
    :param inlines_as_data: whether a picture inside a create is a ``data:`` URI; else its base64 alone.
    """

    create: str
    query: str = "/predictions/{id}"
    cancel: str = "/predictions/{id}/cancel"
    input_field: str = "input"
    version_field: str = ""
    webhook_field: str = "webhook"
    secret_field: str = ""
    events_field: str = "webhook_events_filter"
    inlines_as_data: bool = True

    def body(
        self,
        model: str,
        input: Mapping[str, JSON],
        webhook: str | None,
        events: Sequence[str] | None,
        secret: str = "",
    ) -> dict[str, JSON]:
        """Return the body of a create."""
        given = dict(input) if self.inlines_as_data else {name: _bare(value) for name, value in input.items()}
        body: dict[str, JSON] = {self.input_field: given} if self.input_field else given
        if self.version_field:
            body[self.version_field] = model
        if webhook is not None:
            body[self.webhook_field] = webhook
            if secret and self.secret_field:
                body[self.secret_field] = secret
        if events is not None and self.events_field:
            body[self.events_field] = list(events)
        return body


MODEL = Dialect("/models/{model}/predictions")
VERSION = Dialect("/predictions", version_field="version")
DEPLOYMENT = Dialect("/{model}/predictions")
BFL = Dialect(
    "/{model}",
    query="/get_result?id={id}",
    cancel="",
    input_field="",
    webhook_field="webhook_url",
    secret_field="webhook_secret",  # noqa: S106 (the name of a field)
    events_field="",
    inlines_as_data=False,
)
"""BFL's OpenAPI file; the gateways' pages on it."""

DEPLOYMENTS = "deployments/"

IN_BFLS_STYLE = "flux"
"""What is added to the id of a prediction that a gateway was asked for in BFL's style."""

_VERSION = re.compile(r"[0-9a-f]{64}")
_BFL_HOST = re.compile(r"api(\.[a-z0-9-]+)?\.bfl\.ai")
"""BFL's own hosts: the global one, and those of its regions, on one of which each prediction is asked for."""


def dialect_of(model: str) -> Dialect:
    """Return how a model is asked for."""
    if model.startswith(DEPLOYMENTS):
        return DEPLOYMENT
    if ":" in model or _VERSION.fullmatch(model):
        return VERSION
    return MODEL if "/" in model else BFL


def unversioned(model: str) -> str:
    """Return a model's name without its version."""
    return model.partition(":")[0]


def is_version(text: str) -> bool:
    """Tell whether a text is the version of a model."""
    return _VERSION.fullmatch(text) is not None


def is_bfl_host(host: str) -> bool:
    """Tell whether a host is one of BFL's own, which may have the key of any other of them."""
    return _BFL_HOST.fullmatch(host) is not None


def parted(prediction_id: str) -> tuple[str, str]:
    """Return an id as its gateway knows it, and where it is asked for: empty for where predictions usually are, else
    :data:`IN_BFLS_STYLE` or a host of BFL's.
    """
    known, at, place = prediction_id.rpartition("@")
    return (known, place) if at and (place == IN_BFLS_STYLE or is_bfl_host(place)) else (prediction_id, "")


def _bare(value: JSON) -> JSON:
    is_inline = isinstance(value, str) and value[:5].lower() == "data:"
    return value.partition(",")[2] if is_inline else value
