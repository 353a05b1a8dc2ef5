"""What monitoring sees: metrics over a real StatsD socket, and the spans of OpenTelemetry's own SDK."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.sdk._shared.observability.metrics import stats as shared_stats
from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger

from airflow_provider_flux import telemetry
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.operators.flux import FluxPredictionOperator
from airflow_provider_flux.triggers.flux import FluxPredictionTrigger
from tests.conftest import KEY, Connect

SCHNELL = "black-forest-labs/flux-schnell"
BOAT = {"prompt": "A paper boat floating on calm water at sunrise."}

Received = Callable[[], list[str]]


@pytest.fixture(autouse=True)
def connection(emulator: Emulator, connect: Connect) -> None:
    connect(emulator.url, gateway="deerapi", read_timeout=2)


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[Received]:
    """The StatsD lines that have arrived so far."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "True")
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_HOST", "127.0.0.1")
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_PORT", str(server.getsockname()[1]))
        telemetry.set_up_in_triggerer.cache_clear()
        telemetry.set_up_in_triggerer()
        lines: list[str] = []

        def receive() -> list[str]:
            while True:
                try:
                    lines.extend(server.recv(65536).decode().splitlines())
                except BlockingIOError:
                    return lines

        yield receive
    telemetry.set_up_in_triggerer.cache_clear()
    backend: Any = shared_stats._get_backend()
    backend.statsd.close()
    shared_stats.initialize(factory=NoStatsLogger, export_legacy_names=True)


class Ti:
    def xcom_push(self, key: str, value: Any) -> None:
        """Take it."""


def make_and_wait() -> None:
    task = FluxPredictionOperator(
        task_id="make", model=SCHNELL, input=BOAT, wait_for_completion=True, poll_interval=0.05
    )
    task.execute({"ti": Ti()})  # type: ignore[typeddict-item]


def names(lines: list[str]) -> Counter[str]:
    return Counter(line.split(":")[0].removeprefix("airflow.") for line in lines)


def test_a_picture_is_counted_from_its_creation_to_its_end(emulator: Emulator, received: Received) -> None:
    make_and_wait()

    counted = names(received())
    assert counted["flux.predictions.created"] == 1
    assert counted["flux.predictions.succeeded"] == 1
    assert counted["flux.polls"] == emulator.gets
    assert counted["flux.predictions.run_time"] == counted["flux.predictions.delay"] == 1


def test_the_gauge_of_pending_predictions_falls_back_to_nothing(received: Received) -> None:
    make_and_wait()

    gauges = [line for line in received() if ".pending:" in line]
    assert [line.partition(":")[2] for line in gauges] == ["1|g", "0|g"]


@pytest.mark.parametrize(("outcome", "name"), [("E005", "failed"), ("canceled", "canceled"), ("aborted", "canceled")])
def test_other_ends_are_counted_by_their_kind(emulator: Emulator, received: Received, outcome: str, name: str) -> None:
    emulator.add_outcome(outcome)

    with pytest.raises(Exception, match="Prediction"):
        make_and_wait()

    counted = names(received())
    assert counted[f"flux.predictions.{name}"] == 1
    assert counted["flux.predictions.succeeded"] == 0


def test_every_429_is_counted(emulator: Emulator, received: Received) -> None:
    emulator.add_fault("429", on="create", retry_after=0)

    make_and_wait()

    assert names(received())["flux.rate_limited"] == 1


async def test_a_trigger_counts_as_a_worker_does(emulator: Emulator, received: Received) -> None:
    now = time.time()
    trigger = FluxPredictionTrigger(
        flux_conn_id="flux_default",
        prediction_id=FluxHook().create_prediction(SCHNELL, BOAT).id,
        model=SCHNELL,
        submitted_at=now,
        deadline=now + 20,
        poll_interval=0.05,
    )
    async for _ in trigger.run():
        pass

    counted = names(received())
    assert counted["flux.polls"] == emulator.gets
    assert counted["flux.predictions.delay"] == 1


def test_no_metric_names_the_key_a_prompt_or_a_url(received: Received) -> None:
    """the key"""
    make_and_wait()

    text = "\n".join(received())
    assert "flux.polls" in text
    assert not [secret for secret in (KEY, "paper boat", "http") if secret in text]


def test_submission_and_wait_have_spans_that_name_the_prediction_and_no_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)

    make_and_wait()

    spans = {span.name: dict(span.attributes or {}) for span in exporter.get_finished_spans()}
    assert spans["flux.submit"] == {"flux.model": SCHNELL}
    assert set(spans["flux.wait"]) == {"flux.prediction_id", "flux.model"}
