"""Canceling a prediction that nobody waits for any more, or that has not ended in time."""

from __future__ import annotations

from airflow_provider_flux.client.connection import GatewayAccess
from airflow_provider_flux.protocol.cancellation import KILL_PATIENCE, Cancellation, cancel, give_up
from airflow_provider_flux.protocol.flows import Conversation
from airflow_provider_flux.protocol.messages import Log
from airflow_provider_flux.protocol.prediction import Prediction


def cancel_prediction(access: GatewayAccess, prediction_id: str, log: Log) -> Cancellation:
    """Try to cancel a prediction of a task that is being ended. Never raises for what the gateway does.

    Uses a session of its own and no look-up of the connection, so that it is safe inside a signal handler.
    """
    # An HTTP library is not imported where a DAG is only parsed.
    from airflow_provider_flux.client.sync import run

    return run(cancel(Conversation(access.gateway, log), prediction_id, patience=KILL_PATIENCE), access)


def give_up_prediction(access: GatewayAccess, prediction_id: str, log: Log, *, cancels: bool) -> Prediction:
    """End the wait for a prediction at its deadline. Return it only if it has succeeded meanwhile.

    :param cancels: whether to cancel it.
    :raises NotInTime: in any other case, saying what came of canceling it.
    """
    from airflow_provider_flux.client.sync import run

    return run(give_up(Conversation(access.gateway, log), prediction_id, cancels=cancels), access)
