"""The gateway's routes in BFL's style under ``/flux/v1``."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from airflow_provider_flux.emulator import creation, errors, validation
from airflow_provider_flux.emulator.answers import Answers, bfl_unknown
from airflow_provider_flux.emulator.exchange import Call, Exchange, Route
from airflow_provider_flux.emulator.served_models import BFL_MODELS
from airflow_provider_flux.emulator.state import State


class BflRoutes:
    """Create and the unified query (apidoc.cometapi.com/api/image/flux/flux-generate-image and flux-query).

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
        app.router.add_get("/flux/v1/get_result", exchange.endpoint(Route("get", "bfl"), self.query))
        app.router.add_post("/flux/v1/{model}", exchange.endpoint(Route("create", "bfl"), self.create))

    async def create(self, call: Call) -> web.StreamResponse:
        """Create from a flat body.

        :param call: the request.
        """
        settings, name = self._state.settings, call.path["model"]
        model = BFL_MODELS.get(name)
        if model is None or model.full_name in settings.unsold:
            raise errors.Refused(errors.model_not_found(name, settings.error_type))
        body = call.json_object()
        if body is None:
            answer = errors.gateway_error(400, "invalid request body", "convert_request_failed", settings.error_type)
            raise errors.Refused(answer)
        if faults := validation.bfl_faults(body):
            raise errors.Refused(errors.upstream_refusal(422, {"detail": faults}))
        more = creation.webhook_fields(body, "webhook_url")
        given = {name: value for name, value in body.items() if name not in {"webhook_url", "webhook_secret"}}
        prediction = creation.create(call, "bfl", model, given, **more)
        status = settings.created_status or 200
        if settings.create_shape == "envelope":
            return errors.json_answer(self._answers.envelope(prediction, prediction.created), status)
        return errors.json_answer(self._created(prediction.id, prediction.webhook), status)

    async def query(self, call: Call) -> web.StreamResponse:
        """Answer for ids of both styles; a Replicate-path id gets a standard prediction object.

        :param call: the request.
        """
        prediction = call.prediction()
        if prediction is None:
            return errors.json_answer(bfl_unknown(call.record.prediction_id or ""))
        prediction.gets += 1
        if prediction.flavour == "bfl":
            return errors.json_answer(self._answers.bfl(prediction))
        return errors.json_answer(self._answers.prediction(prediction))

    def _created(self, prediction_id: str, webhook: str | None) -> dict[str, Any]:
        costs = {"cost": None, "input_mp": None, "output_mp": None}
        if webhook is not None:
            # BFL's OpenAPI file: with a webhook the answer has no polling_url
            return {"id": prediction_id, "status": "Pending", "webhook_url": webhook, **costs}
        return {
            "id": prediction_id,
            "polling_url": f"{self._state.foreign_url}/v1/get_result?id={prediction_id}",
            **costs,
        }
