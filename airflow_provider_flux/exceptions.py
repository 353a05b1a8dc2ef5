"""The errors of the provider.

::

    FluxError                            every error of this package; a task that raises it may be retried
    ├─ FluxConnectionError      *        the connection cannot be used as it is
    ├─ FluxInputError           *        the model would not accept the input; nothing was sent
    ├─ FluxGatewayError                  the gateway did not give what was asked for
    │  ├─ FluxRefusedError      *        and asking again would not help
    │  └─ FluxSubmissionUnknownError *   nobody can know whether a prediction was made
    ├─ FluxPredictionError               the prediction ended without a picture
    │  ├─ FluxPredictionFailedError      it failed; a new one may succeed
    │  ├─ FluxPredictionRejectedError *  it failed; a new one would fail the same way
    │  └─ FluxPredictionCanceledError    it was canceled, or aborted before it began
    ├─ FluxDeadlineError                 the prediction did not end in time
    │  └─ FluxStillRunningError  *       and goes on, with no record by which a retry could find it
    ├─ FluxKilledError                   the task was ended by a person, or its worker was stopped
    ├─ FluxOutputError          *        the output cannot be handed on
    │  └─ FluxOutputExpiredError *       it is already deleted
    ├─ FluxOutputNotStoredError          the output could not be fetched or stored this time; a retry may
    ├─ FluxBatchError                    too many rows of a batch failed; a retry goes on with those left
    │  └─ FluxBatchRefusedError  *       and none of them could do better in a retry
    ├─ FluxOverlapError                  another batch works on the manifest; nothing was sent
    ├─ FluxLeaseLostError                another batch has taken over the manifest; nothing more is sent
    ├─ FluxManifestOwnerError   *        the manifest is another task's; nothing was sent
    ├─ FluxLedgerError                   a batch cannot keep its ledger, so it submits nothing more
    ├─ FluxStorageError                  one of a batch's own files cannot be read or written; also an OSError
    │  └─ FluxManifestMissingError       there is no such manifest; also a FileNotFoundError
    ├─ FluxRecordError          *        a line of one of a batch's own files cannot be read; nothing was sent
    ├─ FluxBudgetError          *        a batch has come to the end of its budget, or cannot keep it
    └─ FluxEventError           *        the triggerer sent something that is not an event of this provider

``*``: also an ``AirflowFailException``, so that Airflow fails the task without using up its retries.
"""

from __future__ import annotations

from datetime import datetime, timezone

from airflow.sdk.exceptions import AirflowException

try:
    from airflow.sdk.exceptions import (
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSensorTimeout,
        TaskDeferralTimeout,
    )
except ImportError:  # Airflow 3.1 keeps them outside the SDK, where newer versions warn about them
    from airflow.exceptions import (  # type: ignore[no-redef,attr-defined]
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSensorTimeout,
        TaskDeferralTimeout,
    )

from airflow_provider_flux.protocol.classify import Failure, Reason, Verdict
from airflow_provider_flux.protocol.fallbacks import Cause, cause_of_refusal
from airflow_provider_flux.protocol.flows import CallFailed
from airflow_provider_flux.protocol.gateways import Gateway
from airflow_provider_flux.protocol.lookup import OutcomeUnknown
from airflow_provider_flux.protocol.storable import storable_text

__all__ = [
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowSensorTimeout",
    "TaskDeferralTimeout",
    "FluxError",
    "FluxConnectionError",
    "FluxInputError",
    "FluxGatewayError",
    "FluxRefusedError",
    "FluxSubmissionUnknownError",
    "FluxPredictionError",
    "FluxPredictionFailedError",
    "FluxPredictionRejectedError",
    "FluxPredictionCanceledError",
    "FluxDeadlineError",
    "FluxStillRunningError",
    "FluxKilledError",
    "FluxOutputError",
    "FluxOutputExpiredError",
    "FluxOutputNotStoredError",
    "FluxBatchError",
    "FluxBatchRefusedError",
    "FluxOverlapError",
    "FluxLeaseLostError",
    "FluxManifestOwnerError",
    "FluxLedgerError",
    "FluxStorageError",
    "FluxManifestMissingError",
    "FluxRecordError",
    "FluxBudgetError",
    "FluxEventError",
    "call_error",
    "gateway_error",
    "submission_unknown_error",
]


class FluxError(AirflowException):
    """Base of every error of this provider. Its text can be logged and stored, whatever it quotes.

    :ivar cause: why there is no picture, where another way to make it may be tried without paying twice.
    """

    cause: Cause | None = None

    def __init__(self, *args: object) -> None:
        super().__init__(*(storable_text(arg) if isinstance(arg, str) else arg for arg in args))


class FluxConnectionError(FluxError, AirflowFailException):
    """The Airflow connection lacks something, or names a host that must not get the key."""


class FluxInputError(FluxError, AirflowFailException):
    """The input was found wrong before anything was sent."""


class FluxGatewayError(FluxError):
    """The gateway did not give what was asked for.

    :param failure: what happened, with the gateway's own words and request id.
    :param is_doubtful: whether an answer came that may be wrong, such as "no such prediction" right after a create.
    """

    def __init__(self, message: str, failure: Failure, *, is_doubtful: bool = False) -> None:
        super().__init__(message)
        self.failure = failure
        self.is_doubtful = is_doubtful


class FluxRefusedError(FluxGatewayError, AirflowFailException):
    """The gateway refused, and would refuse again."""


class FluxSubmissionUnknownError(FluxGatewayError, AirflowFailException):
    """A prediction was asked for, and nobody can know whether it was made and billed."""


class FluxPredictionError(FluxError):
    """A prediction ended without a picture.

    :param prediction_id: which one.
    """

    def __init__(self, message: str, prediction_id: str) -> None:
        super().__init__(message)
        self.prediction_id = prediction_id


class FluxPredictionFailedError(FluxPredictionError):
    """The prediction failed in a way that a new one may not."""


class FluxPredictionRejectedError(FluxPredictionError, AirflowFailException):
    """The prediction failed in a way that a new one with the same input would too, such as refused content."""


class FluxPredictionCanceledError(FluxPredictionError):
    """The prediction was canceled, or aborted before it began."""


class FluxDeadlineError(FluxError):
    """The prediction did not end in time.

    :param prediction_id: which one.
    :param canceled: whether the gateway confirmed that it is canceled; otherwise it may still run and be billed.
    """

    def __init__(self, message: str, prediction_id: str, *, canceled: bool) -> None:
        super().__init__(message)
        self.prediction_id = prediction_id
        self.canceled = canceled
        self.cause = Cause.DEADLINE if canceled else None


class FluxStillRunningError(FluxDeadlineError, AirflowFailException):
    """The prediction did not end in time and goes on, and a retry could not find it but only pay for another."""


class FluxKilledError(FluxError):
    """The task was ended while its prediction was about to be made, or being made."""


class FluxOutputError(FluxError, AirflowFailException):
    """The prediction succeeded, but its output cannot be handed on."""


class FluxOutputExpiredError(FluxOutputError):
    """The prediction succeeded, but the service has already deleted its output."""


class FluxOutputNotStoredError(FluxError):
    """The prediction succeeded, but its output could not be fetched, or not be stored, for a reason that may pass."""


class FluxBatchError(FluxError):
    """Too many rows of a batch failed. What is done is kept; a retry goes on with the others."""


class FluxBatchRefusedError(FluxBatchError, AirflowFailException):
    """Too many rows of a batch failed, all of them in ways in which they would fail again."""


class FluxOverlapError(FluxError):
    """Another batch works on the manifest, and was not to be waited for. Nothing was sent; a retry may find it done."""


class FluxLeaseLostError(FluxError):
    """Another batch has taken over the manifest, for example because this one's worker stood still. It sends nothing
    more; a retry waits for the other one, and goes on from what it has made.
    """


class FluxManifestOwnerError(FluxError, AirflowFailException):
    """The manifest is another task's, whose memory of what is paid for would be lost. Nothing was sent."""


class FluxLedgerError(FluxError):
    """A batch cannot write down what it submits, so it submits nothing more. A retry goes on from there."""


class FluxStorageError(FluxError, OSError):
    """One of a batch's own files cannot be read or written for a reason that may pass: a full disk, no permission, a
    bucket that is gone. What is paid for is kept as far as it could be written; a retry goes on from there.
    """


class FluxManifestMissingError(FluxStorageError, FileNotFoundError):
    """There is no such manifest. Its task may not have ended yet."""


class FluxRecordError(FluxError, AirflowFailException):
    """A line of one of a batch's own files cannot be read, and may tell of what was paid for. Nothing was sent; a
    person has to put the file right.
    """


class FluxBudgetError(FluxError, AirflowFailException):
    """A batch has come to the end of its budget, or cannot keep it because a price is not known."""


class FluxEventError(FluxError, AirflowFailException):
    """The task was resumed with something that is not an event of this provider's trigger."""


_ADVICE = {
    Reason.KEY: "Check the key in the connection's password field.",
    Reason.CREDIT: "Top up the account, or use a key with credit left.",
    Reason.FORBIDDEN: "The key may not do this; check its permissions at the gateway.",
    Reason.INPUT: "Change the input; the same one would be refused again.",
    Reason.CONTENT: "The content was refused; change the prompt or the pictures.",
    Reason.MODEL: "The gateway does not sell this model to this key; choose another model or gateway.",
    Reason.NOT_FOUND: "Check the id, and that the connection belongs to the account that made the prediction.",
    Reason.WRONG_URL: "Wrong base URL: check the connection's host and path prefix.",
    Reason.CERTIFICATE: "The host's certificate is not trusted; set ca_file in the connection's extra if it is yours.",
    Reason.SETTING: "Nothing was sent: put the setting right, then try again.",
    Reason.RATE_LIMITED: "Too many requests: run fewer at once, or raise the limit at the gateway.",
    Reason.OUTAGE: "The gateway has trouble; try again later.",
    Reason.NETWORK: "The gateway cannot be reached; check the network and the connection's host.",
    Reason.MALFORMED: "Check that the connection's host is a Replicate-compatible gateway.",
}


def gateway_error(gateway: str, failure: Failure, verdict: Verdict, *, about: str = "") -> FluxGatewayError:
    """Turn a failed call into the error that a task raises.

    :param gateway: the gateway's name.
    :param verdict: what the failure means.
    :param about: what the call was about, such as ``prediction abc``.
    """
    subject = f" ({about})" if about else ""
    message = f"{gateway}: {failure}{subject}. {_ADVICE[failure.reason]}"
    error_type = FluxRefusedError if verdict is Verdict.REFUSED else FluxGatewayError
    return error_type(message, failure, is_doubtful=verdict is Verdict.DOUBTFUL)


def call_error(gateway: Gateway, failed: CallFailed, *, about: str, model: str = "") -> FluxGatewayError:
    """Turn a failed flow into the error that a task raises, a create of unknown outcome included.

    :param about: what the call was about, such as ``prediction abc``.
    :param model: what was asked for, where it was a create.
    """
    if isinstance(failed, OutcomeUnknown):
        return submission_unknown_error(gateway, failed, model=model)
    error = gateway_error(gateway.preset.label, failed.failure, failed.verdict, about=about)
    error.cause = cause_of_refusal(failed)
    return error


def submission_unknown_error(gateway: Gateway, unknown: OutcomeUnknown, *, model: str) -> FluxSubmissionUnknownError:
    """Build the error for a create whose outcome nobody can know."""
    can_list = gateway.preset.lists_predictions
    moment = datetime.fromtimestamp(unknown.sent_at, timezone.utc).isoformat(timespec="seconds")
    if unknown.candidates:
        searched = f" It could be any of {', '.join(unknown.candidates)}."
    elif can_list:
        searched = " The gateway's list of predictions did not settle it."
    else:
        searched = " The gateway has no list of predictions to look it up in."
    risk = "" if can_list or unknown.resent else ' on_unknown_submission="resubmit" always takes that risk.'
    resent = "It was the second one in a row, as on_unknown_submission says. " if unknown.resent else ""
    return FluxSubmissionUnknownError(
        f"{gateway.preset.label}: {unknown.failure}. The request for a prediction of {model} sent at {moment} may have "
        f"been accepted and billed, so it is not sent again. {resent}{searched.strip()} Look at the usage log in the "
        "gateway's console at that time: if no prediction was made, clear this task to make one; if one was made, "
        f"clearing pays for a second.{risk}",
        unknown.failure,
    )
