"""The values of templated arguments, as Airflow hands them over, made into what they mean or refused.

A template field can hold anything once it is rendered: another task's result, a lazy sequence of a mapped task's
results, a path object, a number of numpy. All of it is looked at before anything is paid for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_flux.exceptions import FluxInputError
from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.wording import kind
from airflow_provider_flux.tasks.templating import is_null

AUTO = "auto"
"""Stands for the URL at which this Airflow receives a gateway's calls."""

_NATIVE = "give the other task's output itself, or set render_template_as_native_obj=True on the DAG"


def path_argument(name: str, value: Any) -> str:
    """Return a path as text: of a text, a ``pathlib.Path`` or an ``ObjectStoragePath``.

    :raises FluxInputError: if it is anything else, or empty.
    """
    path = _path_text(value)
    if not isinstance(path, str):
        raise FluxInputError(f"{name} must be a path, not {kind(value)}. Nothing was sent.")
    if not path.strip():
        raise FluxInputError(f"{name} is empty; give a path, or leave it out. Nothing was sent.")
    return path.strip()


def _path_text(value: Any) -> Any:
    # An ObjectStoragePath of a remote storage is no os.PathLike, and that of a local one does not tell its protocol.
    return str(value) if hasattr(value, "protocol") else os.fspath(value) if isinstance(value, os.PathLike) else value


def text_argument(name: str, value: Any, example: str) -> str:
    """Return a short text, such as an id, without the white space that a template leaves around it.

    :param example: what is meant.
    :raises FluxInputError: if it is no text, or empty.
    """
    text = value.strip() if isinstance(value, str) else ""
    if not text:
        given = repr(value) if isinstance(value, str) else kind(value)
        raise FluxInputError(f"{name} must be {example}, not {given}. Nothing was sent.")
    return text


def model_argument(model: Any, version: Any = None) -> str:
    """Return the name of a model, with its version if that is given apart.

    :raises FluxInputError: if they are no texts, or empty.
    """
    if version is None:
        return text_argument("model", model, "a model such as black-forest-labs/flux-schnell")
    named = text_argument("version", version, "the version of a model")
    if not model or "/" in named:
        return named
    return f"{text_argument('model', model, 'owner/name')}:{named}"


def prompt_argument(name: str, value: Any) -> str:
    """Return a prompt as text. What is a number by its nature, such as a year, is written out.

    :raises FluxInputError: if it is neither.
    """
    plain = plain_value(value)
    if isinstance(plain, str):
        return plain
    if isinstance(value, Decimal) and not is_null(value):
        return str(value)
    if isinstance(plain, (bool, int, float)) and not is_null(plain):
        return str(plain)
    raise FluxInputError(
        f"{name} must be a text, not {'nothing' if is_null(value) else kind(value)}. Nothing was sent."
    )


def whole_input(prompt: Any, input: Any, *, prompt_is_given: bool) -> dict[str, JSON]:
    """Return the input that ``prompt`` and ``input`` make together.

    :param prompt_is_given: whether the DAG gives a prompt, which a template may then have made nothing of.
    :raises FluxInputError: if they do not fit together.
    """
    if input is not None and not isinstance(input, Mapping):
        hint = f" (a template renders to text: {_NATIVE})" if isinstance(input, str) else ""
        raise FluxInputError(f"input must be a mapping of field names to values, not {kind(input)}{hint}.")
    whole = {name: plain_value(value) for name, value in (input or {}).items()}
    if whole.get("prompt") is not None:
        whole["prompt"] = prompt_argument("input['prompt']", (input or {})["prompt"])
    if prompt is not None or prompt_is_given:
        text = prompt_argument("prompt", prompt)
        if whole.get("prompt", text) != text:
            raise FluxInputError("prompt and input['prompt'] differ; give only one of them.")
        whole["prompt"] = text
    return whole


def plain_value(value: Any) -> JSON:
    """Return a value as JSON can carry it, where there is no doubt how: lists of every kind, paths, decimals, numpy's
    numbers.

    Anything else is left as it is, to be refused with the field's name.
    """
    return _plain(value, ())


def _plain(value: Any, inside: tuple[int, ...]) -> JSON:
    value = _path_text(value)
    if isinstance(value, str):
        # Of a subclass, such as a markup, its characters.
        return str.__str__(value)
    if id(value) in inside:
        return value
    within = (*inside, id(value))
    if isinstance(value, Mapping):
        return {name: _plain(item, within) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview, range)):
        return [_plain(item, within) for item in value]
    if isinstance(value, Decimal) and value.is_finite():
        return int(value) if value == value.to_integral_value() else float(value)
    # Arrays and numbers of numpy.
    return value.tolist() if hasattr(value, "dtype") and hasattr(value, "tolist") else value


def webhook_argument(webhook: Any) -> str | None:
    """Return the URL that the gateway is to call; ``auto`` for that of this Airflow, None for none.

    :raises FluxInputError: if it is no URL: some services take the money and fail on it afterwards.
    """
    if webhook is None:
        return None
    if webhook == AUTO:
        return AUTO
    url = webhook.strip() if isinstance(webhook, str) else ""
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and len(url.split()) == 1
    except ValueError:
        is_url = False
    if not is_url:
        given = repr(webhook) if isinstance(webhook, str) else kind(webhook)
        raise FluxInputError(f"webhook must be an https URL, not {given}; or leave it out. Nothing was sent.")
    return url
