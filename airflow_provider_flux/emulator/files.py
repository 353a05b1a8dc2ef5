"""The second origin: it serves files, and stands for the host that a gateway's responses name."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from aiohttp import web

from airflow_provider_flux.emulator.calls import Call
from airflow_provider_flux.emulator.drawing import PillowMissing, Sketch, draw
from airflow_provider_flux.emulator.predictions import Prediction

KEPT_FILES = 64
DRAWN_AT_ONCE = 2
MEDIA_TYPES = {"webp": "image/webp", "jpg": "image/jpeg", "png": "image/png"}


class FileShelf:
    """Draws files off the event loop when first asked for, and keeps the latest few."""

    def __init__(self) -> None:
        self._files: OrderedDict[tuple[str, int], asyncio.Task[bytes]] = OrderedDict()
        self._at_once = asyncio.Semaphore(DRAWN_AT_ONCE)

    async def content(self, prediction: Prediction, number: int, thumbnail: bool) -> bytes:
        """Return a file's bytes; several requests for one file share the drawing."""
        name = (prediction.id, number)
        task = self._files.get(name)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._files[name] = asyncio.create_task(self._draw(prediction, number, thumbnail))
        self._files.move_to_end(name)
        while len(self._files) > KEPT_FILES:
            self._files.popitem(last=False)
        return await asyncio.shield(task)

    async def _draw(self, prediction: Prediction, number: int, thumbnail: bool) -> bytes:
        asked = prediction.input.get("output_quality", 80)
        sketch = Sketch(
            model=prediction.model.name,
            prompt=prediction.prompt,
            given=prediction.input,
            seed=prediction.seed + number,
            file_format=prediction.file_format,
            quality=min(max(asked, 0), 100) if isinstance(asked, int) else 80,
            black=prediction.outcome.picture == "black",
            thumbnail=thumbnail,
            pictures=prediction.pictures,
        )
        async with self._at_once:
            return await asyncio.to_thread(draw, sketch)


SHELF = web.AppKey("shelf", FileShelf)


async def file(call: Call) -> web.StreamResponse:
    """Serve a picture as replicate.delivery does."""
    settings, now = call.state.settings, call.state.now
    prediction, number = call.prediction(), int(call.path["number"])
    if prediction is None or number >= prediction.picture_count or not prediction.has_files(now, settings.output_life):
        return web.Response(text="404 no such file\n", status=404)
    try:
        content = await call.request.app[SHELF].content(prediction, number, settings.small_pictures)
    except PillowMissing as missing:
        return web.Response(text=f"500 {missing}\n", status=500)
    media_type = MEDIA_TYPES.get(call.path["ending"], "application/octet-stream")
    return web.Response(body=content, content_type=media_type)


async def other(call: Call) -> web.StreamResponse:
    """Refuse all else, as api.replicate.com refuses a gateway's key."""
    return call.wording.error(401)
