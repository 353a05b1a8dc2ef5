"""Plays the faults: wrong responses, lost responses, broken connections, and what goes wrong with files alone."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web

from airflow_provider_flux.emulator.calls import Call
from airflow_provider_flux.emulator.responses import html_response, json_response, redirect
from airflow_provider_flux.emulator.rules import AFTER_ACCEPT, FaultRule

CHANGING_KINDS = frozenset({"create", "cancel"})
CHUNK = b"x" * 65536
PNG_CHUNK = b"\x89PNG\r\n\x1a\n" + bytes(65528)
TRICKLE_PAUSE = 0.02
# The cut comes before any id, so that nothing in it can be taken for a prediction.
CUT_CREATE = b'{"completed_at":null,"created_at":"2026-0'
CUT_LENGTH = 1200

Served = web.StreamResponse | None
Play = Callable[[Call, FaultRule, Served], Awaitable[web.StreamResponse]]


async def play(call: Call, rule: FaultRule) -> web.StreamResponse:
    """Respond to a request that a rule took; where the fault strikes only afterwards, carry the request out first."""
    name = rule.base
    reads = call.route.kind not in CHANGING_KINDS
    strikes_after = (
        rule.fault.endswith(AFTER_ACCEPT) or name in _SPOILED or (reads and name in {"truncated", "cut_body"})
    )
    served = await call.route.handler(call) if strikes_after else None
    if name in _PLAYS:
        return await _PLAYS[name](call, rule, served)
    if name in _INSTEAD:
        return _INSTEAD[name](call)
    return call.wording.status_fault(name, rule.retry_after, call.subject().model or "")


def _redirect(status: int) -> Callable[[Call], web.Response]:
    return lambda call: redirect(call.state.foreign_url + call.request.path_qs, status)


_INSTEAD: dict[str, Callable[[Call], web.Response]] = {
    "html": lambda call: html_response("Local stand-in", "This is a page and not an API."),
    "redirect": _redirect(301),
    "redirect_302": _redirect(302),
    "redirect_307": _redirect(307),
    "wrong_shape": lambda call: json_response({"result": "ok", "items": []}),
    "not_an_object": lambda call: json_response(["unexpected"]),
    "null_body": lambda call: json_response(None),
    "empty": lambda call: web.Response(content_type="application/json"),
    "empty_envelope": lambda call: json_response({"code": "success", "data": None}),
    "failure_in_200": lambda call: call.wording.gateway_error(200, "upstream error", "bad_response_status_code"),
    "gone": lambda call: web.Response(text="410 gone\n", status=410),
    "svg": lambda call: web.Response(text='<svg xmlns="http://www.w3.org/2000/svg"/>', content_type="image/svg+xml"),
    "redirect_metadata": lambda call: redirect("http://169.254.169.254/latest/meta-data/", 302),
    "redirect_private": lambda call: redirect("https://10.0.0.1/out-0.png", 302),
}


async def _pause(call: Call, seconds: float) -> None:
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(call.state.closing.wait(), seconds)


async def _slow(call: Call, rule: FaultRule, served: Served) -> web.StreamResponse:
    await _pause(call, rule.delay)
    return await call.route.handler(call)


async def _hang(call: Call, rule: FaultRule, served: Served) -> web.StreamResponse:
    await _pause(call, call.state.settings.max_hang)
    return await _reset(call, rule, served)


async def _reset(call: Call, rule: FaultRule, served: Served) -> web.StreamResponse:
    if (transport := call.request.transport) is not None:
        if (raw := transport.get_extra_info("socket")) is not None:
            # with a linger time of 0 the close sends RST in place of FIN
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()


async def _truncated(call: Call, rule: FaultRule, served: Served) -> web.StreamResponse:
    body, content_type = _content(served)
    return web.Response(body=CUT_CREATE if body is None else body[: len(body) // 2], content_type=content_type)


async def _cut_body(call: Call, rule: FaultRule, served: Served) -> web.StreamResponse:
    body, content_type = _content(served)
    sent, length = (CUT_CREATE, CUT_LENGTH) if body is None else (body[: len(body) // 2], len(body))
    response = web.StreamResponse(status=200 if served is None else served.status)
    response.content_length = length
    await _send(call, response, content_type, [sent])
    if call.request.transport is not None:
        call.request.transport.close()
    return response


async def _huge_body(call: Call, rule: FaultRule, served: Served) -> web.StreamResponse:
    chunks = itertools.repeat(CHUNK, call.state.settings.huge_bytes // len(CHUNK))
    pieces = itertools.chain([b'{"logs":"'], chunks, [b'"}'])
    return await _send(call, web.StreamResponse(), "application/json", pieces)


async def _wrong_type(call: Call, rule: FaultRule, served: Served) -> web.StreamResponse:
    response = web.Response() if served is None else served
    response.content_type = "text/html"
    return response


async def _cut_unannounced(call: Call, rule: FaultRule, served: Served) -> web.StreamResponse:
    """Send half of the file, and end as if that were all: no length was announced that could tell."""
    body, content_type = _content(served)
    sent = body or b""
    return await _send(call, web.StreamResponse(), content_type, [sent[: len(sent) // 2]])


def _endless(chunk: bytes, pause: float = 0.0) -> Play:
    async def endless(call: Call, rule: FaultRule, served: Served) -> web.StreamResponse:
        chunks = iter(lambda: None if call.state.closing.is_set() else chunk, None)
        return await _send(call, web.StreamResponse(), "image/png", chunks, pause)

    return endless


_SPOILED: dict[str, Play] = {"wrong_type": _wrong_type, "cut_unannounced": _cut_unannounced}
_PLAYS: dict[str, Play] = {
    "slow": _slow,
    "hang": _hang,
    "reset": _reset,
    "truncated": _truncated,
    "cut_body": _cut_body,
    "huge_body": _huge_body,
    "endless": _endless(PNG_CHUNK),
    "trickle": _endless(PNG_CHUNK[:1], TRICKLE_PAUSE),
    **_SPOILED,
}


def _content(served: Served) -> tuple[bytes | None, str]:
    body = served.body if isinstance(served, web.Response) and isinstance(served.body, bytes) else None
    return body, "application/json" if served is None else served.content_type


async def _send(
    call: Call, response: web.StreamResponse, content_type: str, pieces: Iterable[bytes], pause: float = 0.0
) -> web.StreamResponse:
    response.content_type = content_type
    with contextlib.suppress(ConnectionError):
        await response.prepare(call.request)
        for piece in pieces:
            await response.write(piece)
            if pause:
                await asyncio.sleep(pause)
    return response
