"""An Airflow connection, read once for the worker and the triggerer alike."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_flux.exceptions import FluxConnectionError
from airflow_provider_flux.protocol.gateways import Gateway, choose_gateway, is_loopback
from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.pricing import Prices, read_prices

if TYPE_CHECKING:
    from airflow.sdk import Connection

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 60.0
"""Seconds. A create answers within seconds; CometAPI's query page warns of a GET that gave none in 45 s."""

SHORTEST_HIDDEN_KEY = 8
"""Characters. A shorter key is no secret, and could be part of any word."""


@dataclass(frozen=True, slots=True)
class GatewayAccess:
    """How to reach one gateway.

    :param conn_id: the connection it was read from.
    :param gateway: where requests go.
    :param key: the Bearer key; in no representation of this object.
    :param connect_timeout: seconds to make a connection.
    :param read_timeout: seconds of silence after which an answer is given up.
    :param ca_file: PEM file of authorities to trust instead of the usual ones.
    :param chosen_per_minute: limit for all requests together, creates included; None for what the gateway is known for.
    :param prices: what models cost, before the provider's own list.
    :param private_outputs: allow pictures to be fetched from private addresses, for gateways inside a network.
    """

    conn_id: str
    gateway: Gateway
    key: str = field(repr=False)
    connect_timeout: float = CONNECT_TIMEOUT
    read_timeout: float = READ_TIMEOUT
    ca_file: str | None = None
    chosen_per_minute: float | None = None
    prices: Prices = field(default_factory=dict)
    private_outputs: bool = False

    @property
    def allow_private_outputs(self) -> bool:
        """Whether pictures may be fetched from this machine and from private networks.

        They may from this machine if the gateway is here as well, as the emulator is.
        """
        return self.private_outputs or is_loopback(self.gateway.origin)

    @property
    def requests_per_minute(self) -> float:
        """How many requests this process sends in a minute at most; of the creates see :attr:`creates_per_minute`."""
        return self.chosen_per_minute or self.gateway.preset.requests_per_minute

    @property
    def creates_per_minute(self) -> float | None:
        """The limit for creates alone; None if they share the other."""
        return None if self.chosen_per_minute else self.gateway.preset.creates_per_minute

    @property
    def headers(self) -> Mapping[str, str]:
        """The authentication. Only ever added to a request to the gateway's own origin."""
        return {"Authorization": f"Bearer {self.key}"}

    @property
    def trusted_authorities(self) -> str | None:
        """The CA file or folder for both HTTP libraries, of which each has other ways of its own to find one."""
        return self.ca_file or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or None

    @property
    def request_limit(self) -> float:
        """Seconds after which any answer is given up, however slowly it keeps coming."""
        return self.connect_timeout + self.read_timeout

    def without_key(self, body: bytes) -> bytes:
        """Take the key out of an answer: gateways repeat it in errors, which end up in logs and callbacks."""
        key = self.key.encode()
        return body.replace(key, b"***") if len(key) >= SHORTEST_HIDDEN_KEY else body


def read_connection(connection: Connection) -> GatewayAccess:
    """Read an Airflow connection of type ``flux``.

    ============= ==========================================================================
    Field         Meaning
    ============= ==========================================================================
    host          the gateway's URL, such as ``https://api.deerapi.com``
    password      the Bearer key
    extra         ``gateway``, ``path_prefix``, ``allow_http``, ``connect_timeout``,
                  ``read_timeout``, ``ca_file``, ``requests_per_minute``, ``prices``,
                  ``private_outputs``, ``prefer_wait``; all optional
    ============= ==========================================================================

    ``requests_per_minute`` bounds all requests of the connection in one process: those of a whole triggerer, and those
    of each task that runs on a worker. Without it the gateway's own limits hold, as far as they are known.

    :raises FluxConnectionError: if it cannot be used, saying which field to change.
    """
    conn_id = connection.conn_id
    extra = _extra(connection)
    # Taken as it is: Airflow hides it in logs in just this form.
    key = connection.password or ""
    if not key.strip():
        raise FluxConnectionError(f"Connection {conn_id!r}: no key. Put the gateway's key into the password field.")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise FluxConnectionError(
            f"Connection {conn_id!r}: the key holds a character that no HTTP header can carry. Paste it again."
        )
    try:
        gateway = choose_gateway(
            _host(connection),
            preset_name=_option(extra, "gateway", str, ""),
            prefix=_option(extra, "path_prefix", str, ""),
            allow_http=_option(extra, "allow_http", bool, default=False),
            waits_on_create=_option(extra, "prefer_wait", bool, default=None),
        )
        return GatewayAccess(
            conn_id,
            gateway,
            key,
            connect_timeout=_number(extra, "connect_timeout", "of seconds") or CONNECT_TIMEOUT,
            read_timeout=_number(extra, "read_timeout", "of seconds") or READ_TIMEOUT,
            ca_file=_option(extra, "ca_file", str, "") or None,
            chosen_per_minute=_number(extra, "requests_per_minute", "of requests"),
            prices=read_prices(_prices(extra)),
            private_outputs=_option(extra, "private_outputs", bool, default=False),
        )
    except ValueError as error:
        raise FluxConnectionError(f"Connection {conn_id!r}: {error}.") from error


def _extra(connection: Connection) -> Mapping[str, JSON]:
    # Not `extra_dejson`: it registers secrets over a blocking call, which the triggerer's loop must not make.
    try:
        extra = json.loads(connection.extra or "{}")
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        raise FluxConnectionError(f"Connection {connection.conn_id!r}: extra is not a JSON object.")
    return extra


def _host(connection: Connection) -> str:
    """Put together what the form keeps in one field and a connection URI splits into three."""
    host = (connection.host or "").strip()
    if host and "://" not in host and connection.schema in ("http", "https"):
        host = f"{connection.schema}://{host}"
    return f"{host}:{connection.port}" if host and connection.port else host


def _option(extra: Mapping[str, JSON], name: str, kind: type, default: JSON) -> JSON:
    value = extra.get(name)
    if value is None or value == "":
        return default
    if not isinstance(value, kind):
        raise ValueError(  # noqa: TRY004 (the wrong type is a wrong value of a form field)
            f"{name} in extra must be of type {kind.__name__}, not {value!r}"
        )
    return value


def _prices(extra: Mapping[str, JSON]) -> JSON:
    """Return the prices as the form keeps them: the text of a JSON object, or the object itself."""
    prices = extra.get("prices") or {}
    try:
        return json.loads(prices) if isinstance(prices, str) else prices
    except ValueError as error:
        raise ValueError(f"prices in extra is not JSON: {error}") from error


def _number(extra: Mapping[str, JSON], name: str, unit: str) -> float | None:
    value = extra.get(name)
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number < float("inf"):
        raise ValueError(f"{name} in extra must be a number {unit} above 0, not {value!r}")
    return number
