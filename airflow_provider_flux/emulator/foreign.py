"""The second origin: it serves files, and stands for the host that a gateway's answers name."""

from __future__ import annotations

from aiohttp import web

from airflow_provider_flux.emulator import errors
from airflow_provider_flux.emulator.drawing import PillowMissing
from airflow_provider_flux.emulator.exchange import Call, Exchange, Route
from airflow_provider_flux.emulator.files import MEDIA_TYPES, FileShelf
from airflow_provider_flux.emulator.state import State


class ForeignRoutes:
    """Files as replicate.delivery serves them; a 401 for all else, as api.replicate.com gives to a gateway's key.

    :param state: the emulator's state.
    :param files: the picture files.
    """

    def __init__(self, state: State, files: FileShelf) -> None:
        self._state = state
        self._files = files

    def add_to(self, app: web.Application, exchange: Exchange) -> None:
        """Register the routes.

        :param app: the application of the second origin.
        :param exchange: wraps the handlers.
        """
        file = exchange.endpoint(Route("file", "file", "foreign", needs_key=False), self.file)
        app.router.add_get(r"/output/{id}/out-{number:\d{1,3}}.{ending}", file)
        other = exchange.endpoint(Route("foreign", "replicate", "foreign", needs_key=False), self.other)
        app.router.add_route("*", "/{tail:.*}", other)

    async def file(self, call: Call) -> web.StreamResponse:
        """Serve a picture.

        :param call: the request.
        """
        prediction, number, ending = call.prediction(), int(call.path["number"]), call.path["ending"]
        if prediction is None or not self._files.exists(prediction, number):
            return web.Response(text="404 no such file\n", status=404)
        try:
            content = await self._files.content(prediction, number)
        except PillowMissing as missing:
            return web.Response(text=f"500 {missing}\n", status=500)
        return web.Response(body=content, content_type=MEDIA_TYPES.get(ending, "application/octet-stream"))

    async def other(self, call: Call) -> web.StreamResponse:
        """Refuse, as a host does that does not know the key.

        :param call: the request.
        """
        return errors.unauthenticated("replicate", "")
