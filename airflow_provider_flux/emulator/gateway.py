"""The gateway's own routes under ``/replicate/v1``."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from airflow_provider_flux.emulator import creation, errors, validation
from airflow_provider_flux.emulator.answers import Answers
from airflow_provider_flux.emulator.exchange import Call, Exchange, Route
from airflow_provider_flux.emulator.served_models import MODELS, Model, by_version
from airflow_provider_flux.emulator.state import State

PREFIX = "/replicate/v1"


class GatewayRoutes:
    """Create, query, cancel and the missing list, as apidoc.deerapi.com and apidoc.cometapi.com describe them.

    :param state: the emulator's state.
    :param answers: writes predictions.
    """

    def __init__(self, state: State, answers: Answers) -> None:
        self._state = state
        self._answers = answers

    def add_to(self, app: web.Application, exchange: Exchange) -> None:
        """Register the routes.

        :param app: the application of the gateway origin.
        :param exchange: wraps the handlers.
        """
        one = PREFIX + "/predictions/{id}"
        create = exchange.endpoint(Route("create"), self.create_by_model)
        app.router.add_post(PREFIX + "/models/{owner}/{name}/predictions", create)
        app.router.add_post(PREFIX + "/predictions", exchange.endpoint(Route("create"), self.create_legacy))
        app.router.add_get(one, exchange.endpoint(Route("get"), self.query))
        app.router.add_post(one + "/cancel", exchange.endpoint(Route("cancel"), self.cancel))
        app.router.add_get(PREFIX + "/predictions", exchange.endpoint(Route("list", needs_key=False), self.list_all))

    async def create_by_model(self, call: Call) -> web.StreamResponse:
        """Create with the model in the path.

        :param call: the request.
        """
        path = call.path
        return await self._create(call, f"{path['owner']}/{path['name']}", self._body(call))

    async def create_legacy(self, call: Call) -> web.StreamResponse:
        """Create with ``version`` in the body, or ``model`` as older pages had it.

        :param call: the request.
        """
        body = self._body(call)
        named = body.get("version") or body.get("model")
        if not isinstance(named, str) or not named:
            raise errors.Refused(self._error(400, "model name is required"))
        model = by_version(named)
        return await self._create(call, model.full_name if model else named, body)

    async def query(self, call: Call) -> web.StreamResponse:
        """Answer with the prediction in the shape that is set.

        :param call: the request.
        """
        prediction = call.prediction()
        if prediction is None:
            return errors.unknown_task()
        prediction.gets += 1
        return errors.json_answer(self._answers.shaped(prediction, self._state.settings.shape))

    async def cancel(self, call: Call) -> web.StreamResponse:
        """Cancel, or answer as a gateway without that route does; no gateway documents one.

        :param call: the request.
        """
        mode = self._state.settings.cancel
        if mode == "404":
            return self._error(404, f"Invalid URL (POST {call.request.path})", "invalid_request_error")
        if mode == "405":
            return web.Response(text="405: Method Not Allowed", status=405, headers={"Allow": "GET,HEAD"})
        if mode == "html":
            return _no_such_page()
        if mode == "redirect":
            return self._redirect(call)
        prediction = call.prediction()
        if prediction is None:
            return errors.unknown_task()
        if mode == "works":
            self._state.store.cancel(prediction, self._state.now, "gateway")
        return errors.json_answer(self._answers.shaped(prediction, self._state.settings.shape))

    async def list_all(self, call: Call) -> web.StreamResponse:
        """Answer as gateways do where nothing lives: with a page or a redirect.

        :param call: the request.
        """
        return self._redirect(call) if self._state.settings.list_answer == "redirect" else _no_such_page()

    async def _create(self, call: Call, named: str, body: dict[str, Any]) -> web.StreamResponse:
        settings = self._state.settings
        model = MODELS.get(named)
        if model is None or model.full_name in settings.unsold:
            raise errors.Refused(errors.model_not_found(named, settings.error_type))
        self._check(model, body)
        prediction = creation.create(call, "gateway", model, body["input"], **creation.webhook_fields(body))
        seconds = creation.wait_seconds(call) if settings.gateway_prefer else None
        now, early = prediction.created, None
        if seconds is not None:
            ended = await creation.wait_for_end(call, prediction, seconds)
            now, early = self._state.now, settings.early_output(ended)
        if early is not None:
            answer = self._answers.prediction(prediction, now, early)
        else:
            answer = self._answers.shaped(prediction, settings.create_shape, now)
        return errors.json_answer(answer, settings.created_status or 200)

    def _check(self, model: Model, body: dict[str, Any]) -> None:
        faults = validation.root_faults(body, strict=False) or validation.input_faults(model, body["input"])
        if faults:
            raise errors.Refused(errors.upstream_refusal(422, validation.refusal(faults)))

    def _body(self, call: Call) -> dict[str, Any]:
        body = call.json_object()
        if body is None:
            raise errors.Refused(self._error(400, "invalid request body", "convert_request_failed"))
        return body

    def _error(self, status: int, message: str, code: str = "") -> web.Response:
        return errors.gateway_error(status, message, code, self._state.settings.error_type)

    def _redirect(self, call: Call) -> web.Response:
        return errors.redirect(self._state.foreign_url + call.request.path)


def _no_such_page() -> web.Response:
    return errors.html_answer("404", "There is no such page on this local stand-in.", 404)
