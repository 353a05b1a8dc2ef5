"""What can go wrong with a file alone: hosts that are gone, pages in place of pictures, bodies without an end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from aiohttp import web

from airflow_provider_flux.emulator import errors
from airflow_provider_flux.emulator.state import State

if TYPE_CHECKING:
    from airflow_provider_flux.emulator.exchange import Call, Handler

PRIVATE_ADDRESSES = {
    "redirect_metadata": "http://169.254.169.254/latest/meta-data/",
    "redirect_private": "https://10.0.0.1/out-0.png",
}
CHUNK = b"\x89PNG\r\n\x1a\n" + bytes(65528)
TRICKLE_PAUSE = 0.02


class FileFaultPlay:
    """Answers requests for files as fault rules say.

    :param state: the emulator's state.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    async def play(self, call: Call, name: str, handler: Handler) -> web.StreamResponse:
        """Answer a request that met a file's fault.

        :param call: the request.
        :param name: one of :data:`airflow_provider_flux.emulator.faults.FILE_FAULTS`.
        :param handler: serves the file.
        """
        if name in PRIVATE_ADDRESSES:
            return errors.redirect(PRIVATE_ADDRESSES[name], 302)
        if name == "gone":
            return web.Response(text="410 gone\n", status=410)
        if name == "svg":
            return web.Response(text='<svg xmlns="http://www.w3.org/2000/svg"/>', content_type="image/svg+xml")
        if name == "wrong_type":
            served = await handler(call)
            served.content_type = "text/html"
            return served
        if name == "cut_unannounced":
            return await self._cut(call, handler)
        return await self._endless(call, CHUNK if name == "endless" else CHUNK[:1], name == "trickle")

    async def _cut(self, call: Call, handler: Handler) -> web.StreamResponse:
        """Send half of the file, and end as if that were all: no length was announced that could tell."""
        served = await handler(call)
        body = served.body if isinstance(served, web.Response) and isinstance(served.body, bytes) else b""
        response = web.StreamResponse()
        response.content_type = served.content_type
        response.enable_chunked_encoding()
        await response.prepare(call.request)
        await response.write(body[: len(body) // 2])
        return response

    async def _endless(self, call: Call, chunk: bytes, slowly: bool) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_type = "image/png"
        with contextlib.suppress(ConnectionError):
            await response.prepare(call.request)
            while not self._state.closing.is_set():
                await response.write(chunk)
                if slowly:
                    await asyncio.sleep(TRICKLE_PAUSE)
        return response
