"""Error answers, worded as each flavour words them."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

from aiohttp import web

DEFAULT_HINT = 1.0
PROBLEM_TYPE = "application/problem+json"
NGINX_STATUSES = {502: "502 Bad Gateway", 504: "504 Gateway Time-out", 524: "524 A timeout occurred"}
_NO_CHANNEL = "no available channel for group default and model {model} (distributor)"
_THROTTLED = "Request was throttled. Your rate limit for creating predictions is reduced."


class Refused(Exception):
    """Ends the handling of a request with an error answer.

    :param response: the answer.
    """

    def __init__(self, response: web.Response) -> None:
        super().__init__(f"refused with HTTP {response.status}")
        self.response = response


def json_answer(
    body: object, status: int = 200, headers: Mapping[str, str] | None = None, content_type: str = "application/json"
) -> web.Response:
    """Make a JSON answer.

    :param body: what to write as JSON.
    :param status: the HTTP status.
    :param headers: further headers.
    :param content_type: the media type.
    """
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    return web.Response(text=text, status=status, headers=headers, content_type=content_type)


def html_answer(title: str, text: str, status: int = 200) -> web.Response:
    """Make a small HTML page, as a gateway answers where no API lives.

    :param title: the page's title, plain text without markup.
    :param text: the page's text, plain text without markup.
    :param status: the HTTP status.
    """
    page = f"<!DOCTYPE html><html><head><title>{title}</title></head><body><h1>{title}</h1><p>{text}</p></body></html>"
    return web.Response(text=page, status=status, content_type="text/html")


def redirect(location: str, status: int = 301) -> web.Response:
    """Make a redirect with the small page that proxies send along.

    :param location: where it leads.
    :param status: the HTTP status.
    """
    answer = html_answer(f"{status} Moved", "nginx", status)
    answer.headers["Location"] = location
    return answer


def gateway_error(
    status: int,
    message: str,
    code: str = "",
    error_type: str = "comet_api_error",
    headers: Mapping[str, str] | None = None,
    **more: object,
) -> web.Response:
    """Make a gateway's generic error (apidoc.cometapi.com/errors/error-codes-handling).

    :param status: the HTTP status.
    :param message: the message; a request id is added to it.
    :param code: the error code, often empty.
    :param error_type: the error type.
    :param headers: further headers.
    :param more: further keys beside ``error``.
    """
    text = f"{message} (request id: {time.strftime('%Y%m%d%H%M%S')}{secrets.token_hex(8)})"
    error = {"message": text, "type": error_type, "param": "", "code": code}
    return json_answer({"error": error, **more}, status, headers)


def task_error(status: int, code: str, message: str) -> web.Response:
    """Make the flat error of the gateway's task routes (QuantumNous/new-api dto/task.go).

    :param status: the HTTP status.
    :param code: the error code.
    :param message: the message; for an upstream refusal the upstream's body as text.
    """
    return json_answer({"code": code, "message": message, "data": None}, status)


def upstream_refusal(status: int, body: object) -> web.Response:
    """Make the answer that hands on an upstream's refusal.

    :param status: the upstream's HTTP status.
    :param body: the upstream's JSON body.
    """
    return task_error(status, "fail_to_fetch_task", json.dumps(body))


def unknown_task() -> web.Response:
    """Make the gateway's answer for an id it does not know (new-api relay/relay_task.go)."""
    return task_error(400, "task_not_exist", "task_not_exist")


def model_not_found(model: str, error_type: str) -> web.Response:
    """Make the 503 with which a gateway answers for a model it does not sell.

    :param model: the model asked for.
    :param error_type: the error type.
    """
    return gateway_error(503, _NO_CHANNEL.format(model=model), "model_not_found", error_type)


def problem_body(status: int, detail: str, title: str | None = None, **more: object) -> dict[str, Any]:
    """Build Replicate's problem object; its ``status`` is a number (replicate-python tests/cassettes).

    :param status: the HTTP status.
    :param detail: the text.
    :param title: the title, which some answers lack.
    :param more: further keys.
    """
    head = {} if title is None else {"title": title}
    return {**head, "detail": detail, "status": status, **more}


def problem(
    status: int,
    detail: str,
    title: str | None = None,
    headers: Mapping[str, str] | None = None,
    **more: object,
) -> web.Response:
    """Make Replicate's error answer.

    :param status: the HTTP status.
    :param detail: the text.
    :param title: the title, which some answers lack.
    :param headers: further headers.
    :param more: further keys.
    """
    return json_answer(problem_body(status, detail, title, **more), status, headers, PROBLEM_TYPE)


def not_found() -> web.Response:
    """Make Replicate's 404."""
    return problem(404, "The requested resource could not be found.")


def unauthenticated(flavour: str, error_type: str) -> web.Response:
    """Make the 401 of a flavour.

    :param flavour: the kind of route.
    :param error_type: the gateway's error type.
    """
    if flavour == "replicate":
        return problem(401, "You did not pass a valid authentication token", "Unauthenticated")
    return gateway_error(401, "invalid token", "", error_type)


def too_many(flavour: str, hint: str, retry_after: float, error_type: str) -> web.Response:
    """Make a 429 with one kind of hint.

    :param flavour: the kind of route.
    :param hint: ``header``, ``date``, ``body``, ``text``, ``upstream`` or ``none``.
    :param retry_after: the seconds that the hint names.
    :param error_type: the gateway's error type.
    """
    seconds: float | int = int(retry_after) if float(retry_after).is_integer() else retry_after
    headers: dict[str, str] = {}
    more: dict[str, Any] = {}
    detail = _THROTTLED
    if hint == "header":
        headers["Retry-After"] = f"{seconds}"
    elif hint == "date":
        headers["Retry-After"] = formatdate(time.time() + retry_after, usegmt=True)
    elif hint == "body":
        more["retry_after"] = seconds
    elif hint == "text":
        detail += f" Your rate limit resets in ~{seconds}s."
    elif hint == "upstream":
        text = f"{_THROTTLED} Your rate limit resets in ~{seconds}s."
        return upstream_refusal(429, problem_body(429, text, retry_after=seconds))
    if flavour == "replicate":
        return problem(429, detail, headers=headers, **more)
    return gateway_error(429, detail, "", error_type, headers, **more)


_GATEWAY_FAULTS: dict[str, tuple[int, str, str]] = {
    "400": (400, "model name is required", ""),
    "401": (401, "invalid token", ""),
    "402": (402, "insufficient balance", "insufficient_user_quota"),
    "403": (403, "no permission to use this model", "permission_denied"),
    "403_quota": (403, "user quota is not enough", "insufficient_user_quota"),
    "404": (404, "not found", ""),
    "408": (408, "request timeout", ""),
    "409": (409, "conflict", ""),
    "413": (413, "request body too large", ""),
    "500": (500, "upstream error", "bad_response_status_code"),
    "500_invalid_request": (500, "field messages is required", "invalid_request"),
    "503": (503, "service unavailable", "get_channel_failed"),
}
_REPLICATE_FAULTS: dict[str, tuple[int, str, str | None]] = {
    "400": (400, "The request could not be read.", "Bad request"),
    "401": (401, "You did not pass a valid authentication token", "Unauthenticated"),
    "402": (
        402,
        "You have insufficient credit to run this model. If you have just bought credit, wait a few minutes.",
        "Insufficient credit",
    ),
    "403": (403, "You do not have permission to perform this action.", None),
    "403_quota": (403, "You do not have permission to perform this action.", None),
    "404": (404, "The requested resource could not be found.", None),
    "408": (408, "Request timed out.", None),
    "409": (409, "The request conflicts with another one.", None),
    "413": (413, "The request is too large.", None),
    "500": (500, "Internal server error", None),
    "500_invalid_request": (500, "Internal server error", None),
    "503": (503, "Service unavailable", None),
}


def invalid_input() -> dict[str, Any]:
    """Build the body of a 422 for a field that is wrong."""
    field, text = "input.output_format", "input.output_format is not a format that this model writes"
    return problem_body(
        422,
        f"- {field}: {text}\n",
        "Input validation failed",
        invalid_fields=[{"type": "enum", "field": field, "description": text}],
    )


def _with_hint(response: web.Response, retry_after: float | None) -> web.Response:
    if retry_after is not None and response.status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = f"{retry_after:g}"
    return response


def _gateway_fault(name: str, model: str, error_type: str) -> web.Response:
    if name == "422":
        return upstream_refusal(422, invalid_input())
    if name == "503_model_not_found":
        return model_not_found(model, error_type)
    status, message, code = _GATEWAY_FAULTS[name]
    return gateway_error(status, message, code, error_type)


def _replicate_fault(name: str, model: str, error_type: str) -> web.Response:
    if name == "422":
        return json_answer(invalid_input(), 422, content_type=PROBLEM_TYPE)
    if name == "503_model_not_found":
        return model_not_found(model, error_type)
    status, detail, title = _REPLICATE_FAULTS[name]
    return problem(status, detail, title)


def _file_fault(name: str, model: str, error_type: str) -> web.Response:
    status = int(name[:3])
    return web.Response(text=f"{status} (the emulator was told to answer so)\n", status=status)


_FLAVOURS: dict[str, Callable[[str, str, str], web.Response]] = {
    "gateway": _gateway_fault,
    "bfl": _gateway_fault,
    "replicate": _replicate_fault,
    "file": _file_fault,
}


def status_fault(name: str, flavour: str, retry_after: float | None, model: str, error_type: str) -> web.Response:
    """Make the answer of a fault that is named by its status.

    :param name: the fault's base name.
    :param flavour: the kind of route.
    :param retry_after: the seconds of a hint; ``None`` is 1 for a 429 and no hint for a 503.
    :param model: the model asked for, for ``503_model_not_found``.
    :param error_type: the gateway's error type.
    """
    status, _, hint = name.partition("_")
    if status == "429":
        return too_many(flavour, hint or "none", DEFAULT_HINT if retry_after is None else retry_after, error_type)
    if int(status) in NGINX_STATUSES:
        return html_answer(NGINX_STATUSES[int(status)], "nginx", int(status))
    return _with_hint(_FLAVOURS[flavour](name, model, error_type), retry_after)
