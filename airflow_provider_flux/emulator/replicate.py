"""Replicate's own routes under ``/v1``."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from yarl import URL

from airflow_provider_flux.emulator import creation, errors, timestamps, validation
from airflow_provider_flux.emulator.answers import Answers
from airflow_provider_flux.emulator.exchange import Call, Exchange, Route
from airflow_provider_flux.emulator.predictions import Prediction
from airflow_provider_flux.emulator.served_models import MODELS, Model, by_version, schema
from airflow_provider_flux.emulator.state import State

PREFIX = "/v1"
FLAVOUR = "replicate"
PAGE_SIZE = 100
MAX_FILE = 100 * 1024 * 1024
DAY = 86400.0
INVALID_VERSION = "Invalid version or not permitted"


class ReplicateRoutes:
    """The predictions API of Replicate's OpenAPI file.

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
        for method, path, kind, handler in (
            ("POST", PREFIX + "/models/{owner}/{name}/predictions", "create", self.create_by_model),
            ("POST", PREFIX + "/predictions", "create", self.create_legacy),
            ("GET", one, "get", self.query),
            ("POST", one + "/cancel", "cancel", self.cancel),
            ("GET", PREFIX + "/predictions", "list", self.list_page),
            ("GET", PREFIX + "/account", "other", self.account),
            ("GET", PREFIX + "/models/{owner}/{name}", "models", self.model),
            ("GET", PREFIX + "/webhooks/default/secret", "other", self.webhook_secret),
            ("POST", PREFIX + "/files", "other", self.upload),
        ):
            app.router.add_route(method, path, exchange.endpoint(Route(kind, FLAVOUR), handler))

    async def create_by_model(self, call: Call) -> web.StreamResponse:
        """Create with the model in the path.

        :param call: the request.
        """
        model = MODELS.get(f"{call.path['owner']}/{call.path['name']}")
        if model is None:
            raise errors.Refused(errors.not_found())
        return await self._create(call, model, self._body(call))

    async def create_legacy(self, call: Call) -> web.StreamResponse:
        """Create with ``version`` in the body.

        :param call: the request.
        """
        body = self._body(call)
        model = by_version(str(body.get("version", "")))
        if model is None:
            raise errors.Refused(errors.problem(422, INVALID_VERSION, INVALID_VERSION))
        return await self._create(call, model, body)

    async def query(self, call: Call) -> web.StreamResponse:
        """Answer with the prediction.

        :param call: the request.
        """
        prediction = self._known(call)
        prediction.gets += 1
        return errors.json_answer(self._answers.prediction(prediction))

    async def cancel(self, call: Call) -> web.StreamResponse:
        """Cancel and answer with the prediction; one that has ended stays as it is.

        :param call: the request.
        """
        prediction = self._known(call)
        if self._state.settings.cancel != "ignored":
            self._state.store.cancel(prediction, self._state.now, FLAVOUR)
        return errors.json_answer(self._answers.prediction(prediction))

    async def list_page(self, call: Call) -> web.StreamResponse:
        """List predictions, newest first, 100 a page.

        :param call: the request.
        """
        query = call.request.query
        try:
            low, high = self._bounds(query)
            edge = _read_cursor(query["cursor"]) if "cursor" in query else None
        except ValueError as error:
            raise errors.Refused(errors.problem(400, f"Invalid query: {error}")) from error
        shown = [p for p in self._state.store.all()[low:high] if p.flavour != "bfl" and query.get("source") != "web"]
        shown.reverse()
        start = 0 if edge is None else sum(prediction.number >= edge for prediction in shown)
        page = shown[start : start + PAGE_SIZE]
        previous = shown[max(start - PAGE_SIZE, 0)].number + 1 if start else None
        following = page[-1].number if len(shown) > start + PAGE_SIZE else None
        return errors.json_answer(
            {
                "previous": self._page_address(query, previous),
                "next": self._page_address(query, following),
                "results": [self._answers.prediction(prediction) for prediction in page],
            }
        )

    async def account(self, call: Call) -> web.StreamResponse:
        """Answer with the account; it names the stand-in.

        :param call: the request.
        """
        return errors.json_answer({"type": "user", "username": "local-stand-in", "name": "Local stand-in"})

    async def model(self, call: Call) -> web.StreamResponse:
        """Answer with a model and its schemas.

        :param call: the request.
        """
        model = MODELS.get(f"{call.path['owner']}/{call.path['name']}")
        if model is None:
            raise errors.Refused(errors.not_found())
        return errors.json_answer(model_description(model, self._state.gateway_url))

    async def webhook_secret(self, call: Call) -> web.StreamResponse:
        """Answer with the secret that webhook calls are signed with.

        :param call: the request.
        """
        return errors.json_answer({"key": self._state.webhook_secret})

    async def upload(self, call: Call) -> web.StreamResponse:
        """Take a file and describe it; the bytes are not kept.

        :param call: the request.
        """
        if len(call.body) > MAX_FILE:
            raise errors.Refused(errors.problem(413, "The file is larger than 100 MB."))
        digest = hashlib.sha256(call.body).hexdigest()
        now = self._state.now
        described = {
            "id": digest[:26],
            "name": "file",
            "content_type": "application/octet-stream",
            "size": len(call.body),
            "etag": digest[:32],
            "checksums": {"sha256": digest},
            "metadata": {},
            "created_at": timestamps.write(now, 3),
            "expires_at": timestamps.write(now + DAY, 3),
            "urls": {"get": f"{self._state.gateway_url}{PREFIX}/files/{digest[:26]}"},
        }
        return errors.json_answer(described, 201)

    async def _create(self, call: Call, model: Model, body: dict[str, Any]) -> web.StreamResponse:
        settings = self._state.settings
        faults = validation.root_faults(body, strict=True) or validation.input_faults(model, body["input"])
        if faults:
            refusal = validation.refusal(faults)
            raise errors.Refused(errors.json_answer(refusal, 422, content_type=errors.PROBLEM_TYPE))
        more = {**self._webhook(body), **self._deadline(call)}
        prediction = creation.create(call, FLAVOUR, model, body["input"], **more)
        seconds, status = creation.wait_seconds(call), 201
        now, early = prediction.created, None
        headers = {"Location": f"{self._state.gateway_url}{PREFIX}/predictions/{prediction.id}"}
        if seconds is not None:
            headers["Preference-Applied"] = call.request.headers["Prefer"]
            ended = await creation.wait_for_end(call, prediction, seconds)
            status = 201 if ended else 202
            now, early = self._state.now, settings.early_output(ended)
        answer = self._answers.prediction(prediction, now, early)
        return errors.json_answer(answer, settings.created_status or status, headers)

    def _webhook(self, body: Mapping[str, Any]) -> dict[str, Any]:
        fields = creation.webhook_fields(body)
        address = fields.get("webhook", "")
        if address and not address.startswith("https://") and not creation.is_loopback(address):
            raise errors.Refused(errors.problem(422, "- webhook: must be an HTTPS URL\n", "Input validation failed"))
        return fields

    def _deadline(self, call: Call) -> dict[str, Any]:
        text = call.request.headers.get("Cancel-After")
        if text is None:
            return {}
        seconds, least = creation.deadline_seconds(text), self._state.settings.min_cancel_after
        if seconds is None or seconds < least:
            raise errors.Refused(errors.problem(422, f"Cancel-After must be a duration of at least {least:g} seconds"))
        return {"deadline": self._state.now + seconds}

    def _known(self, call: Call) -> Prediction:
        prediction = call.prediction()
        if prediction is None or prediction.flavour == "bfl":
            raise errors.Refused(errors.not_found())
        return prediction

    def _body(self, call: Call) -> dict[str, Any]:
        body = call.json_object()
        if body is None:
            raise errors.Refused(errors.problem(400, "The request body is not a JSON object.", "Bad request"))
        return body

    def _bounds(self, query: Mapping[str, str]) -> tuple[int, int | None]:
        store = self._state.store
        low = store.first_since(timestamps.read(query["created_after"])) if "created_after" in query else 0
        high = store.first_since(timestamps.read(query["created_before"])) if "created_before" in query else None
        return low, high

    def _page_address(self, query: Mapping[str, str], edge: int | None) -> str | None:
        if edge is None:
            return None
        kept = {name: value for name, value in query.items() if name != "cursor"}
        kept["cursor"] = base64.urlsafe_b64encode(f"n={edge}".encode()).decode()
        return str(URL(f"{self._state.gateway_url}{PREFIX}/predictions").with_query(kept))


def _read_cursor(text: str) -> int:
    try:
        return int(base64.urlsafe_b64decode(text.encode()).decode().removeprefix("n="))
    except (binascii.Error, UnicodeError) as error:
        raise ValueError("bad cursor") from error


def model_description(model: Model, origin: str) -> dict[str, Any]:
    """Build the answer of ``GET /models/{owner}/{name}``.

    :param model: the model.
    :param origin: the gateway origin.
    """
    full = schema(model.name)
    given = {name: full[name] for name in ("type", "title", "required", "properties")}
    schemas = {"Input": given, "Output": {"title": "Output", **full["$defs"]["output"]}}
    return {
        "url": f"{origin}/{model.full_name}",
        "owner": model.full_name.partition("/")[0],
        "name": model.name,
        "description": "Local stand-in: draws a picture with the prompt on it; no model runs.",
        "visibility": "public",
        "is_official": True,
        "run_count": 0,
        "default_example": None,
        "latest_version": {
            "id": model.version_id,
            "created_at": "2026-01-01T00:00:00.000Z",
            "openapi_schema": {
                "openapi": "3.1.0",
                "info": {"title": "Cog", "version": "0.1.0"},
                "paths": {},
                "components": {"schemas": schemas},
            },
        },
    }
