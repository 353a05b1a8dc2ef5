"""The two listening origins, in a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from aiohttp import web

from airflow_provider_flux.emulator import control
from airflow_provider_flux.emulator.exchange import Exchange
from airflow_provider_flux.emulator.files import SHELF, FileShelf
from airflow_provider_flux.emulator.predictions import PredictionSnapshot
from airflow_provider_flux.emulator.request_log import Counters, RequestRecord
from airflow_provider_flux.emulator.routes import ROUTES
from airflow_provider_flux.emulator.rules import FaultRule, OutcomeRule
from airflow_provider_flux.emulator.settings import Settings
from airflow_provider_flux.emulator.state import State
from airflow_provider_flux.emulator.webhooks import WEBHOOKS, Webhooks

MAX_BODY = 128 * 1024 * 1024
LAST_RESPONSES = 0.5  # seconds that open requests get at the end
LAST_HANDSHAKES = 0.02  # seconds to see that a client has left in the middle of a TLS handshake
LIMIT = 30.0  # seconds that a start or a stop may take


class _Count:
    """One of the :class:`Counters` as an attribute."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, emulator: Emulator, owner: type) -> int:
        count: int = getattr(emulator.counters, self._name)
        return count


class Emulator:
    """A local gateway with a second origin beside it.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`. All methods may be called from any thread.

    :param host: the address to listen on.
    :param port: the gateway origin's port; 0 takes a free one.
    :param foreign_port: the second origin's port; 0 takes a free one.
    :param tls: certificate file and key file, to serve both origins over https.
    :param clock: returns the time in seconds since the epoch.
    :param log: receives one line per request.
    :param settings: see :class:`Settings`.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        foreign_port: int = 0,
        tls: tuple[str | Path, str | Path] | None = None,
        clock: Callable[[], float] = time.time,
        log: Callable[[str], None] | None = None,
        **settings: Any,
    ) -> None:
        self._host, self._ports, self._tls = host, (port, foreign_port), tls
        self._log = log
        self._state = State(Settings(**settings), clock)
        self._started: Future[None] = Future()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Emulator:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> Emulator:
        """Open both origins and wait until they listen.

        :raises OSError: when a port is taken.
        """
        if self._thread is not None:
            raise RuntimeError("the emulator has been started already")
        self._thread = threading.Thread(target=self._run, name="flux-emulator", daemon=True)
        self._thread.start()
        if (failure := self._started.exception(LIMIT)) is not None:
            self._thread.join(LIMIT)
            raise failure
        return self

    def stop(self) -> None:
        """End hanging requests, close both origins and wait for the thread's end."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has closed already
                self._loop.call_soon_threadsafe(self._state.closing.set)
        if self._thread is not None:
            self._thread.join(LIMIT)

    @property
    def url(self) -> str:
        """The gateway origin, such as ``http://127.0.0.1:8088``."""
        return self._state.gateway_url

    @property
    def foreign_url(self) -> str:
        """The second origin, which serves files and which ``urls.get`` names."""
        return self._state.foreign_url

    @property
    def counters(self) -> Counters:
        """All counters, as one consistent copy."""
        return self._state.ledger.counters

    posts, accepted, gets, cancels, connections = _Count(), _Count(), _Count(), _Count(), _Count()
    foreign_requests_with_authorization = _Count()

    @property
    def predictions(self) -> list[PredictionSnapshot]:
        """Every prediction made, oldest first, as it stands now."""
        now = self._state.now
        return [prediction.snapshot(now) for prediction in self._state.predictions()]

    @property
    def requests(self) -> list[RequestRecord]:
        """The latest requests on both origins, oldest first."""
        return self._state.ledger.requests

    @property
    def webhooks(self) -> list[dict[str, Any]]:
        """The webhook calls made, oldest first."""
        return self._state.ledger.deliveries

    @property
    def webhook_secret(self) -> str:
        """The secret that webhook calls are signed with."""
        return self._state.webhook_secret

    def prediction(self, prediction_id: str) -> PredictionSnapshot:
        """Return one prediction as it stands now.

        :raises KeyError: when it is not known.
        """
        return self._state.snapshot(prediction_id)

    def add_fault(self, fault: str | FaultRule, **fields: Any) -> FaultRule:
        """Play a fault on coming requests.

        :param fault: a fault's name, or a whole rule.
        :param fields: the rule's other fields, see :class:`FaultRule`.
        """
        return self._state.faults.add(FaultRule(fault, **fields) if isinstance(fault, str) else fault)

    def add_outcome(self, outcome: str | OutcomeRule, **fields: Any) -> OutcomeRule:
        """Decide how coming predictions end.

        :param outcome: an outcome's name, or a whole rule.
        :param fields: the rule's other fields, see :class:`OutcomeRule`.
        """
        return self._state.outcomes.add(OutcomeRule(outcome, **fields) if isinstance(outcome, str) else outcome)

    def clear_rules(self) -> None:
        """Forget all fault and outcome rules."""
        self._state.faults.clear()
        self._state.outcomes.clear()

    def settings(self, **changes: Any) -> Settings:
        """Replace the settings named, see :class:`Settings`, and return them all."""
        return self._state.change(**changes)

    def finish(self, prediction_id: str, outcome: str | None = None) -> PredictionSnapshot:
        """Let a prediction's run be over now; one that would have stayed for ever succeeds.

        :param outcome: how it ends, when not as decided at its creation.
        """
        return self._state.finish(prediction_id, outcome)

    def reset(self) -> None:
        """Forget predictions, requests and rules, and go back to the first settings."""
        self._state.reset()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as failure:  # noqa: BLE001 - handed to the thread that waits in start()
            if not self._started.done():
                self._started.set_exception(failure)

    async def _serve(self) -> None:
        state = self._state
        self._loop = asyncio.get_running_loop()
        webhooks = Webhooks(state)
        gateway, foreign = web.Application(client_max_size=MAX_BODY), web.Application(client_max_size=MAX_BODY)
        gateway[WEBHOOKS], foreign[SHELF] = webhooks, FileShelf()
        self._route(gateway, foreign)
        async with contextlib.AsyncExitStack() as ending:
            state.gateway_url = await self._open(gateway, self._ports[0], ending)
            state.foreign_url = await self._open(foreign, self._ports[1], ending)
            ending.push_async_callback(webhooks.close)
            self._started.set_result(None)
            await state.closing.wait()
            if self._tls is not None:
                await asyncio.sleep(LAST_HANDSHAKES)

    def _route(self, gateway: web.Application, foreign: web.Application) -> None:
        for (method, path), each in control.CONTROLS.items():
            gateway.router.add_route(method, path, control.endpoint(self._state, each))
        exchange = Exchange(self._state, self._log)
        for route in ROUTES:
            app = gateway if route.origin == "gateway" else foreign
            for method in route.methods.split():
                app.router.add_route(method, route.path, exchange.endpoint(route))

    async def _open(self, app: web.Application, port: int, ending: contextlib.AsyncExitStack) -> str:
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=LAST_RESPONSES)
        ending.push_async_callback(runner.cleanup)
        app.on_response_prepare.append(_sign)
        await runner.setup()
        context = None
        if self._tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._tls)
        await web.TCPSite(runner, self._host, port, ssl_context=context).start()
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if context else 'http'}://{host}:{runner.addresses[0][1]}"


async def _sign(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "flux-emulator (local stand-in)"
