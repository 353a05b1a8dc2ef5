"""What a reply means for the next step."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_flux.protocol.gateways import choose_gateway
from airflow_provider_flux.protocol.verdicts import (
    NAME_LIMIT,
    TEXT_LIMIT,
    Good,
    Reason,
    Trouble,
    Verdict,
    can_pass,
    is_content_refusal,
    judge,
    malformed,
    not_found,
    shorten,
)
from airflow_provider_flux.protocol.wire import Answer, Delivery, Reply, Request, TransportFailure
from tests.protocol.recorded import COMETAPI_CREATE, REPLICATE_UNAUTHENTICATED
from tests.protocol.scripted import (
    IN_DOUBT,
    NOT_SENT,
    SUCCEEDED,
    TASK_NOT_EXIST,
    UNTRUSTED,
    answer,
    create_request,
    html,
    told,
)

GATEWAY = choose_gateway("https://api.replicate.com")
CREATE = create_request()
GET = GATEWAY.get("abc")
CANCEL = GATEWAY.cancel("abc")
LIST = GATEWAY.list()
READ = GATEWAY.read("/v1/account")
FREE = [GET, CANCEL, LIST, READ]

OK = "ok"
RETRY, DOUBTFUL, REFUSED, UNKNOWN = Verdict.RETRY, Verdict.DOUBTFUL, Verdict.REFUSED, Verdict.UNKNOWN

ROW_RETRIED = "POST: connection never made, or 429"
ROW_UNKNOWN = "POST: read timeout, reset, 5xx after sending"
ROW_PERMANENT = "POST: 503 `model_not_found`, 500 `invalid_request`, 400/401/402/403/404/413/422"
ROW_BORNE = "GET: 429, 5xx, timeouts, resets, HTML"
ROW_NOT_YET = "GET: 404 or `task_not_exist` right after create"
ROW_WRONG_URL = "redirect from the API, HTML where JSON is due"
ROW_SHAPE = "response of the wrong shape, bare prediction, task envelope, BFL shape"


def error(message: str, code: str | None = "", status: int = 400, **headers: str) -> Answer:
    """Make the gateways' usual error."""
    body = {"error": {"message": message, "type": "comet_api_error", "param": "", "code": code}}
    return answer(status, body, **headers)


def task_error(code: str, status: int, message: str = "") -> Answer:
    """Make the error of new-api's task routes."""
    return answer(status, {"code": code, "message": message or code, "data": None})


def verdict(request: Request, reply: Reply) -> object:
    judged = judge(request, reply)
    return judged.verdict if isinstance(judged, Trouble) else OK


def trouble(request: Request, reply: Reply) -> Trouble:
    judged = judge(request, reply)
    assert isinstance(judged, Trouble)
    return judged


TABLE: list[tuple[str, str, Reply, object, object]] = [
    ("2xx with JSON", "`succeeded`", SUCCEEDED, OK, OK),
    ("2xx with JSON", "200", answer(200, COMETAPI_CREATE), OK, OK),
    ("2xx with JSON", "201", answer(201, COMETAPI_CREATE), OK, OK),
    ("2xx with JSON", "202", answer(202, COMETAPI_CREATE), OK, OK),
    ("2xx with JSON", "a failed prediction is an answer", told("failed", error="NSFW content"), OK, OK),
    ("2xx with JSON", "labelled as HTML", answer(200, COMETAPI_CREATE, content_type="text/html"), OK, OK),
    ("2xx that says an error", "passing", error("upstream is busy", status=200), REFUSED, RETRY),
    ("2xx that says an error", "flat", task_error("fail_to_fetch_task", 200), REFUSED, RETRY),
    ("2xx that says an error", "text", answer(200, {"error": "busy"}), REFUSED, RETRY),
    ("2xx that says an error", "invalid_request", error("no prompt", "invalid_request", 200), REFUSED, REFUSED),
    ("2xx that says an error", "quota", task_error("insufficient_user_quota", 200), REFUSED, REFUSED),
    ("2xx that says an error", ROW_NOT_YET, error("no such task", "task_not_exist", 200), REFUSED, DOUBTFUL),
    ("2xx that is cut off or not JSON", ROW_SHAPE, answer(200, b'{"id": "abc", "sta'), UNKNOWN, DOUBTFUL),
    ("2xx that is cut off or not JSON", "empty", answer(200, b""), UNKNOWN, DOUBTFUL),
    ("2xx that is cut off or not JSON", "text", answer(200, "OK", content_type="text/plain"), UNKNOWN, DOUBTFUL),
    ("2xx that is cut off or not JSON", "not UTF-8", answer(200, b'{"id": "\xff"}'), UNKNOWN, DOUBTFUL),
    ("2xx that is cut off or not JSON", "too deep", answer(200, b"[" * 200_000), UNKNOWN, DOUBTFUL),
    ("connection never made", ROW_RETRIED, NOT_SENT, RETRY, RETRY),
    ("certificate not trusted", "TLS", UNTRUSTED, REFUSED, REFUSED),
    ("connection lost or silent after it was made", ROW_UNKNOWN, IN_DOUBT, UNKNOWN, RETRY),
    ("429", ROW_RETRIED, error("slow down", status=429), RETRY, RETRY),
    ("429", ROW_BORNE, html(429), RETRY, RETRY),
    ("429", "empty", answer(429, b""), RETRY, RETRY),
    ("quota and content codes", ROW_PERMANENT, error("no prompt", "invalid_request", 500), REFUSED, REFUSED),
    ("quota and content codes", ROW_PERMANENT, error("no channel", "model_not_found", 503), REFUSED, REFUSED),
    ("quota and content codes", "quota at 429", error("top up", "insufficient_user_quota", 429), REFUSED, REFUSED),
    ("quota and content codes", "quota at 500", task_error("pre_consume_token_quota_failed", 500), REFUSED, REFUSED),
    ("quota and content codes", "prompt", task_error("prompt_blocked", 500), REFUSED, REFUSED),
    *(
        ("other 5xx", row, error("trouble", status=status), UNKNOWN, RETRY)
        for row in (ROW_UNKNOWN, ROW_BORNE)
        for status in (500, 502, 503, 504, 524, 529, 599)
    ),
    ("other 5xx", ROW_BORNE, html(502, "502 Bad Gateway"), UNKNOWN, RETRY),
    ("other 5xx", ROW_UNKNOWN, answer(504, b""), UNKNOWN, RETRY),
    ("other 5xx", ROW_UNKNOWN, task_error("do_request_failed", 500), UNKNOWN, RETRY),
    ("other 5xx", ROW_UNKNOWN, task_error("get_channel_failed", 503), UNKNOWN, RETRY),
    ("other 5xx", ROW_UNKNOWN, task_error("channel:response_time_exceeded", 500), UNKNOWN, RETRY),
    ("408, 409, 425", ROW_UNKNOWN, error("timeout", status=408), UNKNOWN, RETRY),
    ("408, 409, 425", ROW_UNKNOWN, html(408), UNKNOWN, RETRY),
    ("408, 409, 425", "409", error("conflict", status=409), REFUSED, RETRY),
    ("408, 409, 425", "425", error("too early", status=425), UNKNOWN, RETRY),
    ("404, `task_not_exist`", ROW_NOT_YET, answer(404, {"detail": "not found", "status": 404}), REFUSED, DOUBTFUL),
    ("404, `task_not_exist`", ROW_NOT_YET, TASK_NOT_EXIST, REFUSED, DOUBTFUL),
    *(
        ("other 4xx", ROW_PERMANENT, error("no", status=status), REFUSED, REFUSED)
        for status in (400, 401, 402, 403, 405, 410, 413, 415, 422, 451)
    ),
    ("404, `task_not_exist`", ROW_PERMANENT, error("no", status=404), REFUSED, DOUBTFUL),
    *(
        ("redirect", ROW_WRONG_URL, answer(status, b"", location="https://www.example/login?to=x"), REFUSED, REFUSED)
        for status in (301, 302, 303, 307, 308)
    ),
    ("HTML below 500", ROW_WRONG_URL, html(200), REFUSED, DOUBTFUL),
    ("HTML below 500", ROW_BORNE, html(403, "Attention Required"), REFUSED, DOUBTFUL),
    ("HTML below 500", ROW_WRONG_URL, html(404), REFUSED, DOUBTFUL),
    ("HTML below 500", "unlabelled", answer(200, b"\n <html>", content_type="text/plain"), REFUSED, DOUBTFUL),
]


def name_of(row: tuple[str, str, Reply, object, object]) -> str:
    reply = row[2]
    return f"{row[0]} | {row[1]} | {reply.status if isinstance(reply, Answer) else reply.delivery.value}"


@pytest.mark.parametrize(("reply", "create", "_free"), [row[2:] for row in TABLE], ids=map(name_of, TABLE))
def test_a_reply_to_a_create_means_what_the_table_says(reply: Reply, create: object, _free: object) -> None:
    assert verdict(CREATE, reply) == create


@pytest.mark.parametrize("request_", FREE, ids=lambda request: request.purpose.value)
@pytest.mark.parametrize(("reply", "_create", "free"), [row[2:] for row in TABLE], ids=map(name_of, TABLE))
def test_a_reply_to_anything_free_means_what_the_table_says(
    request_: Request, reply: Reply, _create: object, free: object
) -> None:
    assert verdict(request_, reply) == free


def test_json_that_is_no_prediction_leaves_a_create_unknown() -> None:
    """response of the wrong shape, bare prediction, task envelope, BFL shape"""
    payload = {"hello": "x" * 10_000}
    assert malformed(CREATE, payload).verdict is UNKNOWN
    assert malformed(GET, payload).verdict is DOUBTFUL
    assert malformed(GET, payload).failure.reason is Reason.MALFORMED
    assert len(malformed(GET, payload).failure.message) < TEXT_LIMIT + 50


def test_a_prediction_that_is_not_there_yet_is_doubtful() -> None:
    """GET: 404 or `task_not_exist` right after create"""
    assert not_found(GET).verdict is DOUBTFUL
    assert not_found(GET).failure.reason is Reason.NOT_FOUND
    assert not_found(CREATE).verdict is UNKNOWN


UPSTREAM_422 = json.dumps({"title": "Input validation failed", "detail": "- input.prompt is required", "status": 422})
BFL_422 = {"detail": [{"loc": ["body", "steps"], "msg": "ensure this value is at most 50", "type": "value_error"}]}


@pytest.mark.parametrize(
    ("reply", "reason", "code", "message"),
    [
        (error("model name is required"), Reason.INPUT, "", "model name is required"),
        (error("bad key", "", 401), Reason.KEY, "", "bad key"),
        (error("top up", None, 402), Reason.CREDIT, "", "top up"),
        (error("not you", "permission_denied", 403), Reason.FORBIDDEN, "permission_denied", "not you"),
        (error("not you", "access_denied", 500), Reason.FORBIDDEN, "access_denied", "not you"),
        (
            error("no available channel", "model_not_found", 503),
            Reason.MODEL,
            "model_not_found",
            "no available channel",
        ),
        (
            error("field messages is required", "invalid_request", 500),
            Reason.INPUT,
            "invalid_request",
            "field messages is required",
        ),
        (
            error("quota", "insufficient_user_quota", 403),
            Reason.CREDIT,
            "insufficient_user_quota",
            "quota",
        ),
        (error("bad words", "sensitive_words_detected"), Reason.CONTENT, "sensitive_words_detected", "bad words"),
        (task_error("fail_to_fetch_task", 422, UPSTREAM_422), Reason.INPUT, "fail_to_fetch_task", UPSTREAM_422),
        (TASK_NOT_EXIST, Reason.NOT_FOUND, "task_not_exist", "task_not_exist"),
        (
            answer(401, REPLICATE_UNAUTHENTICATED, content_type="application/problem+json"),
            Reason.KEY,
            "",
            "Unauthenticated: You did not pass a valid authentication token",
        ),
        (answer(404, {"detail": "gone", "status": 404}), Reason.NOT_FOUND, "", "gone"),
        (answer(413, {"detail": "too large", "status": 413}), Reason.INPUT, "", "too large"),
        (answer(422, BFL_422), Reason.INPUT, "", json.dumps(BFL_422["detail"])),
        (answer(400, {"error": "plain words"}), Reason.INPUT, "", "plain words"),
        (answer(400, [1, 2]), Reason.INPUT, "", "[1, 2]"),
        (answer(400, "no JSON", content_type="text/plain"), Reason.INPUT, "", "no JSON"),
        (answer(400, b""), Reason.INPUT, "", "(no text)"),
        (error("", status=500), Reason.OUTAGE, "", None),
        (html(502, "502 Bad\n  Gateway"), Reason.OUTAGE, "", "502 Bad Gateway"),
        (html(200, "Welcome"), Reason.WRONG_URL, "", "an HTML page came instead of JSON: Welcome"),
        (html(404, ""), Reason.WRONG_URL, "", "an HTML page came instead of JSON: "),
        (
            answer(301, b"", location="https://www.example/login?key=secret"),
            Reason.WRONG_URL,
            "",
            "redirected to https://www.example/login; an API does not redirect",
        ),
        (answer(302, b""), Reason.WRONG_URL, "", "redirected to elsewhere; an API does not redirect"),
        (answer(200, b'{"id": "a'), Reason.MALFORMED, "", 'the answer is not whole JSON: {"id": "a'),
        (answer(200, b""), Reason.MALFORMED, "", "the answer is not whole JSON: (empty)"),
        (error("slow down", status=429), Reason.RATE_LIMITED, "", "slow down"),
        (NOT_SENT, Reason.NETWORK, "", "no connection could be made"),
        (IN_DOUBT, Reason.NETWORK, "", "no answer within the read timeout"),
        (UNTRUSTED, Reason.CERTIFICATE, "", "certificate not trusted"),
    ],
)
def test_every_shape_of_error_is_told_in_the_gateways_own_words(
    reply: Reply, reason: Reason, code: str, message: str | None
) -> None:
    """POST: 503 `model_not_found`, 500 `invalid_request`, 400/401/402/403/404/413/422"""
    failure = trouble(CREATE, reply).failure
    assert (failure.reason, failure.code) == (reason, code)
    assert message is None or failure.message == message
    assert failure.status == (reply.status if isinstance(reply, Answer) else None)


@pytest.mark.parametrize(
    "text",
    [
        "no such model (request id: 20260312112718258)",
        "no such model (request_id: 20260312112718258)",
        "no such model Request-ID: 20260312112718258",
        "(request id: 20260312112718258) no such model",
    ],
)
def test_the_request_id_is_taken_out_of_the_message(text: str) -> None:
    """POST: 503 `model_not_found`, 500 `invalid_request`, 400/401/402/403/404/413/422"""
    failure = trouble(CREATE, error(text, "model_not_found", 503)).failure
    assert failure.request_id == "20260312112718258"
    assert failure.message == "no such model"
    assert str(failure) == (
        "POST /replicate/v1/models/black-forest-labs/flux-schnell/predictions: "
        "HTTP 503 model_not_found: no such model (request id 20260312112718258)"
    )


def test_the_request_id_of_a_header_is_told() -> None:
    assert trouble(CREATE, error("no", x_request_id="req-77")).failure.request_id == "req-77"
    assert trouble(CREATE, error("no")).failure.request_id == ""


def test_a_failure_without_an_answer_names_what_happened() -> None:
    assert str(trouble(GET, NOT_SENT).failure) == "GET /v1/predictions/abc: network: no connection could be made"


def test_a_long_text_is_cut() -> None:
    """response of the wrong shape, bare prediction, task envelope, BFL shape"""
    long = "x" * 100_000
    for reply in (
        error(long, code=long, status=503, x_request_id=long),
        error(f"no (request id: {long})"),
        answer(500, long),
        answer(200, long),
        html(200, long),
        answer(302, b"", location=f"https://www.example/{long}"),
        answer(422, {"detail": [{"msg": long}]}),
    ):
        failure = trouble(GET, reply).failure
        assert len(failure.message) <= TEXT_LIMIT + 50
        assert len(failure.code) <= NAME_LIMIT
        assert len(failure.request_id) <= NAME_LIMIT
    assert shorten("  one\n two ") == "one two"
    assert shorten("x" * 20, 10) == "xxxxxxxxx…"


THROTTLED = "Request was throttled. Your rate limit resets in ~9s."
THROTTLED_UPSTREAM = json.dumps({"detail": THROTTLED, "status": 429})


@pytest.mark.parametrize(
    ("reply", "seconds"),
    [
        (error("slow", status=429, retry_after="7"), 7),
        (error("slow", status=429, retry_after="1.5"), 1.5),
        (error("slow", status=429, retry_after="0"), 0),
        (error("slow", status=429, retry_after="-3"), 0),
        (answer(429, {"detail": "slow", "retry_after": 9}), 9),
        (answer(429, {"detail": "slow", "retry_after": "9"}), 9),
        (answer(429, {"error": {"message": "slow", "retry_after": 9}}), 9),
        (answer(429, {"detail": THROTTLED}), 9),
        (answer(429, "rate limit resets in 2.5 s"), 2.5),
        (answer(429, {"code": "fail_to_fetch_task", "message": THROTTLED_UPSTREAM, "data": None}), 9),
        (answer(429, {"detail": THROTTLED, "retry_after": 5}, retry_after="3"), 3),
        (answer(429, {"detail": THROTTLED, "retry_after": 5}), 5),
        (answer(503, {"detail": "busy"}, retry_after="12"), 12),
        (answer(429, {"detail": "slow"}), None),
        (answer(429, {"detail": "slow", "retry_after": None}), None),
        (answer(429, {"detail": "slow", "retry_after": True}), None),
        (answer(429, {"detail": "slow", "retry_after": [9]}), None),
        (answer(429, {"detail": "slow", "retry_after": 10**400}), None),
        (error("slow", status=429, retry_after="inf"), None),
        (error("slow", status=429, retry_after="soon"), None),
        (error("slow", status=429, retry_after="Wed, 21 Oct 99999999999999999999 07:28:00 GMT"), None),
        (error("slow", status=429, retry_after="soon", content_type="x"), None),
    ],
)
def test_the_wait_that_a_gateway_asks_for_is_read(reply: Answer, seconds: float | None) -> None:
    """POST: connection never made, or 429"""
    asked = trouble(GET, reply).retry_after
    assert asked == seconds


@pytest.mark.parametrize("zone", ["GMT", "-0000", ""])
@pytest.mark.parametrize(("ahead", "seconds"), [(40, 40), (-40, 0)])
def test_a_moment_to_wait_for_is_read_with_or_without_a_zone(ahead: float, seconds: float, zone: str) -> None:
    """POST: connection never made, or 429"""
    moment = datetime.now(timezone.utc) + timedelta(seconds=ahead)
    written = format_datetime(moment, usegmt=True).replace("GMT", zone).strip()
    asked = trouble(GET, error("slow", status=429, retry_after=written)).retry_after
    assert asked == pytest.approx(seconds, abs=10)


@pytest.mark.parametrize(
    "text",
    [
        "The input or output was flagged as sensitive. Please try again with different inputs. (E005) (abc)",
        "All generated images contained NSFW content. Try running it again with a different prompt.",
        "NSFW content detected",
        "Content Moderated",
        "Request Moderated",
        "prompt_blocked",
        "sensitive_words_detected: x",
    ],
)
def test_a_content_refusal_is_never_worth_a_retry(text: str) -> None:
    """`failed`: E005, NSFW and other content refusals."""
    assert is_content_refusal(text)
    assert not can_pass(text)


@pytest.mark.parametrize("code", ["E003", "E004", "E6716", "E8765", "E9828", "E9243", "E1000", "E001"])
def test_a_passing_failure_is_worth_a_retry(code: str) -> None:
    """`failed`: E003, E004, E6716, E8765, E9828 pass."""
    assert can_pass(f"Director: unexpected error handling prediction ({code})")


@pytest.mark.parametrize("text", ["Prediction interrupted; please retry (code: PA)", "KeyError: 'sample'", ""])
def test_a_failure_without_a_number_is_worth_a_retry(text: str) -> None:
    """`failed`: PA, and what nobody has named."""
    assert can_pass(text)


@pytest.mark.parametrize("code", ["E1001", "E4875"])
def test_a_lasting_failure_is_not_worth_a_retry(code: str) -> None:
    """`failed`: the same input would fail again."""
    assert not can_pass(f"Failed ({code})")
    assert not is_content_refusal(f"Failed ({code})")


CODES = st.sampled_from(
    ["", "invalid_request", "model_not_found", "insufficient_user_quota", "task_not_exist", "fail_to_fetch_task", "x"]
)
HINTS = st.none() | st.integers() | st.just(10**400) | st.floats() | st.text() | st.lists(st.integers(), max_size=2)
JSON_BODIES = st.fixed_dictionaries(
    {},
    optional={
        "error": st.none()
        | st.text()
        | st.fixed_dictionaries({"message": st.none() | st.text(), "code": CODES}, optional={"retry_after": HINTS}),
        "code": CODES | st.integers(),
        "message": st.text() | st.integers(),
        "detail": st.text() | st.lists(st.integers(), max_size=3),
        "title": st.text(),
        "data": st.none() | st.just({}),
        "status": st.integers() | st.text(),
        "id": st.text(),
        "retry_after": HINTS,
    },
)
BODIES = (
    st.binary()
    | st.sampled_from([b"", b"null", b"<!DOCTYPE html>", b"<html><title>x</title>", b"[" * 50, b'{"id"'])
    | JSON_BODIES.map(lambda body: json.dumps(body).encode())
)
DATES = st.datetimes().map(lambda moment: moment.strftime("%a, %d %b %Y %H:%M:%S -0000"))
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "content-type": st.sampled_from(["application/json", "text/html", "application/problem+json", "", ";"]),
        "retry-after": st.text() | st.integers().map(str) | DATES,
        "location": st.text(),
        "x-request-id": st.text(),
    },
)
ANSWERS = st.builds(Answer, st.integers(100, 999), HEADERS, BODIES)


@given(reply=ANSWERS | st.builds(TransportFailure, st.sampled_from(Delivery), st.text()))
def test_a_create_is_never_repeated_unless_the_gateway_cannot_have_made_one(reply: Reply) -> None:
    """POST: read timeout, reset, 5xx after sending: never re-sent on its own."""
    judged = judge(CREATE, reply)
    if not isinstance(judged, Trouble):
        return
    assert judged.verdict is not DOUBTFUL
    if judged.verdict is RETRY:
        throttled = isinstance(reply, Answer) and reply.status == 429
        assert throttled or (isinstance(reply, TransportFailure) and reply.delivery is Delivery.NOT_SENT)
    if isinstance(reply, Answer):
        assert not (reply.status >= 500 and judged.verdict is RETRY)


@given(request=st.sampled_from(FREE), reply=ANSWERS)
def test_judging_never_raises_and_gives_what_can_be_logged_and_slept(request: Request, reply: Answer) -> None:
    """response of the wrong shape, bare prediction, task envelope, BFL shape"""
    judged = judge(request, reply)
    if isinstance(judged, Good):
        assert 100 <= reply.status < 300
        return
    assert judged.verdict is not UNKNOWN
    assert judged.retry_after is None or 0 <= judged.retry_after < float("inf")
    assert len(judged.failure.message) <= TEXT_LIMIT + 50
    assert str(judged.failure).startswith(f"{request.method} /")
