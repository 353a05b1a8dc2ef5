"""Canceling a prediction that nobody waits for any more."""

from __future__ import annotations

from airflow_provider_flux.access import GatewayAccess
from airflow_provider_flux.protocol.cancellation import KILL_PATIENCE, Cancellation, cancel
from airflow_provider_flux.protocol.flows import Conversation
from airflow_provider_flux.protocol.wire import Log


def cancel_prediction(access: GatewayAccess, prediction_id: str, log: Log) -> Cancellation:
    """Try to cancel a prediction of a task that is being ended. Never raises for what the gateway does.

    Uses a session of its own and no look-up of the connection, so that it is safe inside a signal handler.
    """
    # An HTTP library is not imported where a DAG is only parsed.
    from airflow_provider_flux.client.sync import run

    return run(cancel(Conversation(access.gateway, log), prediction_id, patience=KILL_PATIENCE), access)
