"""What monitoring sees: metrics through Airflow's own Stats, spans through OpenTelemetry.

=============================== ======= ================================================================
Metric                          Kind    Meaning; its tags
=============================== ======= ================================================================
``flux.predictions.created``    counter creates that the gateway accepted; ``gateway``
``flux.predictions.succeeded``  counter ends that a task or a batch has taken note of; ``gateway``, ``model``
``flux.predictions.failed``     counter
``flux.predictions.canceled``   counter aborted ones included
``flux.predictions.run_time``   timing  from creation to end, by the gateway's clock; ``gateway``, ``model``
``flux.predictions.delay``      timing  from the end of a prediction to the poll that saw it; ``gateway``, ``model``
``flux.predictions.pending``    gauge   predictions that this process waits for
``flux.polls``                  counter requests for one prediction; ``gateway``
``flux.rate_limited``           counter answers with HTTP status 429; ``gateway``
=============================== ======= ================================================================

Neither names a prompt, a URL or a key.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

from opentelemetry import trace

from airflow_provider_flux.protocol.gateways import Gateway
from airflow_provider_flux.protocol.messages import Purpose, Reply, Request, Response
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus

GAUGE_INTERVAL = 1.0
"""Seconds."""

_COLLECT_NOTHING = (trace.ProxyTracerProvider, trace.NoOpTracerProvider)
_NO_SPAN: AbstractContextManager[object] = nullcontext()

_COUNTED_AS = {
    PredictionStatus.SUCCEEDED: "flux.predictions.succeeded",
    PredictionStatus.FAILED: "flux.predictions.failed",
    PredictionStatus.CANCELED: "flux.predictions.canceled",
    PredictionStatus.ABORTED: "flux.predictions.canceled",
}


@functools.cache
def _stats() -> Any:
    try:
        from airflow.sdk.observability.stats import Stats
    except ImportError:  # Airflow 3.1
        from airflow.stats import Stats
    return Stats


@functools.cache
def set_up_in_triggerer() -> None:
    """Let metrics leave a triggerer, once in its life.

    Airflow 3.3 has two copies of its Stats, and a triggerer sets up only the one that tasks are not to use
    (jobs/triggerer_job_runner.py). On 3.2 none leave it.
    """
    try:
        from airflow.sdk.configuration import conf
        from airflow.sdk.observability.metrics.stats_utils import get_stats_factory
        from airflow.sdk.observability.stats import initialize
    except ImportError:
        return
    legacy = conf.getboolean("metrics", "legacy_names_on", fallback=True)
    initialize(factory=get_stats_factory(), export_legacy_names=legacy)


def note_poll(gateway: Gateway, reply: Reply) -> None:
    """Count one poll of many and its answer; :func:`tell_polls` tells of the last ones."""
    _polls.count(gateway.preset.name)
    if isinstance(reply, Response) and reply.status == 429:
        _count("flux.rate_limited", gateway)


def tell_polls() -> None:
    """Tell Stats of all polls that :func:`note_poll` has counted."""
    _polls.tell()


def note_exchange(gateway: Gateway, request: Request, reply: Reply) -> None:
    """Count one request and its answer."""
    if request.purpose is Purpose.GET:
        _count("flux.polls", gateway)
    if not isinstance(reply, Response):
        return
    if reply.status == 429:
        _count("flux.rate_limited", gateway)
    elif request.purpose is Purpose.CREATE and reply.status in (200, 201, 202):
        _count("flux.predictions.created", gateway)


def note_end(gateway: Gateway, prediction: Prediction, model: str) -> None:
    """Count how a prediction ended, once for each task that takes note of it."""
    name = _COUNTED_AS.get(prediction.status)
    if name is not None:
        _stats().incr(name, tags=_tags(gateway, model))


def note_seen(gateway: Gateway, prediction: Prediction, model: str, *, waited: float) -> None:
    """Tell how long a prediction ran, and how much later its end was seen.

    :param waited: seconds from its creation until the end was seen, by the clock of this machine. The gateway's clock
        may go differently, so only differences of times of the same clock are used.
    """
    if prediction.created_at is None or prediction.completed_at is None:
        return
    ran = max(0.0, prediction.completed_at - prediction.created_at)
    tags = _tags(gateway, model)
    _stats().timing("flux.predictions.run_time", timedelta(seconds=ran), tags=tags)
    _stats().timing("flux.predictions.delay", timedelta(seconds=max(0.0, waited - ran)), tags=tags)


class _Pending:
    """How many predictions this process waits for. Told when it changes, but hardly more than once a second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._told_at = -math.inf

    def change(self, by: int) -> None:
        """Count one more or one less."""
        with self._lock:
            self._count += by
            count, now = self._count, time.monotonic()
            if count > 1 and now - self._told_at < GAUGE_INTERVAL:
                return
            self._told_at = now
        _stats().gauge("flux.predictions.pending", count)


_pending = _Pending()


class waiting_for:  # noqa: N801 (used like a function)
    """Count a prediction as pending, in a span of its own, for as long as something waits for it.

    A class, since a generator would cost a trigger more than all the rest of this module.
    """

    def __init__(self, prediction_id: str, model: str) -> None:
        self._span = span("flux.wait", prediction_id=prediction_id, model=model)

    def __enter__(self) -> None:
        _pending.change(+1)
        self._span.__enter__()

    def __exit__(self, *raised: Any) -> None:
        _pending.change(-1)
        self._span.__exit__(*raised)


def span(name: str, **attributes: str) -> AbstractContextManager[object]:
    """Open a span under that of the task or the trigger, where somebody collects spans."""
    # Spans that nobody collects cost as much as a poll.
    if isinstance(trace.get_tracer_provider(), _COLLECT_NOTHING):
        return _NO_SPAN
    named = {f"flux.{key}": value for key, value in attributes.items()}
    return trace.get_tracer(__name__).start_as_current_span(name, attributes=named)


class _Polls:
    """How many polls there have been since Stats was told: hardly more than once a second, in one call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._told_at = -math.inf

    def count(self, name: str) -> None:
        """Count one."""
        with self._lock:
            self._counts[name] += 1
            if time.monotonic() - self._told_at < GAUGE_INTERVAL:
                return
        self.tell()

    def tell(self) -> None:
        """Tell what has been counted."""
        with self._lock:
            self._told_at = time.monotonic()
            counts, self._counts = self._counts, Counter()
        for name, count in counts.items():
            _stats().incr("flux.polls", count, tags={"gateway": name})


_polls = _Polls()


def _count(name: str, gateway: Gateway) -> None:
    _stats().incr(name, tags={"gateway": gateway.preset.name})


def _tags(gateway: Gateway, model: str) -> dict[str, str]:
    return {"gateway": gateway.preset.name, "model": model.rpartition("/")[2] or "unknown"}
