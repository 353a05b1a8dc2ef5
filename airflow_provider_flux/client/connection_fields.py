"""The fields of an Airflow connection, in every form in which Airflow lets people write them.

A URI splits what the form keeps in one field, and all of its extras are texts; a secrets backend hands on what was
stored, with the newline at its end.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.wording import nearest

if TYPE_CHECKING:
    from airflow.sdk import Connection

_log = logging.getLogger(__name__)

EXTRA_NAMES = (
    "gateway",
    "path_prefix",
    "allow_http",
    "connect_timeout",
    "read_timeout",
    "ca_file",
    "requests_per_minute",
    "prefer_wait",
    "prices",
    "private_outputs",
    "webhook_base_url",
    "webhook_secret",
    "airflow_user",
    "airflow_password",
)

_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"
_QUOTES = "\"'`\u2018\u2019\u201c\u201d"
_SCHEME = re.compile(r"(authorization\s*:|bearer|token|key|basic)(\s+|:|$)", re.IGNORECASE)
_ASSIGNMENT = re.compile(r"(export\s+)?[A-Z][A-Z0-9_]*(KEY|TOKEN|SECRET)\s*=\s*[^=\s]")


def read_key(connection: Connection) -> str:
    """Return the key, without the white space that secrets often end in.

    :raises ValueError: if it is none, saying what is wrong with it and nothing of it.
    """
    key = (connection.password or "").strip().strip(_INVISIBLE).strip()
    if not key:
        elsewhere = " What is in the login field is not used." if connection.login else ""
        raise ValueError(f"no key. Put the gateway's key into the password field.{elsewhere}")
    if wrong := _fault_of_key(key):
        raise ValueError(f"{wrong}. Paste it again, the key and nothing else")
    return key


def _fault_of_key(key: str) -> str:
    begins = _SCHEME.match(key)
    scheme = begins[1].split(":")[0].strip().capitalize() if begins else ""
    is_plain = key.isascii() and key.isprintable() and " " not in key
    faults = {
        "the key consists of the stars that Airflow shows in place of one": set(key) == {"*"},
        "the key has quotes around it": key[0] in _QUOTES or key[-1] in _QUOTES,
        f"the key begins with {scheme!r}, which is added by itself": begins is not None,
        "the password field holds an assignment such as NAME=key": _ASSIGNMENT.match(key) is not None,
        "the key goes over several lines": len(key.splitlines()) > 1,
        "the key holds a character that no HTTP header can carry": not is_plain,
    }
    return next((fault for fault, is_so in faults.items() if is_so), "")


def read_host(connection: Connection) -> str:
    """Put together what the form keeps in one field and a connection URI splits into three: host, port and schema.

    :raises ValueError: if they contradict each other.
    """
    host = (connection.host or "").strip()
    schema = (connection.schema or "").strip().strip("/")
    is_scheme = schema.lower() in ("http", "https")
    if not host:
        return ""
    scheme, is_url, rest = host.partition("://")
    if not is_url:
        scheme, rest = (schema.lower() if is_scheme else "https"), host
    netloc, _, path = rest.partition("/")
    if schema and not is_scheme:
        # In a URI this is the path.
        if path.strip("/") not in ("", schema):
            raise ValueError("the host has a path and the schema field another one; empty the schema field")
        path = schema
    return f"{scheme}://{_with_port(netloc, connection.port)}/{path}".rstrip("/")


def _with_port(netloc: str, port: Any) -> str:
    try:
        if ipaddress.ip_address(netloc).version == 6:
            netloc = f"[{netloc}]"
    except ValueError:
        pass
    if not port:
        return netloc
    own = re.search(r":(\d+)$", netloc)
    if own is not None and int(own[1]) != int(port):
        raise ValueError(f"the host names port {own[1]} and the port field {port}; empty one of them")
    return netloc if own is not None else f"{netloc.rstrip(':')}:{port}"


def read_extra(connection: Connection) -> dict[str, JSON]:
    """Return the options of the extra field, and warn of names that are not read.

    :raises ValueError: if it is no JSON object.
    """
    # Not `extra_dejson`: it registers secrets over a blocking call, which the triggerer's loop must not make.
    extra: JSON = connection.extra or {}
    try:
        for _ in range(2):
            # Twice: tools that write JSON into a field of JSON quote it once more.
            extra = json.loads(extra or "{}") if isinstance(extra, str) else extra
    except ValueError:
        extra = None
    if not isinstance(extra, Mapping):
        raise ValueError("extra is not a JSON object")  # noqa: TRY004 (the wrong type is a wrong value of a form field)
    # Older forms of Airflow wrote the connection's type before the name.
    options = {str(name).removeprefix("extra__flux__"): value for name, value in extra.items()}
    for name in options:
        if name not in EXTRA_NAMES and (connection.conn_id, name) not in _warned:
            _warned.add((connection.conn_id, name))
            _log.warning(
                "Connection %r: extra has %r, which is not read%s",
                connection.conn_id,
                name,
                nearest(name, EXTRA_NAMES),
            )
    return options


_warned: set[tuple[str, str]] = set()
"""What has been said already. A triggerer reads its connections every half minute."""


def _given(extra: Mapping[str, JSON], name: str) -> JSON:
    """Return an option; None if it is not given, which a form, a URI and a template each write in another way."""
    value = extra.get(name)
    text = value.strip() if isinstance(value, str) else value
    return None if text == "" or (isinstance(text, str) and text.lower() in ("none", "null")) else text


def text_option(extra: Mapping[str, JSON], name: str) -> str:
    """Return an option that is a text; empty if it is not given.

    :raises ValueError: if it is anything else.
    """
    value = _given(extra, name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} in extra must be a text, not {value!r}")
    return value or ""


def url_option(extra: Mapping[str, JSON], name: str) -> str:
    """Return an option that is the URL of a server; empty if it is not given.

    :raises ValueError: if it is anything else.
    """
    url = text_option(extra, name)
    parts = urlsplit(url)
    if url and not (parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment)):
        raise ValueError(f"{name} in extra must be a URL such as https://airflow.example.com, not {url!r}")
    return url


_WORDS: Mapping[str, bool] = {
    **dict.fromkeys(("true", "1", "yes", "on", "y", "t"), True),
    **dict.fromkeys(("false", "0", "no", "off", "n", "f"), False),
}


def flag_option(extra: Mapping[str, JSON], name: str) -> bool | None:
    """Return an option that is true or false; None if it is not given.

    :raises ValueError: if it is anything else.
    """
    value = _given(extra, name)
    word = "" if isinstance(value, float) else str(value).lower()
    if value is not None and word not in _WORDS:
        raise ValueError(f"{name} in extra must be true or false, not {value!r}")
    return None if value is None else _WORDS[word]


def number_option(extra: Mapping[str, JSON], name: str, unit: str) -> float | None:
    """Return an option that is a number above 0; None if it is not given.

    :param unit: of what, for the error.
    :raises ValueError: if it is anything else.
    """
    value = _given(extra, name)
    if value is None:
        return None
    try:
        number = 0.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number < float("inf"):
        raise ValueError(f"{name} in extra must be a number {unit} above 0, not {value!r}")
    return number


def json_option(extra: Mapping[str, JSON], name: str) -> JSON:
    """Return an option that is an object, also as the text of one, as form and URI keep it; empty if it is not given.

    :raises ValueError: if it is no JSON.
    """
    value = _given(extra, name)
    try:
        return json.loads(value) if isinstance(value, str) else value or {}
    except ValueError as error:
        raise ValueError(f"{name} in extra is not JSON: {error}") from error
