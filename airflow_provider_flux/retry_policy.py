"""A ready retry policy for Airflow 3.3 and later, which brought retry policies."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import RetryDecision, RetryPolicy

from airflow_provider_flux.exceptions import (
    FluxDeadlineError,
    FluxGatewayError,
    FluxKilledError,
    FluxPredictionFailedError,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

SHORTEST_PAUSE = timedelta(seconds=15)
LONGEST_PAUSE = timedelta(minutes=15)


class FluxRetryPolicy(RetryPolicy):
    """Retry what may pass, after a pause that fits the trouble.

    Errors that will not pass never get here: Airflow fails their tasks at once. A retry costs a new prediction only
    where the last one failed.

    ========================================= ==================================================
    Error                                     Decision
    ========================================= ==================================================
    throttled                                 retry after the time the gateway asked for
    gateway in trouble or out of reach        retry after 15 s, doubling with each try, to 15 min
    prediction failed in a way that may pass  retry after 15 s, doubling with each try, to 15 min
    deadline passed                           as the task says
    ended by a person                         fail
    anything else                             as the task says
    ========================================= ==================================================

    Use it with ``FluxPredictionOperator(..., retries=5, retry_policy=FluxRetryPolicy())``.
    """

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Decide about one failed try."""
        if isinstance(exception, FluxKilledError):
            return RetryDecision.fail("the task was ended by a person, or its worker was stopped")
        if isinstance(exception, FluxDeadlineError):
            return RetryDecision.default()
        if isinstance(exception, FluxGatewayError) and exception.failure.retry_after is not None:
            asked = timedelta(seconds=exception.failure.retry_after)
            return RetryDecision.retry(max(asked, SHORTEST_PAUSE), "the gateway asked for this pause")
        if isinstance(exception, (FluxGatewayError, FluxPredictionFailedError)):
            pause = min(SHORTEST_PAUSE * 2 ** min(try_number - 1, 10), LONGEST_PAUSE)
            return RetryDecision.retry(pause, type(exception).__name__)
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """Return what makes this policy again: it has no settings."""
        return {}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> FluxRetryPolicy:
        """Make the policy again."""
        return cls()
