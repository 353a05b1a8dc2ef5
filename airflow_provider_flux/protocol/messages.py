"""What crosses the wire, free of any HTTP library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, TypeAlias

JSON: TypeAlias = Any
"""A value that ``json.loads`` can return."""


BODY_LIMIT = 16 * 1024 * 1024
"""Bytes of an answer that are read. Pictures inside an answer stay below; what is longer is cut and so refused."""


class Purpose(str, Enum):
    """Why a request is made. Only :attr:`CREATE` costs money, so only it is never repeated blindly."""

    CREATE = "create"
    GET = "get"
    CANCEL = "cancel"
    LIST = "list"
    READ = "read"
    """Everything else that is free: models, balance, account."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, relative to an origin.

    :param purpose: why it is made; decides what may be repeated.
    :param method: the HTTP method.
    :param path: absolute path, already percent-encoded, with the query if there is one.
    :param body: sent as it is if it is bytes, else as JSON; nothing is sent if it is None.
    :param headers: headers besides the authentication.
    :param origin: scheme and host that it is sent to, where that is not the connection's own.
    :param place: what is added to the id of the prediction that it makes, so that it is found again there; see
        :mod:`airflow_provider_flux.protocol.dialects`.
    """

    purpose: Purpose
    method: str
    path: str
    body: Mapping[str, JSON] | bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""
    place: str = ""

    def __str__(self) -> str:
        return f"{self.method} {self.path.partition('?')[0]}"


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP answer that arrived whole.

    :param headers: header names in lower case.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class Delivery(str, Enum):
    """How far a request got before the connection failed."""

    NOT_SENT = "not sent"
    """It failed before the first byte could leave, so the gateway cannot have seen the request."""
    UNTRUSTED = "untrusted"
    """The gateway's certificate was refused before the request was sent, or the gateway refused ours."""
    UNUSABLE = "unusable"
    """A proxy or a certificate file that a setting names cannot be used, so nothing was sent."""
    IN_DOUBT = "in doubt"
    """The request may have arrived: the connection ended or stayed silent after it was opened."""


@dataclass(frozen=True, slots=True)
class TransportFailure:
    """A request that got no HTTP answer.

    :param delivery: whether the gateway can have seen the request.
    :param message: what the HTTP library said, without any secret.
    """

    delivery: Delivery
    message: str


Reply: TypeAlias = "Response | TransportFailure"


class Log(Protocol):
    """What is needed of a logger: Airflow's are of several kinds."""

    def info(self, message: str, /, *args: object) -> object:
        """Tell what is as it should be."""

    def warning(self, message: str, /, *args: object) -> object:
        """Tell what may need a person."""
