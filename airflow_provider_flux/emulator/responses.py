"""Responses of all kinds, and the errors worded as each flavour words them."""

from __future__ import annotations

import functools
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, NamedTuple

from aiohttp import web

NOTICE = "This is a local stand-in. No model runs here, and nothing costs anything."
NGINX_TITLES = {"502": "502 Bad Gateway", "504": "504 Gateway Time-out", "524": "524 A timeout occurred"}
_NO_CHANNEL = "no available channel for group default and model {} (distributor)"
_THROTTLED = "Request was throttled. Your rate limit for creating predictions is reduced."
_FORBIDDEN = "You do not have permission to perform this action."
_NO_CREDIT = "You have insufficient credit to run this model. If you have just bought credit, wait a few minutes."


class Words(NamedTuple):
    """What an error says: a gateway's message and code, Replicate's detail and title."""

    message: str
    code: str
    detail: str
    title: str | None = None


NO_OBJECT = Words(
    "invalid request body", "convert_request_failed", "The request body is not a JSON object.", "Bad request"
)
# Sent in place of a response, with nothing accepted. Seeded plans are drawn from the order.
STATUS_FAULTS: dict[str, Words | None] = {
    "400": Words("model name is required", "", "The request could not be read.", "Bad request"),
    "401": Words("invalid token", "", "You did not pass a valid authentication token", "Unauthenticated"),
    "402": Words("insufficient balance", "insufficient_user_quota", _NO_CREDIT, "Insufficient credit"),
    "403": Words("no permission to use this model", "permission_denied", _FORBIDDEN),
    "403_quota": Words("user quota is not enough", "insufficient_user_quota", _FORBIDDEN),
    "404": Words("not found", "", "The requested resource could not be found."),
    "408": Words("request timeout", "", "Request timed out."),
    "409": Words("conflict", "", "The request conflicts with another one."),
    "413": Words("request body too large", "", "The request is too large."),
    **dict.fromkeys(("422", "429", "429_header", "429_date", "429_body", "429_text", "429_upstream")),
    "500": Words("upstream error", "bad_response_status_code", "Internal server error"),
    "500_invalid_request": Words("field messages is required", "invalid_request", "Internal server error"),
    "502": None,
    "503": Words("service unavailable", "get_channel_failed", "Service unavailable"),
    **dict.fromkeys(("503_model_not_found", "504", "524")),
}


class Refused(Exception):
    """Ends the handling of a request with an error response."""

    def __init__(self, response: web.Response) -> None:
        super().__init__(f"refused with HTTP {response.status}")
        self.response = response


json_response = functools.partial(
    web.json_response, dumps=functools.partial(json.dumps, separators=(",", ":"), ensure_ascii=False)
)


def html_response(title: str, text: str, status: int = 200) -> web.Response:
    """Make a small HTML page of plain texts without markup, as a gateway sends where no API lives."""
    page = f"<!DOCTYPE html><html><head><title>{title}</title></head><body><h1>{title}</h1><p>{text}</p></body></html>"
    return web.Response(text=page, status=status, content_type="text/html")


def no_such_page() -> web.Response:
    """Make the page that a gateway sends where nothing lives."""
    return html_response("404", "There is no such page on this local stand-in.", 404)


def redirect(location: str, status: int = 301) -> web.Response:
    """Make a redirect with the small page that proxies send along."""
    response = html_response(f"{status} Moved", "nginx", status)
    response.headers["Location"] = location
    return response


def task_error(status: int, code: str, message: str) -> web.Response:
    """Make the flat error of the gateway's task routes (QuantumNous/new-api dto/task.go)."""
    return json_response({"code": code, "message": message, "data": None}, status=status)


def unknown_task() -> web.Response:
    """Make the gateway's response for an id it does not know (new-api relay/relay_task.go)."""
    return task_error(400, "task_not_exist", "task_not_exist")


def upstream_refusal(status: int, body: object) -> web.Response:
    """Hand on an upstream's refusal, its JSON body as text."""
    return task_error(status, "fail_to_fetch_task", json.dumps(body))


def problem_body(status: int, detail: str, title: str | None = None, **more: object) -> dict[str, Any]:
    """Build Replicate's problem object; its ``status`` is a number (replicate-python tests/cassettes)."""
    head = {} if title is None else {"title": title}
    return {**head, "detail": detail, "status": status, **more}


def problem(
    status: int, detail: str, title: str | None = None, headers: Mapping[str, str] | None = None, **more: object
) -> web.Response:
    """Make Replicate's error response."""
    body = problem_body(status, detail, title, **more)
    return json_response(body, status=status, headers=headers, content_type="application/problem+json")


@dataclass(frozen=True)
class Wording:
    """Words errors as a flavour of routes does.

    :param flavour: ``gateway``, ``bfl``, ``bfl_itself``, ``replicate`` or ``file``.
    :param error_type: ``type`` in a gateway's error bodies.
    """

    flavour: str
    error_type: str

    def error(self, status: int, words: Words | None = None) -> web.Response:
        """Make an error with the words given, or with the usual ones of its status."""
        words = words or STATUS_FAULTS[str(status)]
        assert words is not None, status  # noqa: S101 - for the type checker: the callers name statuses with words
        if self.flavour == "replicate":
            return problem(status, words.detail, words.title)
        if self.flavour == "bfl_itself":
            return self._bfl_error(status, words.detail)
        return self.gateway_error(status, words.message, words.code)

    @staticmethod
    def _bfl_error(status: int, detail: str, headers: Mapping[str, str] | None = None) -> web.Response:
        """Make an error as FastAPI does, which BFL's API is made with; its key is refused with a 403."""
        if status == 401:
            status, detail = 403, "Not authenticated"
        return json_response({"detail": detail}, status=status, headers=headers)

    def gateway_error(
        self, status: int, message: str, code: str = "", headers: Mapping[str, str] | None = None, **more: object
    ) -> web.Response:
        """Make a gateway's generic error (apidoc.cometapi.com/errors/error-codes-handling)."""
        text = f"{message} (request id: {time.strftime('%Y%m%d%H%M%S')}{secrets.token_hex(8)})"
        error = {"message": text, "type": self.error_type, "param": "", "code": code}
        return json_response({"error": error, **more}, status=status, headers=headers)

    def model_not_found(self, model: str) -> web.Response:
        """Make the 503 that a gateway sends for a model it does not sell; BFL knows no such path."""
        if self.flavour == "bfl_itself":
            return self._bfl_error(404, "Not Found")
        return self.gateway_error(503, _NO_CHANNEL.format(model), "model_not_found")

    def refused_input(self, faults: list[dict[str, str]]) -> web.Response:
        """Make the 422 for fields that are wrong; a gateway hands on Replicate's."""
        if self.flavour == "bfl_itself":
            return json_response(
                {"detail": [{"loc": ["body", fault["field"]], **fault} for fault in faults]}, status=422
            )
        lines = "".join(f"- {fault['field']}: {fault['description']}\n" for fault in faults)
        title = "Input validation failed"
        if self.flavour == "replicate":
            return problem(422, lines, title, invalid_fields=faults)
        return upstream_refusal(422, problem_body(422, lines, title, invalid_fields=faults))

    def too_many(self, hint: str, retry_after: float) -> web.Response:
        """Make a 429 whose ``header``, ``date``, ``body``, ``text``, ``upstream`` or ``none`` names the seconds."""
        seconds = int(retry_after) if float(retry_after).is_integer() else retry_after
        detail = _THROTTLED
        if hint in {"text", "upstream"}:
            detail += f" Your rate limit resets in ~{seconds}s."
        if hint == "upstream":
            return upstream_refusal(429, problem_body(429, detail, retry_after=seconds))
        date = formatdate(time.time() + retry_after, usegmt=True)
        headers = {"header": {"Retry-After": f"{seconds}"}, "date": {"Retry-After": date}}.get(hint)
        more: dict[str, Any] = {"retry_after": seconds} if hint == "body" else {}
        if self.flavour == "replicate":
            return problem(429, detail, headers=headers, **more)
        if self.flavour == "bfl_itself":
            return self._bfl_error(429, detail, headers)
        return self.gateway_error(429, detail, headers=headers, **more)

    def status_fault(self, name: str, retry_after: float | None, model: str) -> web.Response:
        """Make the response of one of :data:`STATUS_FAULTS`; without seconds a 429 hints at 1 and a 503 at none."""
        status, _, hint = name.partition("_")
        if status == "429":
            return self.too_many(hint or "none", 1.0 if retry_after is None else retry_after)
        if status in NGINX_TITLES:
            return html_response(NGINX_TITLES[status], "nginx", int(status))
        if self.flavour == "file":
            response = web.Response(text=f"{status} (the emulator was told to answer so)\n", status=int(status))
        elif name == "422":
            field, text = "input.output_format", "input.output_format is not a format that this model writes"
            response = self.refused_input([{"type": "enum", "field": field, "description": text}])
        elif name == "503_model_not_found":
            response = self.model_not_found(model)
        else:
            response = self.error(int(status), STATUS_FAULTS[name])
        if status == "503" and retry_after is not None:
            response.headers["Retry-After"] = f"{retry_after:g}"
        return response
