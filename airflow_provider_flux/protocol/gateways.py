"""How a request to a gateway looks.

A path is always built from ids, on the connection's own origin or on one of BFL's hosts. The ``urls`` of an answer name
Replicate's host even when a gateway answered, so they are never followed (seen in the samples of DeerAPI's and
CometAPI's create pages).
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote, urlsplit

from airflow_provider_flux.protocol.dialects import (
    BFL,
    DEPLOYMENT,
    IN_BFLS_STYLE,
    MODEL,
    VERSION,
    Dialect,
    dialect_of,
    is_bfl_host,
    parted,
)
from airflow_provider_flux.protocol.messages import JSON, Purpose, Request
from airflow_provider_flux.protocol.prediction import NoIdError, Prediction, read_id
from airflow_provider_flux.protocol.presets import GATEWAY_PREFIX, PRESETS, Preset
from airflow_provider_flux.protocol.urls import tidy
from airflow_provider_flux.protocol.wording import nearest

SHORTEST_CANCEL_AFTER = 5
"""Seconds (Replicate's prediction deadlines)."""

LONGEST_WAIT = 60
"""Seconds (Replicate's OpenAPI file)."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """One gateway as a connection describes it. Holds no secret.

    :param preset: what is known of it.
    :param origin: scheme, host and port: the only place the key is ever sent to, but for the other hosts of BFL's where
        it is one of them.
    :param prefix: path under which the predictions are.
    :param bfl_prefix: path of the calls in BFL's style.
    :param waits_on_create: the preset's, unless the connection says otherwise.
    """

    preset: Preset
    origin: str
    prefix: str
    bfl_prefix: str
    waits_on_create: bool

    def dialect(self, model: str) -> Dialect:
        """Return how a model is asked for here.

        :raises ValueError: if there is no such way, saying how models are written.
        """
        dialect = dialect_of(model)
        if dialect in self.preset.dialects:
            return dialect
        ways = " or ".join(_WRITTEN[way] for way in self.preset.dialects)
        raise ValueError(f"{self.preset.label} takes a model as {ways}, not {model!r}")

    def create(
        self,
        model: str,
        input: Mapping[str, JSON],
        *,
        webhook: str | None = None,
        webhook_events_filter: Sequence[str] | None = None,
        webhook_secret: str = "",
        cancel_after: float | None = None,
        wait: float | None = None,
    ) -> Request:
        """Build the request that makes, and bills, one prediction.

        :param model: its slash stays a slash (documented on both gateways' create pages).
        :param input: everything meant for the model.
        :param webhook: URL that the gateway is asked to call.
        :param webhook_events_filter: which of ``start``, ``output``, ``logs``, ``completed`` to call it for.
        :param webhook_secret: what the call is to be signed with, where that can be chosen (BFL).
        :param cancel_after: seconds after which the service ends the prediction by itself, where it can.
        :param wait: seconds for which the answer may be held back until the prediction has ended, where that is known
            to work.
        :raises ValueError: if the model cannot be asked for here.
        """
        dialect = self.dialect(model)
        headers = {}
        if wait is not None and self.waits_on_create and wait >= 1:
            headers["Prefer"] = f"wait={min(LONGEST_WAIT, int(wait))}"
        if cancel_after is not None and self.preset.ends_predictions:
            headers["Cancel-After"] = f"{max(SHORTEST_CANCEL_AFTER, round(cancel_after))}s"
        path = f"{self._prefix_of(dialect)}{dialect.create.format(model=quote(model))}"
        body = dialect.body(model, input, webhook, webhook_events_filter, webhook_secret)
        place = IN_BFLS_STYLE if dialect is BFL and MODEL in self.preset.dialects else ""
        return Request(Purpose.CREATE, "POST", path, body, headers, place=place)

    def located(self, request: Request, created: Prediction) -> Prediction:
        """Return a prediction with the id by which it is asked for: with the place, where that is not the usual one.

        A ``polling_url`` that is on no host of BFL's is not heeded, and left in it: the key goes to no other.

        :param request: the create that made it.
        """
        place, may_be_asked = request.place, True
        if MODEL not in self.preset.dialects:
            # Only BFL itself says where to ask.
            origin = origin_of(created.polling_url)
            may_be_asked = not created.polling_url or self.may_have_key(created.polling_url)
            place = origin.partition("://")[2] if may_be_asked and origin != self.origin else ""
        named = replace(created, id=f"{created.id}@{place}") if place else created
        return replace(named, polling_url="") if may_be_asked else named

    def get(self, prediction_id: str) -> Request:
        """Build the request that asks for one prediction.

        :raises NoIdError: if it can be the id of none.
        """
        dialect, known, place = self._found(prediction_id)
        path = f"{self._prefix_of(dialect)}{dialect.query.format(id=quote(known, safe=''))}"
        return Request(Purpose.GET, "GET", path, origin=f"https://{place}" if self._may_ask_at(place) else "")

    def cancel(self, prediction_id: str) -> Request | None:
        """Build the request that cancels one prediction; None where there is no way to.

        Documented for Replicate only; on the gateways it is an attempt that may find no such route.

        :raises NoIdError: if it can be the id of none.
        """
        dialect, known, _ = self._found(prediction_id)
        if not dialect.cancel:
            return None
        path = f"{self._prefix_of(dialect)}{dialect.cancel.format(id=quote(known, safe=''))}"
        return Request(Purpose.CANCEL, "POST", path)

    def may_have_key(self, url: str) -> bool:
        """Tell whether the key may be sent to the origin of a URL."""
        origin = origin_of(url)
        scheme, _, host = origin.partition("://")
        return origin == self.origin or (scheme == "https" and self._may_ask_at(host))

    def list(self, cursor: str | None = None) -> Request:
        """Build the request for one page of past predictions, newest first (Replicate only).

        :param cursor: the ``next`` of the page before. Only its query is used: the rest names a host.
        """
        query = tidy(f"https://cursor/{cursor or ''}").partition("#")[0].partition("?")[2]
        path = f"{self.prefix}/predictions"
        return Request(Purpose.LIST, "GET", f"{path}?{query}" if query else path)

    def read(self, path: str) -> Request:
        """Build a free request outside the predictions, such as the model list."""
        return Request(Purpose.READ, "GET", path)

    @property
    def files_url(self) -> str:
        """How the URLs of uploaded files begin; empty where none can be uploaded."""
        return f"{self.origin}{self.preset.files_path}/" if self.preset.files_path else ""

    def upload(self, content: bytes, *, name: str, media_type: str) -> Request:
        """Build the request that uploads a file for an input (Replicate only).

        :param name: the file's name, which its URL may show.
        """
        boundary = secrets.token_hex(16)
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="content"; filename="{name}"\r\n'
            f"Content-Type: {media_type}\r\n\r\n"
        )
        body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        return Request(Purpose.READ, "POST", self.preset.files_path, body, headers)

    def page(self, prediction: Prediction) -> str:
        """Return the page of a prediction for people; empty where none is known."""
        return prediction.page or self.preset.prediction_page.format(id=quote(prediction.id, safe=""))

    def _found(self, prediction_id: str) -> tuple[Dialect, str, str]:
        """Return how a prediction is asked for, its id as the gateway knows it, and the place that its id names."""
        known, place = parted(prediction_id)
        if not read_id(known):
            raise NoIdError(prediction_id)
        is_bfl = BFL in self.preset.dialects and (bool(place) or MODEL not in self.preset.dialects)
        return (BFL, known, place) if is_bfl else (MODEL, known, "")

    def _prefix_of(self, dialect: Dialect) -> str:
        return self.bfl_prefix if dialect is BFL else self.prefix

    def _may_ask_at(self, host: str) -> bool:
        scheme, _, own = self.origin.partition("://")
        return scheme == "https" and is_bfl_host(own) and is_bfl_host(host)


_WRITTEN = {
    MODEL: "owner/name",
    VERSION: "owner/name:version",
    DEPLOYMENT: "deployments/owner/name",
    BFL: "a short name such as flux-2-pro",
}


def choose_gateway(
    host: str, *, preset_name: str = "", prefix: str = "", allow_http: bool = False, waits_on_create: bool | None = None
) -> Gateway:
    """Read a connection's host and options as a gateway.

    :param host: an origin such as ``https://api.deerapi.com``, with or without the scheme, optionally with a
        path that then is the prefix.
    :param preset_name: name of a preset; without it the host decides.
    :param prefix: path under which the predictions are, where it differs from the preset's.
    :param allow_http: permit plain http to a host that is not this machine.
    :param waits_on_create: whether it honours ``Prefer: wait``; as the preset says if not given.
    :raises ValueError: if the host cannot be used, saying what to change.
    """
    if preset_name and preset_name not in PRESETS:
        raise ValueError(
            f"unknown gateway {preset_name!r}; choose one of {', '.join(PRESETS)}{nearest(preset_name, PRESETS)}"
        )
    if not host:
        if not preset_name or preset_name == "custom":
            raise ValueError("the connection has no host; set it to the gateway's URL")
        host = PRESETS[preset_name].origin
    scheme, netloc, path = _split_host(host)
    if scheme != "https" and not (scheme == "http" and (allow_http or is_loopback(f"{scheme}://{netloc}"))):
        raise ValueError(
            f"the host {scheme}://{netloc} is not https, so the key would travel in the clear; "
            "use https, or set allow_http in the connection's extra for a host you trust"
        )
    origin = f"{scheme}://{netloc}"
    preset = PRESETS[preset_name] if preset_name else _preset_of(origin)
    _check_path(path, origin)
    _check_prefix(prefix)
    chosen_prefix = "/" + (prefix or path or preset.prefix).strip("/")
    chosen_prefix = chosen_prefix.rstrip("/")
    waits = preset.waits_on_create if waits_on_create is None else waits_on_create
    # A proxy in front of a gateway has both styles under one path of its own.
    above = chosen_prefix.removesuffix(GATEWAY_PREFIX) if chosen_prefix.endswith(GATEWAY_PREFIX) else ""
    bfl_prefix = f"{above}{preset.bfl_prefix}" if MODEL in preset.dialects else chosen_prefix
    return Gateway(preset, origin, chosen_prefix, bfl_prefix, waits)


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL in a form that can be compared."""
    parts = urlsplit(url)
    default_port = {"http": 80, "https": 443}.get(parts.scheme)
    port = "" if parts.port in (None, default_port) else f":{parts.port}"
    host = parts.hostname or ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"


def _split_host(host: str) -> tuple[str, str, str]:
    text = host.strip() if "://" in host else f"https://{host.strip()}"
    try:
        parts = urlsplit(text)
        named = bool(parts.hostname) and parts.port != 0
        plain = named and not (parts.username or parts.password or parts.query or parts.fragment)
        # Left over from a scheme that is written wrong, and from a key before the host that has a slash in it.
        plain = plain and parts.hostname not in ("http", "https") and "@" not in parts.path
    except ValueError:
        plain = False
    if not plain or len(text.split()) != 1:
        raise ValueError(
            "the connection's host is not a plain URL; write it like https://api.deerapi.com, "
            "and put the key into the password field"
        )
    return parts.scheme, origin_of(text).partition("://")[2], parts.path.rstrip("/")


_ENDPOINTS = ("models", "predictions", "completions", "generations", "images")
"""Parts of a path that belong to a call and not to where the calls are."""


def _check_path(path: str, origin: str) -> None:
    steps = path.split("/")
    found = next((place for place, step in enumerate(steps) if step in _ENDPOINTS), None)
    if found is not None:
        base = "/".join(steps[:found]).removesuffix("/flux")
        short = origin if _preset_of(origin).prefix == base or not base else f"{origin}{base}"
        raise ValueError(f"the host is the address of a single call, not of the gateway; shorten it to {short}")


def _check_prefix(prefix: str) -> None:
    if "://" in prefix or len(prefix.split()) > 1 or set(prefix) & set("?#"):
        raise ValueError(f"path_prefix in extra must be a path such as {GATEWAY_PREFIX}, not {prefix!r}")
    if set(prefix.split("/")) & set(_ENDPOINTS):
        raise ValueError(f"path_prefix in extra goes too far; it is where the calls are, such as {GATEWAY_PREFIX}")


def is_loopback(origin: str) -> bool:
    """Tell whether an origin is on this machine."""
    host = urlsplit(origin).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _preset_of(origin: str) -> Preset:
    scheme, _, host = origin.partition("://")
    if scheme == "https" and is_bfl_host(host):
        return PRESETS["bfl"]
    return next((preset for preset in PRESETS.values() if preset.origin == origin), PRESETS["custom"])
