"""What the hook checks free of charge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from airflow_provider_flux.exceptions import FluxInputError
from airflow_provider_flux.protocol.classify import Failure, Reason
from airflow_provider_flux.protocol.storable import find_unstorable

TEST_PREDICTION_ID = "flux-connection-test"
"""An id that no prediction has."""

WEBHOOK_EVENTS = ("start", "output", "logs", "completed")


def explain_test(failure: Failure, gateway_name: str, origin: str) -> tuple[bool, str]:
    """Tell what a failed test of a connection means: whether it works all the same, and what to tell the person."""
    if failure.request.endswith(TEST_PREDICTION_ID) and _knows_no_prediction(failure):
        return True, f"{gateway_name} at {origin} accepts the key."
    if failure.reason is Reason.KEY:
        return False, f"{origin} answers, but refuses the key: {failure.message}"
    if failure.reason in (Reason.WRONG_URL, Reason.NOT_FOUND, Reason.MALFORMED):
        return False, f"{origin} answers, but not as a gateway; the URL is wrong: {failure}"
    if failure.reason in (Reason.NETWORK, Reason.CERTIFICATE, Reason.SETTING):
        return False, f"{origin} cannot be reached: {failure.message}"
    return False, f"{origin}: {failure}"


def check_webhook(url: str | None, events: Sequence[str] | None) -> None:
    """Refuse an address that cannot be sent, and events that nobody sends.

    :raises FluxInputError: naming the first of them.
    """
    for problem in find_unstorable(url, "webhook"):
        raise FluxInputError(f"{problem}. Nothing was sent.")
    if events is None:
        return
    listed = isinstance(events, Iterable) and not isinstance(events, (str, Mapping))
    wrong = [event for event in events if event not in WEBHOOK_EVENTS] if listed else [events]
    if wrong:
        raise FluxInputError(
            f"webhook_events_filter: {wrong[0]!r} is not allowed; give a list of {', '.join(WEBHOOK_EVENTS)}. "
            "Nothing was sent."
        )


def _knows_no_prediction(failure: Failure) -> bool:
    """Tell "no such prediction" from "no such page", which web servers say in a few words of their own."""
    said = failure.message.strip(" .").lower()
    return failure.reason is Reason.NOT_FOUND and said not in _NO_SUCH_PAGE


_NO_SUCH_PAGE = {"not found", "404 page not found", "404 not found", "404: not found", "(no text)"}
