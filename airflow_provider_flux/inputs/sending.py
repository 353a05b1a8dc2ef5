"""How the pictures of an input travel: inside the request, uploaded, or fetched by the service from where they lie.

Whatever is sent in a picture's place opens it to whoever has it, so it is returned to the caller and told to nobody.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_flux.exceptions import FluxInputError
from airflow_provider_flux.inputs.picture_reading import read_file
from airflow_provider_flux.inputs.shrinking import shrink
from airflow_provider_flux.inputs.transfer import INLINE_LIMIT, SMALL, Possible, Transfer, choose, uri_length
from airflow_provider_flux.outputs.addresses import ForbiddenOriginError, check_url
from airflow_provider_flux.outputs.inline import is_inline
from airflow_provider_flux.outputs.pictures import INPUT_MEDIA_TYPES
from airflow_provider_flux.protocol.gateways import Gateway, is_loopback
from airflow_provider_flux.protocol.messages import JSON, Log, Request
from airflow_provider_flux.protocol.picture_inputs import pictures_of, values_of, with_pictures

SIGNED_MARGIN = 600
"""Seconds for which a signed URL is valid after the deadline: a queue may be long."""


def input_to_send(
    input: Mapping[str, JSON],
    gateway: Gateway,
    *,
    wanted: str,
    deadline: float,
    ask: Callable[[Request], JSON],
    log: Log,
) -> dict[str, JSON]:
    """Return an input with something that the gateway can read in the place of each picture.

    :param input: with pictures as :func:`airflow_provider_flux.inputs.picture_reading.read_input` found them.
    :param wanted: how they are to travel, see :data:`airflow_provider_flux.inputs.transfer.InputTransfer`.
    :param deadline: of the prediction, in seconds since the epoch.
    :param ask: sends a free request to the gateway and returns its JSON.
    :raises FluxInputError: if one has changed since it was read, or cannot travel; nothing was sent.
    :raises FluxStorageError: if a storage cannot be read just now; nothing was sent.
    :raises FluxGatewayError: if the gateway does not take an upload; nothing was paid for.
    """
    sender = _Sender(input, gateway, wanted=wanted, deadline=deadline, ask=ask)
    sent = with_pictures(input, sender.send)
    for where, picture in pictures_of(input):
        log.info("input.%s: %s %s", where, picture["path"], sender.told[where])
    return sent


class _Sender:
    def __init__(
        self,
        input: Mapping[str, JSON],
        gateway: Gateway,
        *,
        wanted: str,
        deadline: float,
        ask: Callable[[Request], JSON],
    ) -> None:
        self._gateway = gateway
        self._deadline = deadline
        self._ask = ask
        self._signed: dict[str, str] = {}
        self._unsigned = "signs no URLs"
        self.told: dict[str, str] = {}
        self._transfers = {where: self._choose(where, picture, wanted) for where, picture in pictures_of(input)}
        inline = [
            uri_length(picture["bytes"])
            for where, picture in pictures_of(input)
            if self._transfers[where] is Transfer.INLINE
        ]
        # What people have written into the input themselves takes room, too.
        given = (len(value) for _, value in values_of(input) if isinstance(value, str) and is_inline(value))
        room = INLINE_LIMIT - sum(given)
        self._share = room // len(inline) if sum(inline) > room and inline else None

    def send(self, where: str, picture: Mapping[str, Any]) -> str:
        """Return what is sent in the place of a picture."""
        self.told[where] = self._transfers[where].value
        content, kind = self._content(where, picture), picture["format"]
        if self._transfers[where] is Transfer.SIGNED:
            return self._signed[where]
        if self._transfers[where] is Transfer.UPLOAD:
            return self._upload(where, picture, content)
        if self._share is not None and uri_length(len(content)) > self._share:
            content, kind, made = shrink(where, picture["path"], content, limit=3 * (self._share - 30) // 4)
            self.told[where] += f", made smaller: {made}"
        return f"data:{INPUT_MEDIA_TYPES[kind]};base64,{base64.b64encode(content).decode()}"

    def _choose(self, where: str, picture: Mapping[str, Any], wanted: str) -> Transfer:
        uploads = bool(self._gateway.files_url)
        needs_url = wanted == "signed" or (wanted == "auto" and not uploads and uri_length(picture["bytes"]) > SMALL)
        url = self._sign(picture["path"]) if needs_url else None
        transfer = choose(picture["bytes"], Possible(uploads=uploads, signs=url is not None), wanted)
        if transfer is None:
            why = "this gateway takes no files" if wanted == "upload" else f"its storage {self._unsigned}"
            raise FluxInputError(
                f"input.{where}: {picture['path']!r} cannot travel as input_transfer={wanted!r} says: {why}. Nothing "
                "was sent. Leave input_transfer out, or give a smaller picture or an https URL of it."
            )
        if transfer is Transfer.SIGNED and url is not None:
            self._signed[where] = url
        return transfer

    def _sign(self, path: str) -> str | None:
        from airflow.sdk import ObjectStoragePath

        if "://" not in path:
            return None
        place = ObjectStoragePath(path)
        seconds = int(max(0.0, self._deadline - time.time()) + SIGNED_MARGIN)
        try:
            url = place.fs.sign(place.path, expiration=seconds)
            # An emulator on this machine reaches what is on this machine.
            check_url(url, allow_private=is_loopback(self._gateway.origin))
        except ForbiddenOriginError as error:
            self._unsigned = f"signs a URL that the gateway cannot reach: {error}"
        except Exception as error:  # noqa: BLE001 (each storage has errors of its own for what it cannot sign)
            self._unsigned = f"signs no URL ({type(error).__name__})"
        else:
            return str(url)
        return None

    def _content(self, where: str, picture: Mapping[str, Any]) -> bytes:
        content = read_file(where, picture["path"])
        if hashlib.sha256(content).hexdigest() != picture["sha256"]:
            raise FluxInputError(
                f"input.{where}: {picture['path']!r} has changed since it was checked. Nothing was sent. Run the task "
                "again once it is as it should be."
            )
        return content

    def _upload(self, where: str, picture: Mapping[str, Any], content: bytes) -> str:
        kind = picture["format"]
        # Not the file's own name: it may tell of a customer, and the URL is shown on the gateway's pages.
        request = self._gateway.upload(
            content, name=f"{picture['sha256'][:16]}.{kind}", media_type=INPUT_MEDIA_TYPES[kind]
        )
        payload = self._ask(request)
        urls = payload.get("urls") if isinstance(payload, Mapping) else None
        url = urls.get("get") if isinstance(urls, Mapping) else None
        if not isinstance(url, str) or not url.startswith(("https://", "http://")):
            raise FluxInputError(
                f"input.{where}: {picture['path']!r} was uploaded, but the gateway gave no URL for it. No prediction "
                "was asked for. Try input_transfer='inline'."
            )
        return url
