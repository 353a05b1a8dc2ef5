"""The gateways: what each one is called, where it lives, and how a request to it looks.

A path is always built from ids on the connection's own origin. The ``urls`` of an answer name Replicate's
host even when a gateway answered, so they are never followed (seen in the samples of DeerAPI's and CometAPI's
create pages).
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from airflow_provider_flux.protocol.messages import JSON, Purpose, Request
from airflow_provider_flux.protocol.prediction import NoIdError, Prediction, read_id
from airflow_provider_flux.protocol.urls import tidy
from airflow_provider_flux.protocol.wording import nearest

GATEWAY_PREFIX = "/replicate/v1"
"""Where DeerAPI, CometAPI and gateways like them serve Replicate's API."""

SHORTEST_CANCEL_AFTER = 5
"""Seconds (Replicate's prediction deadlines)."""

LONGEST_WAIT = 60
"""Seconds (Replicate's OpenAPI file)."""

REQUESTS_PER_MINUTE = 30_000
"""Our own choice for gateways that publish no limit, to be corrected by their 429s.

500 a second is what a mapped run of 1,000 needs at most: 200 a second at a poll every 5 s, and up to 400 when they are
deferred as fast as a triggerer takes them up (125 a second) and are polled three times soon after. Of 10,000 that are
pending at the longest interval of 15 s it makes a poll every 20 s.
"""


@dataclass(frozen=True, slots=True)
class Preset:
    """What is known of a gateway before anything is asked.

    :param name: the name used in the connection's ``gateway`` field.
    :param label: the name people know it by.
    :param origin: scheme and host; empty for a gateway that the connection's host names.
    :param prefix: path under which the predictions are.
    :param lists_predictions: whether past predictions can be listed.
    :param status_is_exact: whether the status is never behind the output.
    :param waits_on_create: whether it holds the answer to a create back until the prediction has ended, when asked to
        with ``Prefer: wait``.
    :param ends_predictions: whether it ends a prediction by itself when asked to with ``Cancel-After``.
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
    lists_predictions: bool = False
    status_is_exact: bool = False
    waits_on_create: bool = False
    ends_predictions: bool = False
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
            lists_predictions=True,
            status_is_exact=True,
            waits_on_create=True,
            ends_predictions=True,
            identity_path="/v1/account",
            files_path="/v1/files",
            prediction_page="https://replicate.com/p/{id}",
            # Replicate's rate limit page.
            requests_per_minute=3_000,
            creates_per_minute=600,
        ),
        Preset("custom", "custom gateway"),
    )
}


@dataclass(frozen=True, slots=True)
class Gateway:
    """One gateway as a connection describes it. Holds no secret.

    :param preset: what is known of it.
    :param origin: scheme, host and port: the only place the key is ever sent to.
    :param prefix: path under which the predictions are.
    :param waits_on_create: the preset's, unless the connection says otherwise.
    """

    preset: Preset
    origin: str
    prefix: str
    waits_on_create: bool

    def create(
        self,
        model: str,
        input: Mapping[str, JSON],
        *,
        webhook: str | None = None,
        webhook_events_filter: Sequence[str] | None = None,
        cancel_after: float | None = None,
        wait: float | None = None,
    ) -> Request:
        """Build the request that makes, and bills, one prediction.

        :param model: ``owner/name``; its slash stays a slash (documented on both gateways' create pages).
        :param input: everything meant for the model.
        :param webhook: URL that the gateway is asked to call.
        :param webhook_events_filter: which of ``start``, ``output``, ``logs``, ``completed`` to call it for.
        :param cancel_after: seconds after which the service ends the prediction by itself, where it can.
        :param wait: seconds for which the answer may be held back until the prediction has ended, where that is known
            to work.
        """
        headers = {}
        if wait is not None and self.waits_on_create and wait >= 1:
            headers["Prefer"] = f"wait={min(LONGEST_WAIT, int(wait))}"
        if cancel_after is not None and self.preset.ends_predictions:
            headers["Cancel-After"] = f"{max(SHORTEST_CANCEL_AFTER, round(cancel_after))}s"
        body: dict[str, JSON] = {"input": dict(input)}
        if webhook is not None:
            body["webhook"] = webhook
        if webhook_events_filter is not None:
            body["webhook_events_filter"] = list(webhook_events_filter)
        return Request(Purpose.CREATE, "POST", f"{self.prefix}/models/{quote(model)}/predictions", body, headers)

    def get(self, prediction_id: str) -> Request:
        """Build the request that asks for one prediction."""
        return Request(Purpose.GET, "GET", self._prediction_path(prediction_id))

    def cancel(self, prediction_id: str) -> Request:
        """Build the request that cancels one prediction.

        Documented for Replicate only; on the gateways it is an attempt that may find no such route.
        """
        return Request(Purpose.CANCEL, "POST", f"{self._prediction_path(prediction_id)}/cancel")

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

    def _prediction_path(self, prediction_id: str) -> str:
        if not read_id(prediction_id):
            raise NoIdError(prediction_id)
        return f"{self.prefix}/predictions/{quote(prediction_id, safe='')}"


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
    waits = preset.waits_on_create if waits_on_create is None else waits_on_create
    return Gateway(preset, origin, chosen_prefix.rstrip("/"), waits)


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
    for preset in PRESETS.values():
        if preset.origin == origin:
            return preset
    return PRESETS["custom"]
