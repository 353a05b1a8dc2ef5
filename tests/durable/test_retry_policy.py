"""The ready retry policy."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_flux.exceptions import (
    FluxDeadlineError,
    FluxError,
    FluxGatewayError,
    FluxKilledError,
    FluxPredictionFailedError,
    gateway_error,
)
from airflow_provider_flux.protocol.classify import Failure, Reason, Verdict

definitions = pytest.importorskip(
    "airflow.sdk.definitions.retry_policy", reason="retry policies came with Airflow 3.3; run it there"
)


def throttled(seconds: float | None) -> FluxGatewayError:
    return gateway_error(
        "DeerAPI", Failure(Reason.RATE_LIMITED, "slow down", "POST /x", 429, retry_after=seconds), Verdict.RETRY
    )


OUTAGE = gateway_error("DeerAPI", Failure(Reason.OUTAGE, "down", "POST /x", 503), Verdict.RETRY)
FAILED = FluxPredictionFailedError("failed", "p")


@pytest.mark.parametrize(
    ("error", "try_number", "action", "pause"),
    [
        (throttled(90), 1, "RETRY", 90),
        (throttled(1), 1, "RETRY", 15),
        (throttled(None), 1, "RETRY", 15),
        (OUTAGE, 1, "RETRY", 15),
        (OUTAGE, 3, "RETRY", 60),
        (OUTAGE, 50, "RETRY", 900),
        (FAILED, 2, "RETRY", 30),
        (FluxDeadlineError("late", "p", canceled=True), 1, "DEFAULT", None),
        (FluxKilledError("ended"), 1, "FAIL", None),
        (FluxError("other"), 1, "DEFAULT", None),
        (ValueError("not ours"), 1, "DEFAULT", None),
    ],
)
def test_the_table_of_the_policy_holds(error: Exception, try_number: int, action: str, pause: float | None) -> None:
    from airflow_provider_flux.retry_policy import FluxRetryPolicy

    decision = FluxRetryPolicy().evaluate(error, try_number, 5)
    assert decision.action is definitions.RetryAction[action]
    assert decision.retry_delay == (None if pause is None else timedelta(seconds=pause))


def test_the_policy_survives_being_stored() -> None:
    from airflow_provider_flux.retry_policy import FluxRetryPolicy

    policy = FluxRetryPolicy()
    assert isinstance(FluxRetryPolicy.deserialize(policy.serialize()), FluxRetryPolicy)
