"""Carries out the faults: wrong answers, lost answers and broken connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import web

from airflow_provider_flux.emulator import errors
from airflow_provider_flux.emulator.faults import FILE_FAULTS, FaultRule
from airflow_provider_flux.emulator.file_faults import FileFaultPlay
from airflow_provider_flux.emulator.state import State

if TYPE_CHECKING:
    from airflow_provider_flux.emulator.exchange import Call, Handler

REDIRECTS = {"redirect": 301, "redirect_302": 302, "redirect_307": 307}
CHANGING_KINDS = frozenset({"create", "cancel"})
CHUNK = b"x" * 65536
# The cut comes before any id, so that nothing in it can be taken for a prediction.
CUT_CREATE = b'{"completed_at":null,"created_at":"2026-0'
CUT_LENGTH = 1200


class FaultPlay:
    """Answers requests as fault rules say.

    :param state: the emulator's state.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._file_faults = FileFaultPlay(state)

    async def play(self, call: Call, rule: FaultRule, handler: Handler) -> web.StreamResponse:
        """Answer a request that met a fault.

        :param call: the request.
        :param rule: the rule that took it.
        :param handler: carries the request out, where the fault strikes only afterwards.
        """
        answer: web.StreamResponse | None = None
        if rule.fault in FILE_FAULTS:
            return await self._file_faults.play(call, rule.fault, handler)
        if rule.fault == "slow":
            await self._pause(rule.delay)
            return await handler(call)
        if rule.after_accept or (rule.base in {"truncated", "cut_body"} and call.route.kind not in CHANGING_KINDS):
            answer = await handler(call)
        on_the_wire: dict[str, Callable[[Call, web.StreamResponse | None], Awaitable[web.StreamResponse]]] = {
            "hang": self._hang,
            "reset": self._reset,
            "truncated": self._truncated,
            "cut_body": self._cut_body,
            "huge_body": self._huge_body,
        }
        if rule.base in on_the_wire:
            return await on_the_wire[rule.base](call, answer)
        return self._wrong_answer(call, rule)

    def _wrong_answer(self, call: Call, rule: FaultRule) -> web.StreamResponse:
        error_type = self._state.settings.error_type
        name = rule.base
        if name[0].isdigit():
            model = call.subject().model or ""
            return errors.status_fault(name, call.route.flavour, rule.retry_after, model, error_type)
        if name in REDIRECTS:
            return errors.redirect(self._state.foreign_url + call.request.path_qs, REDIRECTS[name])
        shapes: dict[str, Callable[[], web.Response]] = {
            "html": lambda: errors.html_answer("Local stand-in", "This is a page and not an API."),
            "wrong_shape": lambda: errors.json_answer({"result": "ok", "items": []}),
            "not_an_object": lambda: errors.json_answer(["unexpected"]),
            "null_body": lambda: errors.json_answer(None),
            "empty": lambda: web.Response(content_type="application/json"),
            "empty_envelope": lambda: errors.json_answer({"code": "success", "data": None}),
            "failure_in_200": lambda: errors.gateway_error(
                200, "upstream error", "bad_response_status_code", error_type
            ),
        }
        return shapes[name]()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._state.closing.wait(), seconds)

    async def _hang(self, call: Call, answer: web.StreamResponse | None) -> web.StreamResponse:
        await self._pause(self._state.settings.max_hang)
        return await self._reset(call, answer)

    async def _reset(self, call: Call, answer: web.StreamResponse | None) -> web.StreamResponse:
        transport = call.request.transport
        if transport is not None:
            raw = transport.get_extra_info("socket")
            if raw is not None:
                # with a linger time of 0 the close sends RST in place of FIN
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        return web.Response()

    async def _truncated(self, call: Call, answer: web.StreamResponse | None) -> web.StreamResponse:
        body = _bytes_of(answer)
        content_type = answer.content_type if answer is not None else "application/json"
        return web.Response(body=CUT_CREATE if body is None else body[: len(body) // 2], content_type=content_type)

    async def _cut_body(self, call: Call, answer: web.StreamResponse | None) -> web.StreamResponse:
        body = _bytes_of(answer)
        sent, length = (CUT_CREATE, CUT_LENGTH) if body is None else (body[: len(body) // 2], len(body))
        response = web.StreamResponse(status=200 if answer is None else answer.status)
        response.content_type = "application/json" if answer is None else answer.content_type
        response.content_length = length
        with contextlib.suppress(ConnectionError):
            await response.prepare(call.request)
            await response.write(sent)
        if call.request.transport is not None:
            call.request.transport.close()
        return response

    async def _huge_body(self, call: Call, answer: web.StreamResponse | None) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_type = "application/json"
        with contextlib.suppress(ConnectionError):
            await response.prepare(call.request)
            await response.write(b'{"logs":"')
            for _ in range(self._state.settings.huge_bytes // len(CHUNK)):
                await response.write(CHUNK)
            await response.write(b'"}')
        return response


def _bytes_of(answer: web.StreamResponse | None) -> bytes | None:
    if isinstance(answer, web.Response) and isinstance(answer.body, bytes):
        return answer.body
    return None
