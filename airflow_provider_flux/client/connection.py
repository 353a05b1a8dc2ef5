"""An Airflow connection, read once for the worker and the triggerer alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_flux.client.connection_fields import (
    flag_option,
    json_option,
    number_option,
    read_extra,
    read_host,
    read_key,
    text_option,
    url_option,
)
from airflow_provider_flux.exceptions import AirflowNotFoundException, FluxConnectionError
from airflow_provider_flux.protocol.gateways import Gateway, choose_gateway, is_loopback
from airflow_provider_flux.protocol.list_prices import Quote
from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.pricing import Prices, read_prices

if TYPE_CHECKING:
    from airflow.sdk import Connection

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 60.0
"""Seconds. A create answers within seconds; CometAPI's query page warns of a GET that gave none in 45 s."""


@dataclass(frozen=True, slots=True)
class GatewayAccess:
    """How to reach one gateway.

    :param conn_id: the connection it was read from.
    :param gateway: where requests go.
    :param key: the key; in no representation of this object.
    :param connect_timeout: seconds to make a connection.
    :param read_timeout: seconds of silence after which an answer is given up.
    :param ca_file: PEM file of authorities to trust instead of the usual ones; where pictures are fetched from, besides
        them.
    :param chosen_per_minute: limit for all requests together, creates included; None for what the gateway is known for.
    :param prices: what models cost, before the provider's own list.
    :param listed_prices: what the gateway itself says that models cost, where it has been asked.
    :param webhook_base_url: where the gateway reaches this Airflow's API server; empty if it does not.
    :param webhook_secret: what the gateway signs its calls with, where it is not asked for it.
    :param airflow_user: in whose name asset events are made of its calls.
    :param airflow_password: that user's.
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
    listed_prices: Mapping[str, Quote] = field(default_factory=dict)
    webhook_base_url: str = ""
    webhook_secret: str = field(default="", repr=False)
    airflow_user: str = ""
    airflow_password: str = field(default="", repr=False)
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
        """The authentication. Only ever added to a request to an origin that may have it."""
        return {self.gateway.preset.key_header: f"{self.gateway.preset.key_scheme}{self.key}"}

    @property
    def request_limit(self) -> float:
        """Seconds after which any answer is given up, however slowly it keeps coming."""
        return self.connect_timeout + self.read_timeout


def read_connection(connection: Connection) -> GatewayAccess:
    """Read an Airflow connection of type ``flux``.

    ============= ==========================================================================
    Field         Meaning
    ============= ==========================================================================
    host          the gateway's URL, such as ``https://api.deerapi.com``; ``port`` and, as
                  scheme or path, ``schema`` are added, which a connection URI takes apart
    password      the key alone; white space around it does not matter
    extra         ``gateway``, ``path_prefix``, ``allow_http``, ``connect_timeout``,
                  ``read_timeout``, ``ca_file``, ``requests_per_minute``, ``prices``,
                  ``private_outputs``, ``prefer_wait``, ``webhook_base_url``,
                  ``webhook_secret``, ``airflow_user``, ``airflow_password``; all optional,
                  all also as texts
    ============= ==========================================================================

    ``requests_per_minute`` bounds all requests of the connection in one process: those of a whole triggerer, and those
    of each task that runs on a worker. Without it the gateway's own limits hold, as far as they are known.

    :raises FluxConnectionError: if it cannot be used, saying which field to change.
    """
    conn_id = connection.conn_id
    try:
        key = read_key(connection)
        extra = read_extra(connection)
        gateway = choose_gateway(
            read_host(connection),
            preset_name=text_option(extra, "gateway").lower(),
            prefix=text_option(extra, "path_prefix"),
            allow_http=flag_option(extra, "allow_http") or False,
            waits_on_create=flag_option(extra, "prefer_wait"),
        )
        return GatewayAccess(
            conn_id,
            gateway,
            key,
            connect_timeout=number_option(extra, "connect_timeout", "of seconds") or CONNECT_TIMEOUT,
            read_timeout=number_option(extra, "read_timeout", "of seconds") or READ_TIMEOUT,
            ca_file=text_option(extra, "ca_file") or None,
            chosen_per_minute=number_option(extra, "requests_per_minute", "of requests"),
            prices=read_prices(json_option(extra, "prices")),
            webhook_base_url=url_option(extra, "webhook_base_url"),
            webhook_secret=text_option(extra, "webhook_secret"),
            airflow_user=text_option(extra, "airflow_user"),
            airflow_password=text_option(extra, "airflow_password"),
            private_outputs=flag_option(extra, "private_outputs") or False,
        )
    except ValueError as error:
        raise FluxConnectionError(f"Connection {conn_id!r}: {error}.") from error


def find_connection(conn_id: JSON) -> GatewayAccess:
    """Look a connection up and read it, on a worker.

    :raises FluxConnectionError: if there is none, or it cannot be used.
    """
    from airflow.sdk import BaseHook
    from airflow.sdk.log import mask_secret

    with _looked_up(conn_id) as name:
        connection = BaseHook.get_connection(name)
    access = read_connection(connection)
    if access.key != connection.password:
        # Airflow hides the password in logs just as it is stored.
        mask_secret(access.key)
    return access


async def find_connection_in_triggerer(conn_id: JSON) -> GatewayAccess:
    """Do the same in the triggerer, without a call that blocks its loop."""
    from airflow.sdk import BaseHook, log

    with _looked_up(conn_id) as name:
        connection = await BaseHook.aget_connection(name)
    access = read_connection(connection)
    if access.key != connection.password:
        # Before Airflow 3.3.2 there is no such call that does not block; there the triggerer's own process is told.
        masks = getattr(log, "amask_secret", None)
        if masks is not None:
            await masks(access.key)
        elif hasattr(log, "_secrets_masker"):
            log._secrets_masker().add_mask(access.key)
    return access


@contextmanager
def _looked_up(conn_id: JSON) -> Iterator[str]:
    if not isinstance(conn_id, str) or not conn_id.strip():
        raise FluxConnectionError(f"flux_conn_id must be the id of a connection, not {conn_id!r}.")
    try:
        yield conn_id.strip()
    except AirflowNotFoundException as error:
        raise FluxConnectionError(f"{error}. Make a connection of type flux, or correct flux_conn_id.") from error
