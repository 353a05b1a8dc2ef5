"""The picture files, drawn when first asked for."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from airflow_provider_flux.emulator.answers import file_format
from airflow_provider_flux.emulator.drawing import Sketch, draw
from airflow_provider_flux.emulator.outcomes import PROCESSING, SUCCEEDED
from airflow_provider_flux.emulator.predictions import Prediction
from airflow_provider_flux.emulator.state import State

KEPT_FILES = 64
DRAWN_AT_ONCE = 2
FULL_QUALITY = 100
MEDIA_TYPES = {"webp": "image/webp", "jpg": "image/jpeg", "png": "image/png"}


class FileShelf:
    """Draws files off the event loop and keeps the latest few.

    :param state: the emulator's state.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._drawing: dict[tuple[str, int], asyncio.Task[bytes]] = {}
        self._at_once = asyncio.Semaphore(DRAWN_AT_ONCE)

    def exists(self, prediction: Prediction, number: int) -> bool:
        """Tell whether a file can be had now.

        :param prediction: the prediction.
        :param number: which of its pictures, from 0.
        """
        now = self._state.now
        moment = prediction.at(now)
        ready = moment.status == SUCCEEDED or (moment.status == PROCESSING and prediction.outcome.early)
        gone = prediction.is_removed(now, self._state.settings.output_life)
        return ready and not gone and 0 <= number < prediction.picture_count

    async def content(self, prediction: Prediction, number: int) -> bytes:
        """Return a file's bytes; several requests for one file share the drawing.

        :param prediction: the prediction.
        :param number: which of its pictures, from 0.
        """
        name = (prediction.id, number)
        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name]
        task = self._drawing.get(name)
        if task is None:
            task = self._drawing[name] = asyncio.create_task(self._draw(prediction, number))
            task.add_done_callback(lambda _: self._drawing.pop(name, None))
        return await asyncio.shield(task)

    async def _draw(self, prediction: Prediction, number: int) -> bytes:
        asked = prediction.input.get("output_quality", 80)
        quality = min(max(asked, 0), FULL_QUALITY) if isinstance(asked, int) else 80
        sketch = Sketch(
            model=prediction.model.name,
            prompt=prediction.prompt,
            given=prediction.input,
            seed=prediction.seed + number,
            file_format=file_format(prediction),
            quality=quality,
            black=prediction.outcome.picture == "black",
            thumbnail=self._state.settings.small_pictures,
        )
        async with self._at_once:
            drawn = await asyncio.to_thread(draw, sketch)
        self._kept[(prediction.id, number)] = drawn
        while len(self._kept) > KEPT_FILES:
            self._kept.popitem(last=False)
        return drawn
