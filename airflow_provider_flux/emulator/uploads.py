"""Replicate's files: uploaded, listed, described, deleted (its OpenAPI file)."""

from __future__ import annotations

import email
import email.policy
import hashlib
import secrets
from typing import Any

from aiohttp import web

from airflow_provider_flux.emulator.calls import Call
from airflow_provider_flux.emulator.file_storage import UploadedFile
from airflow_provider_flux.emulator.input_pictures import LARGEST
from airflow_provider_flux.emulator.responses import Refused, json_response, problem
from airflow_provider_flux.emulator.shapes import write_time

LIFE = 86400.0


async def upload(call: Call) -> web.StreamResponse:
    """Keep the file of the form's field ``content``, for a day."""
    if len(call.body) > LARGEST:
        raise Refused(problem(413, "The file is larger than 100 MB."))
    head = f"Content-Type: {call.request.headers.get('Content-Type', '')}\r\n\r\n".encode()
    form = email.message_from_bytes(head + call.body, policy=email.policy.HTTP)
    for part in form.iter_parts():
        if part.get_param("name", header="content-disposition") == "content":
            content = part.get_payload(decode=True)
            if isinstance(content, bytes):
                name = part.get_filename() or "file"
                file = UploadedFile(secrets.token_hex(13), name, part.get_content_type(), content, call.state.now)
                call.state.files.put(file)
                return json_response(_described(call, file), status=201)
    raise Refused(problem(400, "Missing content"))


async def describe(call: Call) -> web.StreamResponse:
    """Respond with one file's description."""
    return json_response(_described(call, _known(call)))


async def list_all(call: Call) -> web.StreamResponse:
    """Respond with all files, newest first, on one page."""
    files = [_described(call, file) for file in call.state.files.newest_first()]
    return json_response({"previous": None, "next": None, "results": files})


async def delete(call: Call) -> web.StreamResponse:
    """Forget a file."""
    call.state.files.remove(_known(call).id)
    return web.Response(status=204)


def _known(call: Call) -> UploadedFile:
    file = call.state.files.get(call.path["id"])
    if file is None:
        raise Refused(call.wording.error(404))
    return file


def _described(call: Call, file: UploadedFile) -> dict[str, Any]:
    digest = hashlib.sha256(file.content).hexdigest()
    return {
        "id": file.id,
        "name": file.name,
        "content_type": file.content_type,
        "size": len(file.content),
        "etag": digest[:32],
        "checksums": {"sha256": digest},
        "metadata": {},
        "created_at": write_time(file.created, 3),
        "expires_at": write_time(file.created + LIFE, 3),
        "urls": {"get": f"{call.state.gateway_url}/v1/files/{file.id}"},
    }
