"""What a reply means for the next step: go on, ask again, give up, or stop because nobody can know.

================================================ ================== ========================
Reply                                            create             everything else
================================================ ================== ========================
2xx with JSON                                    ok                 ok
2xx that says an error                           as its code says   as its code says
2xx that is cut off or not JSON                  unknown            doubtful
connection never made                            retry              retry
certificate not trusted                          refused            refused
proxy or certificate file that cannot be used    refused            refused
connection lost or silent after it was made      unknown            retry
429                                              retry              retry
500 ``invalid_request``, 503 ``model_not_found`` refused            retry
other 5xx                                        unknown            retry
408, 425                                         unknown            retry
409                                              refused            retry
404, ``task_not_exist``                          refused            doubtful
402, 403, quota codes                            refused            doubtful for a prediction
other 4xx, content codes                         refused            refused
redirect                                         refused            refused
HTML below 500                                   refused            doubtful
================================================ ================== ========================

*Doubtful* responses are accepted a few times in a row: a prediction can be unknown for a moment after it was made,
and a proxy can answer with a page of its own for a moment. *Unknown* exists for a create only: the prediction may
exist and be billed, and no gateway offers a key to find it by, so nothing is sent again.

The codes are CometAPI's (error code and retry pages) and new-api's (types/error.go).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum

from airflow_provider_flux.protocol.error_bodies import (
    NAME_LIMIT,
    kinds_of,
    message_and_code,
    says_error,
    sketch,
    told_status,
    wait_asked_for,
)
from airflow_provider_flux.protocol.messages import JSON, Delivery, Purpose, Reply, Request, Response
from airflow_provider_flux.protocol.prediction import Absent
from airflow_provider_flux.protocol.storable import loads

TEXT_LIMIT = 500
"""How many characters of a gateway's text are kept in an error."""
READ_LIMIT = 4 * TEXT_LIMIT
"""How many are looked at: a text of megabytes would hold up the triggerer's loop."""


class Verdict(Enum):
    """What a problem means for the next step."""

    RETRY = "retry"
    DOUBTFUL = "doubtful"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Reason(str, Enum):
    """Why a call failed, in terms of what the reader can do about it."""

    KEY = "key"
    CREDIT = "credit"
    FORBIDDEN = "forbidden"
    INPUT = "input"
    CONTENT = "content"
    MODEL = "model"
    NOT_FOUND = "not_found"
    WRONG_URL = "wrong_url"
    CERTIFICATE = "certificate"
    SETTING = "setting"
    RATE_LIMITED = "rate_limited"
    OUTAGE = "outage"
    NETWORK = "network"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that did not give what it was made for.

    :param reason: what kind of failure it is.
    :param message: the gateway's own words, shortened, or what the network did.
    :param request: which call it was.
    :param status: the HTTP code; None where there was no answer.
    :param code: the gateway's error code; empty if none.
    :param request_id: what the gateway's support asks for; empty if none.
    :param retry_after: seconds that the gateway asked to wait; None if it did not say.
    """

    reason: Reason
    message: str
    request: str
    status: int | None = None
    code: str = ""
    request_id: str = ""
    retry_after: float | None = None

    def __str__(self) -> str:
        status = f"HTTP {self.status}" if self.status is not None else self.reason.value.replace("_", " ")
        code = f" {self.code}" if self.code else ""
        request_id = f" (request id {self.request_id})" if self.request_id else ""
        return f"{self.request}: {status}{code}: {self.message}{request_id}"


@dataclass(frozen=True, slots=True)
class Success:
    """An answer that gives what was asked for."""

    payload: JSON


@dataclass(frozen=True, slots=True)
class Problem:
    """A reply that does not."""

    verdict: Verdict
    failure: Failure

    @property
    def retry_after(self) -> float | None:
        """Seconds that the gateway asked to wait; None if it did not say."""
        return self.failure.retry_after


_REASON_OF_STATUS = {
    400: Reason.INPUT,
    401: Reason.KEY,
    402: Reason.CREDIT,
    403: Reason.FORBIDDEN,
    404: Reason.NOT_FOUND,
    407: Reason.SETTING,
    409: Reason.OUTAGE,
    413: Reason.INPUT,
    422: Reason.INPUT,
    429: Reason.RATE_LIMITED,
}

_REASON_OF_CODE = {
    "invalid_request": Reason.INPUT,
    "convert_request_failed": Reason.INPUT,
    "bad_request_body": Reason.INPUT,
    "model_not_found": Reason.MODEL,
    "insufficient_user_quota": Reason.CREDIT,
    "pre_consume_token_quota_failed": Reason.CREDIT,
    "insufficient_quota": Reason.CREDIT,
    "insufficient_balance": Reason.CREDIT,
    "quota_not_enough": Reason.CREDIT,
    "access_denied": Reason.FORBIDDEN,
    "permission_denied": Reason.FORBIDDEN,
    "invalid_api_key": Reason.KEY,
    "invalid_token": Reason.KEY,
    "rate_limit_exceeded": Reason.RATE_LIMITED,
    "prompt_blocked": Reason.CONTENT,
    "sensitive_words_detected": Reason.CONTENT,
    "task_not_exist": Reason.NOT_FOUND,
}
"""Codes that say more than the HTTP code beside them: each means that nothing was made."""

_PASSING_STATUSES = frozenset({408, 409, 425, 429})


def classify(request: Request, reply: Reply) -> Success | Problem:
    """Decide what a reply means for the request that caused it."""
    if isinstance(reply, Response):
        return _classify_answer(request, reply)
    failure = Failure(_transport_reason(reply.delivery), reply.message, str(request))
    if reply.delivery in (Delivery.UNTRUSTED, Delivery.UNUSABLE):
        return Problem(Verdict.REFUSED, failure)
    in_doubt = reply.delivery is Delivery.IN_DOUBT and request.purpose is Purpose.CREATE
    return Problem(Verdict.UNKNOWN if in_doubt else Verdict.RETRY, failure)


def malformed(request: Request, payload: JSON) -> Problem:
    """Judge good JSON that is not what was asked for."""
    text = json.dumps(sketch(payload), ensure_ascii=False)
    failure = Failure(Reason.MALFORMED, f"not a prediction: {shorten(text)}", str(request))
    return Problem(_when_unclear(request), failure)


def absent(request: Request, what: Absent, payload: JSON) -> Problem:
    """Judge a good answer that does not tell of the prediction that was asked for."""
    if what is Absent.NOT_A_PREDICTION:
        return malformed(request, payload)
    if what is Absent.ANOTHER:
        failure = Failure(Reason.MALFORMED, "the answer is about another prediction", str(request))
    else:
        failure = Failure(Reason.NOT_FOUND, "the gateway knows no such prediction", str(request))
    return Problem(_when_unclear(request), failure)


def shorten(text: str, limit: int = TEXT_LIMIT) -> str:
    """Fold white space and cut a text to a length that fits into a log line."""
    folded = " ".join(text.split())
    return folded if len(folded) <= limit else f"{folded[: limit - 1]}…"


def is_content_refusal(text: str) -> bool:
    """Tell whether a failure is a refusal of the content, which the same input meets every time.

    The texts are Replicate's (error code page), cog-flux's (predict.py), BFL's statuses and new-api's codes.
    """
    return _CONTENT_REFUSAL.search(text) is not None


def can_pass(error: str) -> bool:
    """Tell whether a new prediction with the same input may succeed where one failed with this text.

    Failures are taken to pass unless their text says otherwise: out of memory (E1001) and an empty webhook URL
    (E4875) do not (Replicate's error code page), nor does refused content.
    """
    return not is_content_refusal(error) and _LASTING_FAILURE.search(error) is None


_CONTENT_REFUSAL = re.compile(
    r"\bE005\b|NSFW|flagged as sensitive|content moderated|request moderated|prompt_blocked"
    r"|sensitive_words_detected|content_policy_violation|moderation_blocked|content_filter",
    re.IGNORECASE,
)
_LASTING_FAILURE = re.compile(r"\b(E1001|E4875)\b")
_REQUEST_ID = re.compile(r"\(?request[ _-]id:? ?([\w-]{4,})\)?", re.IGNORECASE)


def _classify_answer(request: Request, answer: Response) -> Success | Problem:
    if 300 <= answer.status < 400:
        where = shorten(answer.headers.get("location", "elsewhere").partition("?")[0], 200)
        message = f"redirected to {where}; an API does not redirect"
        return Problem(Verdict.REFUSED, Failure(Reason.WRONG_URL, message, str(request), answer.status))
    payload = _decode(answer)
    if answer.status < 300:
        return _classify_success(request, answer, payload)
    return _classify_error(request, answer, payload)


def _classify_success(request: Request, answer: Response, payload: JSON) -> Success | Problem:
    if payload is _NOT_JSON:
        if _is_html(answer):
            return _classify_html(request, answer)
        message = f"the answer is not whole JSON: {shorten(_body_text(answer)) or '(empty)'}"
        failure = Failure(Reason.MALFORMED, message, str(request), answer.status)
        return Problem(_when_unclear(request), failure)
    if says_error(payload, _REASON_OF_CODE):
        failure = _failure(request, answer, payload)
        return Problem(_verdict_on_error(request, told_status(payload) or answer.status, failure.reason), failure)
    return Success(payload)


def _classify_error(request: Request, answer: Response, payload: JSON) -> Success | Problem:
    passing = answer.status >= 500 or answer.status in _PASSING_STATUSES
    if payload is _NOT_JSON and not passing and _is_html(answer):
        return _classify_html(request, answer)
    failure = _failure(request, answer, payload)
    verdict = _verdict_on_error(request, answer.status, failure.reason)
    return Problem(verdict, failure)


def _verdict_on_error(request: Request, status: int, reason: Reason) -> Verdict:
    if reason is Reason.RATE_LIMITED:
        return Verdict.RETRY
    if request.purpose is Purpose.CREATE:
        in_doubt = reason is Reason.OUTAGE and status != 409
        return Verdict.UNKNOWN if in_doubt else Verdict.REFUSED
    # What a distributor says of models and quotas does not touch a prediction that runs already.
    if reason is Reason.OUTAGE or status >= 500:
        return Verdict.RETRY
    asks_for_prediction = request.purpose is Purpose.GET
    if reason is Reason.NOT_FOUND or (asks_for_prediction and reason in (Reason.FORBIDDEN, Reason.CREDIT)):
        return Verdict.DOUBTFUL
    return Verdict.REFUSED


def _classify_html(request: Request, answer: Response) -> Success | Problem:
    message = f"an HTML page came instead of JSON: {shorten(_page_title(answer), 120)}"
    failure = Failure(Reason.WRONG_URL, message, str(request), answer.status)
    verdict = Verdict.REFUSED if request.purpose is Purpose.CREATE else Verdict.DOUBTFUL
    return Problem(verdict, failure)


def _when_unclear(request: Request) -> Verdict:
    return Verdict.UNKNOWN if request.purpose is Purpose.CREATE else Verdict.DOUBTFUL


def _transport_reason(delivery: Delivery) -> Reason:
    return {Delivery.UNTRUSTED: Reason.CERTIFICATE, Delivery.UNUSABLE: Reason.SETTING}.get(delivery, Reason.NETWORK)


def _failure(request: Request, answer: Response, payload: JSON) -> Failure:
    message, code = message_and_code(payload, _REASON_OF_CODE)
    message = message[:READ_LIMIT]
    if not message:
        message = shorten(_page_title(answer) if _is_html(answer) else _body_text(answer)) or "(no text)"
    found = _REQUEST_ID.search(message)
    request_id = found[1] if found else answer.headers.get("x-request-id", "")
    status = answer.status if answer.status >= 400 else told_status(payload) or answer.status
    return Failure(
        _reason(status, code, f"{kinds_of(payload)} {message}"),
        shorten(_REQUEST_ID.sub("", message)),
        str(request),
        answer.status,
        shorten(code, NAME_LIMIT),
        shorten(request_id, NAME_LIMIT),
        wait_asked_for(answer.headers.get("retry-after"), payload, _body_text(answer)),
    )


def _reason(status: int, code: str, message: str) -> Reason:
    if is_content_refusal(f"{code} {message}"):
        return Reason.CONTENT
    if status == 403 and "not authenticated" in message.lower():
        # BFL's word for a wrong key, and for none (its skills repository).
        return Reason.KEY
    known = _REASON_OF_CODE.get(code) or _REASON_OF_STATUS.get(status)
    if known is not None:
        return known
    if status in _PASSING_STATUSES or status >= 500 or status < 300:
        return Reason.OUTAGE
    return Reason.INPUT


_NOT_JSON = object()


def _decode(answer: Response) -> JSON:
    try:
        return loads(answer.body)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _body_text(answer: Response) -> str:
    return answer.body[:READ_LIMIT].decode("utf-8", "replace")


def _is_html(answer: Response) -> bool:
    start = answer.body[:200].lstrip().lower()
    return answer.content_type == "text/html" or start.startswith((b"<!doctype", b"<html"))


def _page_title(answer: Response) -> str:
    title = re.search(r"<title[^>]*>(.*?)</title>", _body_text(answer), re.IGNORECASE | re.DOTALL)
    return title[1] if title else "no title"
