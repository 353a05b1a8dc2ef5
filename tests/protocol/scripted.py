"""Drives a flow with a list of replies and a clock of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from airflow_provider_flux.protocol.flows import Conversation, Flow, Send
from airflow_provider_flux.protocol.gateways import Gateway, choose_gateway
from airflow_provider_flux.protocol.messages import Delivery, Reply, Request, Response, TransportFailure

T = TypeVar("T")

START = 1_773_300_000.0
ID = "q4chw5rey9rmt0cww76t4h3ma4"
URL = "https://replicate.delivery/xezq/abc/out-0.webp"
STEPS_LIMIT = 10_000

NOT_SENT = TransportFailure(Delivery.NOT_SENT, "no connection could be made")
UNTRUSTED = TransportFailure(Delivery.UNTRUSTED, "certificate not trusted")
UNUSABLE = TransportFailure(Delivery.UNUSABLE, "ca_file /none.pem: no such file")
IN_DOUBT = TransportFailure(Delivery.IN_DOUBT, "no answer within the read timeout")


def answer(
    status: int = 200, body: object = None, *, content_type: str = "application/json", **headers: str
) -> Response:
    """Make an HTTP answer. A body of bytes or text is taken as it is, anything else as JSON."""
    if isinstance(body, str):
        body = body.encode()
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, {"content-type": content_type, **named}, raw)


def html(status: int = 200, title: str = "Just a moment") -> Response:
    page = f"<!DOCTYPE html><html><head><title>{title}</title></head></html>"
    return answer(status, page, content_type="text/html; charset=utf-8")


def told(status: str = "starting", **fields: object) -> Response:
    """Make the answer that describes the prediction of the tests."""
    return answer(200, {"id": ID, "status": status, "output": None, "error": None, **fields})


SUCCEEDED = told("succeeded", output=[URL])
TASK_NOT_EXIST = answer(400, {"code": "task_not_exist", "message": "task_not_exist", "data": None})


@dataclass(frozen=True)
class Late:
    """A reply that takes some seconds to come."""

    seconds: float
    reply: Reply


class LogBook:
    """Keeps every line that a flow logs."""

    def __init__(self) -> None:
        self.infos: list[str] = []
        self.warnings: list[str] = []

    def info(self, message: str, /, *args: object) -> None:
        self.infos.append(message % args)

    def warning(self, message: str, /, *args: object) -> None:
        self.warnings.append(message % args)


class Script:
    """What a gateway answers, and what was asked of it.

    :param replies: what it answers, in this order.
    :param then: what it answers after that, for ever; without it a further request is an error.
    :param chance: the number that every throw of the dice gives; 0.5 leaves poll times without jitter.
    """

    def __init__(
        self,
        *replies: Reply | Late,
        then: Reply | Late | None = None,
        chance: float = 0.5,
        gateway: Gateway | None = None,
    ) -> None:
        self.now = START
        self.requests: list[Request] = []
        self.asked_at: list[float] = []
        self.limits: list[float] = []
        self.sleeps: list[float] = []
        self.log = LogBook()
        self.gateway = gateway or choose_gateway("https://api.deerapi.com")
        self.talk = Conversation(self.gateway, self.log, clock=lambda: self.now, chance=lambda: chance)
        self._replies = list(replies)
        self._then = then

    @property
    def posts(self) -> int:
        return sum(request.method == "POST" for request in self.requests)

    def run(self, flow: Flow[T]) -> T:
        """Step a flow to its end."""
        try:
            effect = next(flow)
            for _ in range(STEPS_LIMIT):
                if isinstance(effect, Send):
                    self.limits.append(effect.limit)
                    effect = flow.send(self._reply(effect.request))
                else:
                    assert effect.seconds >= 0, "slept for less than nothing"
                    self.sleeps.append(effect.seconds)
                    self.now += effect.seconds
                    effect = next(flow)
        except StopIteration as end:
            result: T = end.value
            return result
        raise AssertionError("the flow does not come to an end")

    def _reply(self, request: Request) -> Reply:
        self.requests.append(request)
        self.asked_at.append(self.now - START)
        reply = self._replies.pop(0) if self._replies else self._then
        assert reply is not None, f"the flow asked once too often: {request}"
        if isinstance(reply, Late):
            self.now += reply.seconds
            return reply.reply
        return reply


def create_request(gateway: Gateway | None = None, **input: Any) -> Request:
    """Build a create request."""
    gateway = gateway or choose_gateway("https://api.deerapi.com")
    fields: Mapping[str, Any] = input or {"prompt": "A paper boat"}
    return gateway.create("black-forest-labs/flux-schnell", fields)
