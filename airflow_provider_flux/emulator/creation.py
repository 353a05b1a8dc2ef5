"""What the create routes of all flavours share."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_flux.emulator.exchange import Call
from airflow_provider_flux.emulator.predictions import Prediction
from airflow_provider_flux.emulator.served_models import Model

MAX_WAIT = 60.0
WAIT_STEP = 0.05
DEFAULT_EVENTS = ("output", "completed")  # replicate.com/docs/topics/webhooks
_WAIT = re.compile(r"^wait(?:=([1-9]|[1-9][0-9]|60))?$")
_DURATION = re.compile(r"^(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m)?(?:(?P<s>\d+)s)?$")
_UNITS = {"h": 3600, "m": 60, "s": 1}

OnCreated = Callable[[Prediction], None]


def wait_seconds(call: Call) -> float | None:
    """Return how long ``Prefer`` asks the create to wait, at most 60 s (Replicate's OpenAPI file).

    :param call: the request.
    """
    match = _WAIT.match(call.request.headers.get("Prefer", "").strip())
    if match is None:
        return None
    return min(float(match[1] or MAX_WAIT), MAX_WAIT)


def deadline_seconds(text: str) -> float | None:
    """Read a ``Cancel-After`` value such as ``30s``, ``1h30m45s`` or a bare number of seconds.

    :param text: the header's value.
    :returns: the seconds, or ``None`` when it cannot be read.
    """
    text = text.strip()
    if text.isdecimal():
        return float(text)
    match = _DURATION.match(text)
    if match is None or not text:
        return None
    return float(sum(int(value) * _UNITS[unit] for unit, value in match.groupdict(default="0").items()))


async def wait_for_end(call: Call, prediction: Prediction, seconds: float) -> bool:
    """Hold a request until a prediction has ended; tell whether it has.

    :param call: the request.
    :param prediction: the prediction.
    :param seconds: how long to wait at most, on the loop's own clock.
    """
    loop = asyncio.get_running_loop()
    limit = loop.time() + seconds
    while prediction.at(call.state.now).ended is None:
        left = limit - loop.time()
        if left <= 0 or call.state.closing.is_set():
            return False
        await asyncio.sleep(min(WAIT_STEP, left))
    return True


def webhook_fields(body: Mapping[str, Any], name: str = "webhook") -> dict[str, Any]:
    """Return the prediction's webhook fields from a create body.

    :param body: the body.
    :param name: the key that holds the address.
    """
    address = body.get(name)
    if not isinstance(address, str) or not address:
        return {}
    events = body.get("webhook_events_filter")
    listed = tuple(str(event) for event in events) if isinstance(events, list) and events else DEFAULT_EVENTS
    return {"webhook": address, "webhook_events": listed}


def is_loopback(address: str) -> bool:
    """Tell whether an address leads to this very machine.

    :param address: an http(s) address.
    """
    try:
        host = urlsplit(address).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def create(call: Call, flavour: str, model: Model, given: dict[str, Any], **more: Any) -> Prediction:
    """Make the prediction of a request that passed all checks.

    :param call: the request.
    :param flavour: the kind of route.
    :param model: the model.
    :param given: the input.
    :param more: further fields of the prediction.
    """
    prediction = call.state.make_prediction(flavour, model, given, **more)
    call.accepted(prediction)
    call.state.created(prediction)
    return prediction
