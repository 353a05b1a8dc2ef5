"""What is known of a route, and a request while it is handled."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from airflow_provider_flux.emulator.predictions import Prediction
from airflow_provider_flux.emulator.request_log import RequestRecord
from airflow_provider_flux.emulator.responses import NO_OBJECT, Refused, Wording
from airflow_provider_flux.emulator.rules import Subject
from airflow_provider_flux.emulator.state import State
from airflow_provider_flux.protocol import storable

Handler = Callable[["Call"], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Route:
    """What is known of a route before a request comes.

    :param methods: the HTTP methods, with spaces between; ``*`` for all.
    :param path: the pattern of the address, as aiohttp reads it.
    :param handler: carries the request out when nothing stands against it.
    :param kind: the kind of request, see :class:`RequestRecord`.
    :param flavour: whose errors it responds with: ``gateway``, ``bfl`` for a gateway in BFL's style, ``bfl_itself``,
        ``replicate`` or ``file``.
    :param origin: ``gateway`` or ``foreign``.
    """

    methods: str
    path: str
    handler: Handler
    kind: str
    flavour: str = "gateway"
    origin: str = "gateway"
    needs_key: bool = True


@dataclass
class Call:
    """A request while it is handled."""

    state: State
    request: web.Request
    route: Route
    record: RequestRecord
    body: bytes = b""

    @property
    def path(self) -> dict[str, str]:
        return dict(self.request.match_info)

    @property
    def wording(self) -> Wording:
        return Wording(self.route.flavour, self.state.settings.error_type)

    @functools.cached_property
    def parsed(self) -> dict[str, Any] | None:
        """The body when it is a JSON object."""
        try:
            # As servers in Go do, half of a character is taken for U+FFFD.
            parsed = storable.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return parsed if isinstance(parsed, dict) else None

    def json_object(self) -> dict[str, Any]:
        """Return the body, or refuse the request when it is no JSON object."""
        if self.parsed is None:
            raise Refused(self.wording.error(400, NO_OBJECT))
        return self.parsed

    def prediction(self) -> Prediction | None:
        """Return the prediction that the address names, when queries may see it."""
        prediction_id = self.path.get("id") or self.request.query.get("id", "")
        self.record.prediction_id = prediction_id or None
        return self.state.known(prediction_id)

    def subject(self) -> Subject:
        """Describe the request to the fault rules."""
        prediction = None if self.route.kind == "create" else self.prediction()
        if prediction is not None:
            return Subject(self.route.kind, prediction.model.full_name, prediction.prompt)
        path, body = self.path, self.parsed or {}
        given = body.get("input", body)
        prompt = str(given.get("prompt", "")) if isinstance(given, dict) else ""
        named = "/".join(path[part] for part in ("owner", "name", "model") if part in path)
        return Subject(self.route.kind, named or str(body.get("version") or body.get("model") or "") or None, prompt)
