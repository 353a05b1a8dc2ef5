"""The two listening origins, in a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from airflow_provider_flux.emulator.answers import Answers
from airflow_provider_flux.emulator.bfl import BflRoutes
from airflow_provider_flux.emulator.billing import BillingRoutes
from airflow_provider_flux.emulator.control import ControlRoutes
from airflow_provider_flux.emulator.exchange import Exchange
from airflow_provider_flux.emulator.faults import FaultRule
from airflow_provider_flux.emulator.files import FileShelf
from airflow_provider_flux.emulator.foreign import ForeignRoutes
from airflow_provider_flux.emulator.gateway import GatewayRoutes
from airflow_provider_flux.emulator.outcomes import OutcomeRule
from airflow_provider_flux.emulator.pages import PageRoutes
from airflow_provider_flux.emulator.replicate import ReplicateRoutes
from airflow_provider_flux.emulator.request_log import Counters, RequestRecord
from airflow_provider_flux.emulator.settings import Settings
from airflow_provider_flux.emulator.snapshots import PredictionSnapshot, snapshot
from airflow_provider_flux.emulator.state import State
from airflow_provider_flux.emulator.webhooks import Webhooks

MAX_BODY = 128 * 1024 * 1024
LAST_ANSWERS = 0.5  # seconds that open requests get at the end
START_LIMIT = 30.0
STOP_LIMIT = 30.0
SERVER_NAME = "flux-emulator (local stand-in)"

Tls = tuple[str | Path, str | Path]


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
        tls: Tls | None = None,
        clock: Callable[[], float] = time.time,
        log: Callable[[str], None] | None = None,
        **settings: Any,
    ) -> None:
        self._host, self._ports, self._tls = host, (port, foreign_port), tls
        self._log = log
        self._state = State(Settings(**settings), clock)
        self._ready = threading.Event()
        self._failure: BaseException | None = None
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
        if not self._ready.wait(START_LIMIT):
            raise TimeoutError("the emulator did not start")
        if self._failure is not None:
            self._thread.join(STOP_LIMIT)
            raise self._failure
        return self

    def stop(self) -> None:
        """End hanging requests, close both origins and wait for the thread's end."""
        thread, loop = self._thread, self._loop
        if thread is None:
            return
        if loop is not None and thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop may close in between
                loop.call_soon_threadsafe(self._state.closing.set)
        thread.join(STOP_LIMIT)

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

    @property
    def posts(self) -> int:
        """Create requests received, whatever became of them."""
        return self.counters.posts

    @property
    def accepted(self) -> int:
        """Predictions made."""
        return self.counters.accepted

    @property
    def gets(self) -> int:
        """Queries for one prediction."""
        return self.counters.gets

    @property
    def cancels(self) -> int:
        """Cancel requests received."""
        return self.counters.cancels

    @property
    def connections(self) -> int:
        """Connections that carried at least one request."""
        return self.counters.connections

    @property
    def foreign_requests_with_authorization(self) -> int:
        """Requests on the second origin that carried a key."""
        return self.counters.foreign_requests_with_authorization

    @property
    def predictions(self) -> list[PredictionSnapshot]:
        """Every prediction made, oldest first, as it stands now."""
        now = self._state.now
        return [snapshot(prediction, now) for prediction in self._state.store.all()]

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

        :param prediction_id: the id.
        :raises KeyError: when it is not known.
        """
        found = self._state.store.find(prediction_id)
        if found is None:
            raise KeyError(prediction_id)
        return snapshot(found, self._state.now)

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
        """Replace the settings named and return them all.

        :param changes: see :class:`Settings`.
        """
        return self._state.change(**changes)

    def finish(self, prediction_id: str, outcome: str | None = None) -> PredictionSnapshot:
        """Let a prediction's run be over now; one that would have stayed for ever succeeds.

        :param prediction_id: the id.
        :param outcome: how it ends, when not as decided at its creation.
        """
        now = self._state.now
        return snapshot(self._state.store.finish(prediction_id, now, outcome), now)

    def reset(self) -> None:
        """Forget predictions, requests and rules, and go back to the first settings."""
        self._state.reset()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as failure:  # noqa: BLE001 - handed to the thread that waits in start()
            self._failure = failure
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        state = self._state
        self._loop = asyncio.get_running_loop()
        webhooks = Webhooks(state)
        state.on_created = webhooks.watch
        runners: list[web.AppRunner] = []
        try:
            gateway, foreign = self._applications()
            state.gateway_url = await self._open(gateway, self._ports[0], runners)
            state.foreign_url = await self._open(foreign, self._ports[1], runners)
            self._ready.set()
            await state.closing.wait()
        finally:
            state.closing.set()
            await webhooks.close()
            for runner in runners:
                await runner.cleanup()

    def _applications(self) -> tuple[web.Application, web.Application]:
        state = self._state
        exchange, answers = Exchange(state, self._log), Answers(state)
        gateway, foreign = web.Application(client_max_size=MAX_BODY), web.Application(client_max_size=MAX_BODY)
        ControlRoutes(state).add_to(gateway)
        GatewayRoutes(state, answers).add_to(gateway, exchange)
        BflRoutes(state, answers).add_to(gateway, exchange)
        BillingRoutes(state).add_to(gateway, exchange)
        ReplicateRoutes(state, answers).add_to(gateway, exchange)
        PageRoutes(state, answers).add_to(gateway, exchange)
        ForeignRoutes(state, FileShelf(state)).add_to(foreign, exchange)
        for app in (gateway, foreign):
            app.on_response_prepare.append(_sign)
        return gateway, foreign

    async def _open(self, app: web.Application, port: int, runners: list[web.AppRunner]) -> str:
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=LAST_ANSWERS)
        runners.append(runner)
        await runner.setup()
        context = None
        if self._tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._tls)
        await web.TCPSite(runner, self._host, port, ssl_context=context).start()
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if context else 'http'}://{host}:{runner.addresses[0][1]}"


async def _sign(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = SERVER_NAME
