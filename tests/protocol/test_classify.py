"""What a reply means for the next step."""

from __future__ import annotations

import json
import re
import sys
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_flux.protocol.classify import (
    NAME_LIMIT,
    TEXT_LIMIT,
    Problem,
    Reason,
    Success,
    Verdict,
    absent,
    can_pass,
    classify,
    is_content_refusal,
    malformed,
    shorten,
)
from airflow_provider_flux.protocol.gateways import choose_gateway
from airflow_provider_flux.protocol.messages import (
    BODY_LIMIT,
    Delivery,
    Purpose,
    Reply,
    Request,
    Response,
    TransportFailure,
)
from airflow_provider_flux.protocol.prediction import Absent
from tests.protocol.recorded import COMETAPI_CREATE, REPLICATE_UNAUTHENTICATED, envelope
from tests.protocol.scripted import (
    IN_DOUBT,
    NOT_SENT,
    SUCCEEDED,
    TASK_NOT_EXIST,
    UNTRUSTED,
    UNUSABLE,
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
FOR_A_PREDICTION = "doubtful for a prediction"
"""Doubtful where a prediction is asked for, refused elsewhere."""
RETRY, DOUBTFUL, REFUSED, UNKNOWN = Verdict.RETRY, Verdict.DOUBTFUL, Verdict.REFUSED, Verdict.UNKNOWN

ROW_RETRIED = "POST: connection never made, or 429"
ROW_UNKNOWN = "POST: read timeout, reset, 5xx after sending"
ROW_PERMANENT = "POST: 503 `model_not_found`, 500 `invalid_request`, 400/401/402/403/404/413/422"
ROW_BORNE = "GET: 429, 5xx, timeouts, resets, HTML"
ROW_NOT_YET = "GET: 404 or `task_not_exist` right after create"
ROW_WRONG_URL = "redirect from the API, HTML where JSON is due"
ROW_SHAPE = "response of the wrong shape, bare prediction, task envelope, BFL shape"


def error(message: str, code: str | None = "", status: int = 400, **headers: str) -> Response:
    """Make the gateways' usual error."""
    body = {"error": {"message": message, "type": "comet_api_error", "param": "", "code": code}}
    return answer(status, body, **headers)


def task_error(code: str, status: int, message: str = "") -> Response:
    """Make the error of new-api's task routes."""
    return answer(status, {"code": code, "message": message or code, "data": None})


def verdict(request: Request, reply: Reply) -> object:
    judged = classify(request, reply)
    return judged.verdict if isinstance(judged, Problem) else OK


def trouble(request: Request, reply: Reply) -> Problem:
    judged = classify(request, reply)
    assert isinstance(judged, Problem)
    return judged


ROW_CODES = "500 `invalid_request`, 503 `model_not_found`"
ROW_QUOTA = "402, 403, quota codes"

TABLE: list[tuple[str, str, Reply, object, object]] = [
    ("2xx with JSON", "`succeeded`", SUCCEEDED, OK, OK),
    ("2xx with JSON", "200", answer(200, COMETAPI_CREATE), OK, OK),
    ("2xx with JSON", "201", answer(201, COMETAPI_CREATE), OK, OK),
    ("2xx with JSON", "202", answer(202, COMETAPI_CREATE), OK, OK),
    ("2xx with JSON", "a failed prediction is an answer", told("failed", error="NSFW content"), OK, OK),
    ("2xx with JSON", "labelled as HTML", answer(200, COMETAPI_CREATE, content_type="text/html"), OK, OK),
    ("2xx that says an error", "passing", error("upstream is busy", status=200), UNKNOWN, RETRY),
    ("2xx that says an error", "flat", task_error("fail_to_fetch_task", 200), UNKNOWN, RETRY),
    ("2xx that says an error", "text", answer(200, {"error": "busy"}), UNKNOWN, RETRY),
    ("2xx that says an error", "invalid_request", error("no prompt", "invalid_request", 200), REFUSED, REFUSED),
    ("2xx that says an error", "quota", task_error("insufficient_user_quota", 200), REFUSED, FOR_A_PREDICTION),
    ("2xx that says an error", "access", error("not you", "access_denied", 201), REFUSED, FOR_A_PREDICTION),
    ("2xx that says an error", "content", task_error("prompt_blocked", 200), REFUSED, REFUSED),
    ("2xx that says an error", "no channel", error("no channel", "model_not_found", 200), REFUSED, REFUSED),
    ("2xx that says an error", "a number", answer(200, {"code": 1, "message": "no", "data": None}), UNKNOWN, RETRY),
    ("2xx that says an error", "a failed envelope", answer(202, {**envelope("FAILURE"), "code": "x"}), UNKNOWN, RETRY),
    ("2xx that says an error", ROW_NOT_YET, error("no such task", "task_not_exist", 200), REFUSED, DOUBTFUL),
    ("2xx that is cut off or not JSON", ROW_SHAPE, answer(200, b'{"id": "abc", "sta'), UNKNOWN, DOUBTFUL),
    ("2xx that is cut off or not JSON", "empty", answer(200, b""), UNKNOWN, DOUBTFUL),
    ("2xx that is cut off or not JSON", "text", answer(200, "OK", content_type="text/plain"), UNKNOWN, DOUBTFUL),
    ("2xx that is cut off or not JSON", "not UTF-8", answer(200, b'{"id": "\xff"}'), UNKNOWN, DOUBTFUL),
    ("2xx that is cut off or not JSON", "too deep", answer(200, b"[" * 200_000), UNKNOWN, DOUBTFUL),
    ("connection never made", ROW_RETRIED, NOT_SENT, RETRY, RETRY),
    ("certificate not trusted", "TLS", UNTRUSTED, REFUSED, REFUSED),
    ("proxy or certificate file that cannot be used", "proxy", UNUSABLE, REFUSED, REFUSED),
    ("connection lost or silent after it was made", ROW_UNKNOWN, IN_DOUBT, UNKNOWN, RETRY),
    ("429", ROW_RETRIED, error("slow down", status=429), RETRY, RETRY),
    ("429", ROW_BORNE, html(429), RETRY, RETRY),
    ("429", "empty", answer(429, b""), RETRY, RETRY),
    (ROW_CODES, ROW_PERMANENT, error("no prompt", "invalid_request", 500), REFUSED, RETRY),
    (ROW_CODES, ROW_PERMANENT, error("no channel", "model_not_found", 503), REFUSED, RETRY),
    (ROW_CODES, "a task's", task_error("invalid_request", 500), REFUSED, RETRY),
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
    ("408, 425", ROW_UNKNOWN, error("timeout", status=408), UNKNOWN, RETRY),
    ("408, 425", ROW_UNKNOWN, html(408), UNKNOWN, RETRY),
    ("408, 425", "too early", error("too early", status=425), UNKNOWN, RETRY),
    ("409", "conflict", error("conflict", status=409), REFUSED, RETRY),
    ("409", "page", html(409), REFUSED, RETRY),
    ("404, `task_not_exist`", ROW_NOT_YET, answer(404, {"detail": "not found", "status": 404}), REFUSED, DOUBTFUL),
    ("404, `task_not_exist`", ROW_NOT_YET, TASK_NOT_EXIST, REFUSED, DOUBTFUL),
    ("404, `task_not_exist`", ROW_PERMANENT, error("no", status=404), REFUSED, DOUBTFUL),
    (ROW_QUOTA, ROW_PERMANENT, error("top up", status=402), REFUSED, FOR_A_PREDICTION),
    (ROW_QUOTA, ROW_PERMANENT, error("not you", status=403), REFUSED, FOR_A_PREDICTION),
    (ROW_QUOTA, "access", error("not you", "access_denied", 403), REFUSED, FOR_A_PREDICTION),
    (ROW_QUOTA, "quota", error("top up", "insufficient_user_quota", 403), REFUSED, FOR_A_PREDICTION),
    (ROW_QUOTA, "quota", task_error("pre_consume_token_quota_failed", 400), REFUSED, FOR_A_PREDICTION),
    *(
        ("other 4xx, content codes", ROW_PERMANENT, error("no", status=status), REFUSED, REFUSED)
        for status in (400, 401, 405, 410, 413, 415, 422, 451)
    ),
    ("other 4xx, content codes", "key", error("bad key", "invalid_api_key", 401), REFUSED, REFUSED),
    ("other 4xx, content codes", "prompt", task_error("prompt_blocked", 400), REFUSED, REFUSED),
    ("other 4xx, content codes", "words", error("no", "sensitive_words_detected", 403), REFUSED, REFUSED),
    *(
        ("redirect", ROW_WRONG_URL, answer(status, b"", location="https://www.example/login?to=x"), REFUSED, REFUSED)
        for status in (301, 302, 303, 307, 308)
    ),
    ("HTML below 500", ROW_WRONG_URL, html(200), REFUSED, DOUBTFUL),
    ("HTML below 500", ROW_BORNE, html(403, "Attention Required"), REFUSED, DOUBTFUL),
    ("HTML below 500", ROW_WRONG_URL, html(404), REFUSED, DOUBTFUL),
    ("HTML below 500", "unlabelled", answer(200, b"\n <html>", content_type="text/plain"), REFUSED, DOUBTFUL),
]


CROSSINGS: list[tuple[str, str, Reply, object, object]] = [
    ("quota code at 429", ROW_PERMANENT, error("top up", "insufficient_user_quota", 429), REFUSED, FOR_A_PREDICTION),
    ("quota code at 5xx", ROW_PERMANENT, task_error("pre_consume_token_quota_failed", 500), REFUSED, RETRY),
    ("access code at 5xx", ROW_PERMANENT, error("not you", "access_denied", 500), REFUSED, RETRY),
    ("content code at 5xx", ROW_PERMANENT, task_error("prompt_blocked", 500), REFUSED, RETRY),
    ("`task_not_exist` at 5xx", ROW_NOT_YET, task_error("task_not_exist", 500), REFUSED, RETRY),
]
"""Where two rows of the table meet: for a create the code decides, for all else a status of 500 or more."""
WALKED = TABLE + CROSSINGS


def name_of(row: tuple[str, str, Reply, object, object]) -> str:
    reply = row[2]
    return f"{row[0]} | {row[1]} | {reply.status if isinstance(reply, Response) else reply.delivery.value}"


def documented_table() -> dict[str, tuple[str, str]]:
    """Read the table that the module shows to people."""
    body = re.split(
        r"^=[= ]+$", sys.modules["airflow_provider_flux.protocol.classify"].__doc__ or "", flags=re.MULTILINE
    )[2]
    rows = [re.split(r"  +| (?=refused +retry)", line.strip()) for line in body.strip().splitlines()]
    return {row.replace("``", "`"): (create, free) for row, create, free in rows}


def test_every_row_of_the_documented_table_is_walked_and_no_other() -> None:
    assert list(dict.fromkeys(row[0] for row in TABLE)) == list(documented_table())


@pytest.mark.parametrize("row", TABLE, ids=name_of)
def test_what_a_row_expects_is_what_the_documented_table_says(row: tuple[str, str, Reply, object, object]) -> None:
    for documented, expected in zip(documented_table()[row[0]], row[3:], strict=True):
        said = expected.value if isinstance(expected, Verdict) else expected
        assert documented in (said, "as its code says")


@pytest.mark.parametrize(("reply", "create", "_free"), [row[2:] for row in WALKED], ids=map(name_of, WALKED))
def test_a_reply_to_a_create_means_what_the_table_says(reply: Reply, create: object, _free: object) -> None:
    assert verdict(CREATE, reply) == create


@pytest.mark.parametrize("request_", FREE, ids=lambda request: request.purpose.value)
@pytest.mark.parametrize(("reply", "_create", "free"), [row[2:] for row in WALKED], ids=map(name_of, WALKED))
def test_a_reply_to_anything_free_means_what_the_table_says(
    request_: Request, reply: Reply, _create: object, free: object
) -> None:
    if free == FOR_A_PREDICTION:
        free = DOUBTFUL if request_.purpose is Purpose.GET else REFUSED
    assert verdict(request_, reply) == free


CODES_BY_NAME = ["", "invalid_request", "model_not_found", "insufficient_user_quota", "prompt_blocked", "access_denied"]


@pytest.mark.parametrize("request_", FREE, ids=lambda request: request.purpose.value)
@pytest.mark.parametrize("code", [*CODES_BY_NAME, "task_not_exist", "nobody_knows"])
@pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 524, 599, 600])
def test_what_costs_nothing_is_asked_again_after_any_5xx_whatever_its_code(
    request_: Request, code: str, status: int
) -> None:
    """GET: 429, 5xx, timeouts, resets, HTML"""
    assert verdict(request_, error("trouble", code, status)) is RETRY
    assert verdict(request_, task_error(code or "x", status)) is RETRY


def test_a_create_in_doubt_is_told_in_the_gateways_words_though_it_came_as_a_success() -> None:
    """POST: read timeout, reset, 5xx after sending"""
    failure = trouble(CREATE, error("upstream is busy", "upstream_error", 200)).failure
    assert (failure.reason, failure.status, failure.code) == (Reason.OUTAGE, 200, "upstream_error")
    assert failure.message == "upstream is busy"


def test_json_that_is_no_prediction_leaves_a_create_unknown() -> None:
    """response of the wrong shape, bare prediction, task envelope, BFL shape"""
    payload = {"hello": "x" * 10_000}
    assert malformed(CREATE, payload).verdict is UNKNOWN
    assert malformed(GET, payload).verdict is DOUBTFUL
    assert malformed(GET, payload).failure.reason is Reason.MALFORMED
    assert len(malformed(GET, payload).failure.message) < TEXT_LIMIT + 50


@pytest.mark.parametrize(
    ("payload", "sketch"),
    [
        (None, "null"),
        (5, "5"),
        ("text", '"text"'),
        ([], "[]"),
        ({"hello": "wörld"}, '{"hello": "wörld"}'),
        ([1, 2, 3, 4, 5], "[1, 2, 3]"),
        ({"a": {"b": {"c": "deep"}}}, '{"a": {"b": {"c": "deep"}}}'),
        ({"a": {"b": {"c": {"d": 1}, "e": [1]}}}, '{"a": {"b": {"c": "dict", "e": "list"}}}'),
        ({str(number): number for number in range(12)}, json.dumps({str(number): number for number in range(10)})),
        ({"n" * 150: "x" * 150}, json.dumps({"n" * NAME_LIMIT: "x" * NAME_LIMIT})),
    ],
)
def test_what_is_no_prediction_is_shown_as_a_sketch(payload: object, sketch: str) -> None:
    """response of the wrong shape, bare prediction, task envelope, BFL shape"""
    failure = malformed(GET, payload).failure
    assert failure.message == f"not a prediction: {sketch}"
    assert (failure.reason, failure.status) == (Reason.MALFORMED, None)


class Unwritten(str):
    """A text that may not be written out whole."""

    __slots__ = ()

    def __getitem__(self, part: object) -> str:
        assert part == slice(NAME_LIMIT)
        return "cut"


def test_a_large_payload_is_cut_before_it_is_written_out() -> None:
    """response of the wrong shape, bare prediction, task envelope, BFL shape"""
    deep: object = {"leaf": Unwritten()}
    for _ in range(5000):
        deep = [deep]
    payload = {"deep": deep, "text": Unwritten(), "wide": [Unwritten()] * 3 + [object()] * 1000}
    assert malformed(GET, payload).failure.message == (
        'not a prediction: {"deep": [["list"]], "text": "cut", "wide": ["cut", "cut", "cut"]}'
    )


def test_an_answer_that_was_cut_at_the_limit_is_not_taken_for_whole() -> None:
    """response of the wrong shape, bare prediction, task envelope, BFL shape"""
    whole = json.dumps({"id": "abc", "status": "succeeded", "output": "data:image/png;base64," + "A" * BODY_LIMIT})
    cut = answer(200, whole.encode()[:BODY_LIMIT])
    assert verdict(CREATE, cut) is UNKNOWN
    assert verdict(GET, cut) is DOUBTFUL
    assert trouble(GET, cut).failure.reason is Reason.MALFORMED
    assert len(trouble(GET, cut).failure.message) < TEXT_LIMIT + 50


def test_four_large_pictures_inside_an_answer_stay_below_the_limit() -> None:
    """output: string, list, `data:` URI, null, shorter list than asked"""
    picture = "data:image/png;base64," + "A" * (2_500_000 * 4 // 3)
    body = json.dumps({"id": "abc", "status": "succeeded", "output": [picture] * 4}).encode()
    assert len(body) < BODY_LIMIT
    assert verdict(GET, answer(200, body[:BODY_LIMIT])) == OK


def test_a_prediction_that_is_not_there_yet_is_doubtful() -> None:
    """GET: 404 or `task_not_exist` right after create"""
    assert absent(GET, Absent.NOT_FOUND, None).verdict is DOUBTFUL
    assert absent(GET, Absent.NOT_FOUND, None).failure.reason is Reason.NOT_FOUND
    assert absent(CREATE, Absent.NOT_FOUND, None).verdict is UNKNOWN


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
    assert failure.status == (reply.status if isinstance(reply, Response) else None)


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
def test_the_wait_that_a_gateway_asks_for_is_read(reply: Response, seconds: float | None) -> None:
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
ANSWERS = st.builds(Response, st.integers(100, 999), HEADERS, BODIES)


@given(reply=ANSWERS | st.builds(TransportFailure, st.sampled_from(Delivery), st.text()))
def test_a_create_is_never_repeated_unless_the_gateway_cannot_have_made_one(reply: Reply) -> None:
    """POST: read timeout, reset, 5xx after sending: never re-sent on its own."""
    judged = classify(CREATE, reply)
    if not isinstance(judged, Problem):
        return
    assert judged.verdict is not DOUBTFUL
    if judged.verdict is RETRY:
        throttled = isinstance(reply, Response) and reply.status == 429
        assert throttled or (isinstance(reply, TransportFailure) and reply.delivery is Delivery.NOT_SENT)
    if isinstance(reply, Response):
        assert not (reply.status >= 500 and judged.verdict is RETRY)


@given(request=st.sampled_from(FREE), reply=ANSWERS)
def test_judging_never_raises_and_gives_what_can_be_logged_and_slept(request: Request, reply: Response) -> None:
    """response of the wrong shape, bare prediction, task envelope, BFL shape"""
    judged = classify(request, reply)
    if isinstance(judged, Success):
        assert 100 <= reply.status < 300
        return
    assert judged.verdict is not UNKNOWN
    assert judged.retry_after is None or 0 <= judged.retry_after < float("inf")
    assert len(judged.failure.message) <= TEXT_LIMIT + 50
    assert str(judged.failure).startswith(f"{request.method} /")
