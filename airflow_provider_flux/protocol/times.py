"""When things happen, and times as people and other programs read them."""

from __future__ import annotations

from datetime import datetime, timezone
from urllib.parse import urlsplit

from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus

LIFE_AT_REPLICATE = 3600.0
SHORTEST_LIFE = 600.0
"""Seconds after the end of a prediction for which its files live: an hour at Replicate (its data retention page), about
ten minutes at BFL (CometAPI's FLUX page). The gateways hand on what their upstream gave and state no life of their own,
so anything that is not at Replicate is taken to live as short as the shortest."""


def iso(seconds: float | None) -> str | None:
    """Return a time since the epoch in UTC, in the form of ISO 8601."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")


def hours_since(seconds: float | None) -> float:
    """Return how many hours ago a time was; 0 if it is not known."""
    return 0.0 if seconds is None else (datetime.now(timezone.utc).timestamp() - seconds) / 3600


def expires_at(prediction: Prediction) -> float | None:
    """Return until when the pictures can be relied on; None if there are none, or nobody said when it ended."""
    if prediction.status is not PredictionStatus.SUCCEEDED or prediction.completed_at is None:
        return None
    hosts = {urlsplit(output).hostname or "" for output in prediction.outputs}
    at_replicate = all(host == "replicate.delivery" or host.endswith(".replicate.delivery") for host in hosts)
    return prediction.completed_at + (LIFE_AT_REPLICATE if at_replicate else SHORTEST_LIFE)
