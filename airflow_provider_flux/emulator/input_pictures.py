"""Pictures that come in: inside a request, uploaded before, or fetched from this machine."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import io
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import aiohttp

from airflow_provider_flux.emulator.calls import Call
from airflow_provider_flux.emulator.drawing import require_pillow
from airflow_provider_flux.emulator.file_storage import InputPicture
from airflow_provider_flux.emulator.responses import Refused
from airflow_provider_flux.emulator.served_models import Model
from airflow_provider_flux.protocol.catalogue import picture_fields
from airflow_provider_flux.protocol.gateways import is_loopback
from airflow_provider_flux.protocol.picture_inputs import values_of, with_values

LARGEST = 100 * 1024 * 1024
FETCH_SECONDS = 10
PREVIEW_SIDE = 384
NOT_READABLE = "cannot identify image file"  # what Pillow says in a model's container (inferred)
NOT_FETCHED = "Failed to download the input file"  # inferred


@dataclass(frozen=True)
class TakenIn:
    """What a create's input has become.

    :param shown: the input as the prediction shows it: an inline picture has become a file's address.
    :param error: why the run will fail, if a picture cannot be used.
    """

    shown: dict[str, Any]
    pictures: tuple[InputPicture, ...]
    error: str | None = None


async def take_in(call: Call, model: Model, given: dict[str, Any]) -> TakenIn:
    """Take in the pictures of an input; what is no address at all is refused as Replicate refuses it."""
    addresses: dict[str, str] = {}
    pictures, error = [], None
    in_bfls_style = call.route.flavour.startswith("bfl")
    fields = picture_fields(call.path["model"] if in_bfls_style else model.full_name)
    for field, sent in values_of({name: value for name, value in given.items() if name in fields}):
        if not isinstance(sent, str) or not sent:
            continue
        # BFL takes the base64 of a picture alone.
        is_base64 = in_bfls_style and not urlsplit(sent[:100]).scheme
        value = f"data:;base64,{sent}" if is_base64 else sent
        if not urlsplit(value).scheme:
            fault = {"type": "format", "field": f"input.{field}", "description": "Does not match format 'uri'"}
            raise Refused(call.wording.refused_input([fault]))
        picture, problem = await _take(call, field, value)
        pictures.append(picture)
        error = error or problem
        if picture.way == "data":
            addresses[field] = f"{call.state.output_origin}/input/{picture.sha256[:26] or 'unreadable'}"
    return TakenIn(with_values(given, addresses.get), tuple(pictures), error)


async def _take(call: Call, field: str, value: str) -> tuple[InputPicture, str | None]:
    way, content = await _content(call, value)
    if way == "elsewhere":
        return InputPicture(field, way), None
    if content is None:
        return InputPicture(field, way), NOT_FETCHED
    digest = hashlib.sha256(content).hexdigest()
    try:
        ratio, preview = await asyncio.to_thread(_preview, content)
    except (OSError, ValueError, SyntaxError):
        return InputPicture(field, way, digest, len(content)), NOT_READABLE
    return InputPicture(field, way, digest, len(content), ratio, preview), None


async def _content(call: Call, value: str) -> tuple[str, bytes | None]:
    if value[:5].lower() == "data:":
        return "data", _decoded(value)
    own = f"{call.state.gateway_url}/v1/files/"
    if value.startswith(own):
        file = call.state.files.get(value.removeprefix(own))
        return "file", None if file is None else file.content
    return ("url", await _fetched(value)) if is_loopback(value) else ("elsewhere", None)


def _decoded(uri: str) -> bytes | None:
    declaration, _, text = uri.partition(",")
    content = unquote_to_bytes(text)
    if not declaration.lower().endswith(";base64"):
        return content
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error:
        return None


async def _fetched(url: str) -> bytes | None:
    timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
            content = await response.content.read(LARGEST + 1)
            while len(content) <= LARGEST and (piece := await response.content.read(LARGEST)):
                content += piece
            return content if response.status == 200 and len(content) <= LARGEST else None
    except (aiohttp.ClientError, asyncio.TimeoutError, ValueError):
        return None


def _preview(content: bytes) -> tuple[float, bytes]:
    image_module = require_pillow()
    with image_module.open(io.BytesIO(content)) as opened:
        ratio = opened.width / opened.height
        opened.draft("RGB", (PREVIEW_SIDE, PREVIEW_SIDE))
        opened.load()
        picture = opened.convert("RGB")
        picture.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return ratio, file.getvalue()
