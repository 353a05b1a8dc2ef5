"""The conversations that make, ask for, cancel and list predictions."""

from __future__ import annotations

import pytest

from airflow_provider_flux.protocol.classify import Failure, Reason, Verdict
from airflow_provider_flux.protocol.flows import DOUBTFUL_LIMIT, SHORTEST_LIMIT, CallFailed
from airflow_provider_flux.protocol.gateways import choose_gateway
from airflow_provider_flux.protocol.messages import Purpose, Reply
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus
from airflow_provider_flux.protocol.schedule import BACKOFF_CAP
from tests.protocol.recorded import COMETAPI_CREATE, envelope
from tests.protocol.scripted import (
    ID,
    IN_DOUBT,
    NOT_SENT,
    START,
    SUCCEEDED,
    TASK_NOT_EXIST,
    UNTRUSTED,
    Late,
    Script,
    answer,
    create_request,
    html,
    told,
)

ROW_UNKNOWN = "POST: read timeout, reset, 5xx after sending"
ROW_PERMANENT = "POST: 503 `model_not_found`, 500 `invalid_request`, 400/401/402/403/404/413/422"
ROW_WRONG_URL = "redirect from the API, HTML where JSON is due"
ROW_SHAPE = "response of the wrong shape, bare prediction, task envelope, BFL shape"

REPLICATE = choose_gateway("https://api.replicate.com")
DEADLINE = START + 120


def failing(status: int, code: str = "", **headers: str) -> Reply:
    return answer(status, {"error": {"message": "no", "code": code}}, **headers)


def submit(script: Script, deadline: float = DEADLINE) -> Prediction:
    return script.run(script.talk.submit(create_request(script.gateway), deadline=deadline))


def get(script: Script, deadline: float = DEADLINE) -> Prediction:
    return script.run(script.talk.get(ID, deadline=deadline))


def cancel(script: Script, deadline: float = DEADLINE) -> Prediction | None:
    return script.run(script.talk.cancel(ID, deadline=deadline))


@pytest.mark.parametrize(
    ("reply", "prediction_id"),
    [
        (answer(200, COMETAPI_CREATE), ID),
        (answer(201, COMETAPI_CREATE), ID),
        (answer(202, COMETAPI_CREATE), ID),
        (answer(200, envelope("SUBMITTED")), "task_0123456789"),
        (answer(200, {"id": "bfl-1", "polling_url": "https://api.bfl.ai/v1/get_result?id=bfl-1"}), "bfl-1"),
        (told("failed", error="NSFW content detected"), ID),
        (SUCCEEDED, ID),
        (answer(201, {"id": ID}), ID),
        (answer(200, {"task_id": "task_1"}), "task_1"),
        (answer(200, {"code": "success", "message": "", "data": "task_1"}), "task_1"),
        (answer(200, {"code": "success", "message": "", "data": {"task_id": "task_1"}}), "task_1"),
    ],
)
def test_a_create_that_is_answered_is_sent_once(reply: Reply, prediction_id: str) -> None:
    """response of the wrong shape, bare prediction, task envelope, BFL shape"""
    script = Script(reply)
    assert submit(script).id == prediction_id
    assert script.posts == 1
    assert script.sleeps == []
    assert script.log.warnings == []


UNKNOWN_OUTCOMES = [
    (ROW_UNKNOWN, "lost", IN_DOUBT),
    (ROW_UNKNOWN, "late", Late(60, IN_DOUBT)),
    *((ROW_UNKNOWN, str(status), failing(status)) for status in (408, 425, 500, 502, 503, 504, 524)),
    (ROW_UNKNOWN, "page", html(502)),
    (ROW_UNKNOWN, "do_request_failed", answer(500, {"code": "do_request_failed", "message": "EOF", "data": None})),
    (ROW_SHAPE, "cut off", answer(200, b'{"id": "q4ch')),
    (ROW_SHAPE, "empty", answer(200, b"")),
    (ROW_SHAPE, "null", answer(200, None)),
    (ROW_SHAPE, "a list", answer(200, [])),
    (ROW_SHAPE, "no id", answer(200, {"status": "starting"})),
    (ROW_SHAPE, "no task", answer(200, {"code": "success", "data": None})),
    (ROW_SHAPE, "an id beside an error", answer(200, {"id": ID, "error": "busy"})),
    (ROW_SHAPE, "an id beside a code", answer(200, {"id": ID, "status": 500})),
    (ROW_UNKNOWN, "200 with an error", failing(200)),
    (ROW_UNKNOWN, "200 with an error of its own", failing(200, "upstream_error")),
    (ROW_UNKNOWN, "200 with a task's error", answer(200, {"code": "fail_to_fetch_task", "message": "", "data": None})),
]


@pytest.mark.parametrize(
    "reply", [row[2] for row in UNKNOWN_OUTCOMES], ids=[f"{row[0]} | {row[1]}" for row in UNKNOWN_OUTCOMES]
)
def test_a_create_of_which_nobody_knows_whether_it_arrived_is_never_sent_again(reply: Reply | Late) -> None:
    script = Script(reply, then=SUCCEEDED)
    with pytest.raises(CallFailed) as caught:
        submit(script)
    assert caught.value.may_exist
    assert caught.value.verdict is Verdict.UNKNOWN
    assert script.posts == 1
    assert script.sleeps == []


def test_a_create_that_times_out_is_never_sent_again() -> None:
    """POST: read timeout, reset, 5xx after sending"""
    script = Script(Late(60, IN_DOUBT), then=SUCCEEDED)
    with pytest.raises(CallFailed, match="no answer within the read timeout") as caught:
        submit(script)
    assert (script.posts, caught.value.may_exist) == (1, True)


def test_a_create_that_is_lost_after_passing_trouble_is_not_sent_again() -> None:
    """POST: read timeout, reset, 5xx after sending"""
    script = Script(NOT_SENT, failing(429), IN_DOUBT, then=SUCCEEDED)
    with pytest.raises(CallFailed) as caught:
        submit(script)
    assert (script.posts, caught.value.may_exist) == (3, True)


REFUSALS = [
    *((ROW_PERMANENT, str(status), failing(status)) for status in (400, 401, 402, 403, 404, 405, 409, 413, 422)),
    (ROW_PERMANENT, "503 model_not_found", failing(503, "model_not_found")),
    (ROW_PERMANENT, "500 invalid_request", failing(500, "invalid_request")),
    (ROW_PERMANENT, "429 insufficient_user_quota", failing(429, "insufficient_user_quota")),
    (ROW_PERMANENT, "500 prompt_blocked", failing(500, "prompt_blocked")),
    (ROW_PERMANENT, "200 invalid_request", failing(200, "invalid_request")),
    (ROW_PERMANENT, "200 insufficient_user_quota", failing(200, "insufficient_user_quota")),
    (ROW_PERMANENT, "200 task_not_exist", failing(200, "task_not_exist")),
    (ROW_PERMANENT, "certificate", UNTRUSTED),
    (ROW_WRONG_URL, "page", html(200)),
    (ROW_WRONG_URL, "page of a 404", html(404)),
    (ROW_WRONG_URL, "301", answer(301, b"", location="https://www.example/")),
    (ROW_WRONG_URL, "307", answer(307, b"", location="/elsewhere")),
]


@pytest.mark.parametrize("reply", [row[2] for row in REFUSALS], ids=[f"{row[0]} | {row[1]}" for row in REFUSALS])
def test_a_create_that_is_refused_fails_at_once(reply: Reply) -> None:
    script = Script(reply, then=SUCCEEDED)
    with pytest.raises(CallFailed) as caught:
        submit(script)
    assert not caught.value.may_exist
    assert caught.value.verdict is Verdict.REFUSED
    assert script.posts == 1
    assert script.sleeps == []


@pytest.mark.parametrize("reply", [NOT_SENT, failing(429), html(429)])
def test_a_create_that_cannot_have_arrived_is_sent_again(reply: Reply) -> None:
    """POST: connection never made, or 429"""
    script = Script(reply, reply, reply, SUCCEEDED)
    assert submit(script).id == ID
    assert script.posts == 4
    assert len({request.path for request in script.requests}) == 1
    assert script.sleeps == [1, 2, 4]
    assert len(script.log.warnings) == 3


@pytest.mark.parametrize(
    "reply",
    [
        failing(429, retry_after="9"),
        answer(429, {"detail": "slow down", "retry_after": 9}),
        answer(429, {"detail": "Request was throttled. Your rate limit resets in ~9s."}),
    ],
)
def test_a_create_waits_as_long_as_the_gateway_asks(reply: Reply) -> None:
    """POST: connection never made, or 429"""
    script = Script(reply, SUCCEEDED)
    submit(script)
    assert script.sleeps == [9.5]


@pytest.mark.parametrize("asked", ["0", "1"])
def test_a_gateway_that_asks_for_hardly_a_wait_is_not_asked_without_end(asked: str) -> None:
    """POST: connection never made, or 429"""
    script = Script(*[failing(429, retry_after=asked)] * 7, SUCCEEDED, chance=0.75)
    submit(script)
    least = float(asked) + 0.75
    assert script.sleeps == [max(least, wait) for wait in (1.5, 3, 6, 12, 22.5, 22.5, 22.5)]


def test_a_wait_that_the_gateway_asks_for_is_kept_where_it_is_longer_than_the_backoff() -> None:
    """POST: connection never made, or 429"""
    script = Script(*[failing(429, retry_after="5")] * 5, SUCCEEDED)
    submit(script)
    assert script.sleeps == [5.5, 5.5, 5.5, 8, 15]


def test_creates_that_were_throttled_together_do_not_come_back_together() -> None:
    """POST: connection never made, or 429"""
    waits = set()
    for chance in (0.0, 0.5, 0.9):
        script = Script(failing(429, retry_after="9"), SUCCEEDED, chance=chance)
        submit(script)
        waits.add(script.sleeps[0])
    assert len(waits) == 3
    assert min(waits) >= 9


@pytest.mark.parametrize("asked", ["121", "86400"])
def test_a_create_that_may_not_be_repeated_before_the_deadline_fails_at_once(asked: str) -> None:
    """deadline (`timeout`, also `execution_timeout`)"""
    script = Script(failing(429, retry_after=asked))
    with pytest.raises(CallFailed) as caught:
        submit(script)
    assert caught.value.failure.reason is Reason.RATE_LIMITED
    assert caught.value.verdict is Verdict.RETRY
    assert not caught.value.may_exist
    assert script.now == START


@pytest.mark.parametrize("reply", [NOT_SENT, Late(10, NOT_SENT), failing(429), failing(429, retry_after="0")])
def test_a_create_is_not_repeated_after_the_deadline(reply: Reply | Late) -> None:
    """deadline (`timeout`, also `execution_timeout`)"""
    script = Script(then=reply)
    with pytest.raises(CallFailed) as caught:
        submit(script)
    assert not caught.value.may_exist
    assert caught.value.verdict is Verdict.RETRY
    assert script.posts > 3
    assert max(script.asked_at) < 120
    assert all(wait <= BACKOFF_CAP for wait in script.sleeps)


def test_each_request_is_given_the_time_that_is_left() -> None:
    """deadline (`timeout`, also `execution_timeout`)"""
    script = Script(Late(30, NOT_SENT), failing(429, retry_after="9"), SUCCEEDED)
    submit(script)
    assert script.asked_at == [0, 31, 40.5]
    assert script.limits == [120, 89, 79.5]
    script = Script(Late(117.5, IN_DOUBT), failing(503))
    with pytest.raises(CallFailed):
        get(script)
    assert script.limits == [120, 1.5]


@pytest.mark.parametrize("left", [-3600.0, 0.0, 0.5, SHORTEST_LIMIT])
def test_even_the_last_request_is_given_a_moment(left: float) -> None:
    """deadline (`timeout`, also `execution_timeout`)"""
    script = Script(then=SUCCEEDED)
    submit(script, START + left)
    get(script, START + left)
    cancel(script, START + left)
    script.run(script.talk.read(script.gateway.read("/v1/models"), deadline=START + left))
    assert script.limits == [SHORTEST_LIMIT] * 4


def test_a_page_of_a_list_is_given_the_time_that_is_left() -> None:
    """deadline (`timeout`, also `execution_timeout`)"""
    script = Script(Late(100, page_of("a", following="?cursor=2")), page_of("b"), gateway=REPLICATE)
    assert listed(script) == [["a"], ["b"]]
    assert script.limits == [120, 20]


def test_a_failed_call_says_what_to_make_of_it() -> None:
    """POST: read timeout, reset, 5xx after sending"""
    failure = Failure(Reason.OUTAGE, "no", "POST /x")
    assert CallFailed(failure).verdict is Verdict.REFUSED
    assert [verdict for verdict in Verdict if CallFailed(failure, verdict).may_exist] == [Verdict.UNKNOWN]
    assert str(CallFailed(failure)) == str(failure)


def test_no_request_carries_a_key_or_names_a_host() -> None:
    """the key: it is added by what sends a request, and only for the connection's own origin."""
    script = Script(told(), told(), told(), answer(200, {"results": [], "next": None}), gateway=REPLICATE)
    submit(script)
    get(script)
    cancel(script)
    for page in script.talk.list(deadline=DEADLINE):
        script.run(page)
    assert len(script.requests) == 4
    for request in script.requests:
        assert not request.headers
        assert request.path.startswith("/v1/")
        assert "://" not in request.path


def test_an_answer_is_never_asked_at_the_urls_it_names() -> None:
    """`urls.get`, `urls.cancel`, `urls.stream` in an answer"""
    script = Script(then=answer(200, COMETAPI_CREATE))
    prediction = submit(script)
    script.run(script.talk.get(prediction.id, deadline=DEADLINE))
    script.run(script.talk.cancel(prediction.id, deadline=DEADLINE))
    assert [request.path for request in script.requests[1:]] == [
        f"/replicate/v1/predictions/{ID}",
        f"/replicate/v1/predictions/{ID}/cancel",
    ]


PASSING = [IN_DOUBT, NOT_SENT, failing(429), failing(500), failing(503), html(502), failing(408), failing(200)]
PASSING += [failing(503, "model_not_found"), failing(500, "invalid_request"), failing(500, "prompt_blocked")]
DOUBTFUL = [
    TASK_NOT_EXIST,
    failing(404),
    failing(402),
    failing(403),
    failing(403, "insufficient_user_quota"),
    failing(429, "insufficient_user_quota"),
    failing(200, "insufficient_user_quota"),
    html(200),
    html(403),
    answer(200, b'{"id"'),
    answer(200, {"id": ID}),
    answer(200, b""),
    answer(200, []),
    answer(200, {"code": "success", "data": None}),
    answer(200, {"id": ID, "status": "Task not found"}),
]


@pytest.mark.parametrize("reply", PASSING)
def test_asking_for_a_prediction_bears_passing_trouble(reply: Reply) -> None:
    """GET: 429, 5xx, timeouts, resets, HTML"""
    script = Script(*[reply] * 9, SUCCEEDED)
    assert get(script, START + 3600).status is PredictionStatus.SUCCEEDED
    assert len(script.requests) == 10


@pytest.mark.parametrize("reply", PASSING)
def test_asking_for_a_prediction_bears_trouble_no_longer_than_the_deadline(reply: Reply) -> None:
    """deadline (`timeout`, also `execution_timeout`)"""
    script = Script(then=reply)
    with pytest.raises(CallFailed) as caught:
        get(script)
    assert not caught.value.may_exist
    assert caught.value.verdict is Verdict.RETRY
    assert max(script.asked_at) < 120


@pytest.mark.parametrize("reply", DOUBTFUL)
def test_asking_for_a_prediction_bears_doubtful_answers_a_few_times(reply: Reply) -> None:
    """GET: 404 or `task_not_exist` right after create"""
    script = Script(*[reply] * (DOUBTFUL_LIMIT - 1), SUCCEEDED)
    assert get(script, START + 3600).id == ID


@pytest.mark.parametrize("reply", DOUBTFUL)
def test_asking_for_a_prediction_fails_when_the_answers_stay_doubtful(reply: Reply) -> None:
    """GET: 404 or `task_not_exist` right after create"""
    script = Script(then=reply)
    with pytest.raises(CallFailed) as caught:
        get(script, START + 3600)
    assert not caught.value.may_exist
    assert caught.value.verdict is Verdict.REFUSED
    assert len(script.requests) == DOUBTFUL_LIMIT


@pytest.mark.parametrize("reply", DOUBTFUL)
def test_doubtful_answers_that_the_deadline_cuts_short_stay_doubtful(reply: Reply) -> None:
    """deadline (`timeout`, also `execution_timeout`)"""
    script = Script(then=reply)
    with pytest.raises(CallFailed) as caught:
        get(script, START + 5)
    assert caught.value.verdict is Verdict.DOUBTFUL
    assert len(script.requests) < DOUBTFUL_LIMIT


def test_passing_trouble_between_doubtful_answers_does_not_add_up() -> None:
    """GET: 429, 5xx, timeouts, resets, HTML"""
    almost = [TASK_NOT_EXIST] * (DOUBTFUL_LIMIT - 1)
    script = Script(*almost, IN_DOUBT, *almost, SUCCEEDED)
    assert get(script, START + 3600).id == ID


@pytest.mark.parametrize(
    "reply", [failing(401), failing(400), failing(400, "prompt_blocked"), answer(302, b""), UNTRUSTED]
)
def test_asking_for_a_prediction_fails_at_once_where_it_is_refused(reply: Reply) -> None:
    """redirect from the API, HTML where JSON is due"""
    script = Script(reply)
    with pytest.raises(CallFailed) as caught:
        get(script)
    assert caught.value.verdict is Verdict.REFUSED
    assert script.sleeps == []


@pytest.mark.parametrize("reply", [failing(402), failing(403), failing(403, "insufficient_user_quota")])
def test_what_is_said_of_credit_is_doubted_only_where_a_prediction_is_asked_for(reply: Reply) -> None:
    """redirect from the API, HTML where JSON is due"""
    script = Script(reply)
    with pytest.raises(CallFailed) as caught:
        script.run(script.talk.read(script.gateway.read("/v1/models"), deadline=DEADLINE))
    assert caught.value.verdict is Verdict.REFUSED
    assert script.sleeps == []


def test_reading_returns_the_json_as_it_is() -> None:
    script = Script(failing(503), answer(200, {"data": [{"id": "a/b"}]}))
    payload = script.run(script.talk.read(script.gateway.read("/v1/models"), deadline=DEADLINE))
    assert payload == {"data": [{"id": "a/b"}]}
    assert [request.purpose for request in script.requests] == [Purpose.READ] * 2


def test_a_cancel_that_is_accepted_returns_the_prediction() -> None:
    script = Script(told("canceled"))
    prediction = cancel(script)
    assert prediction is not None
    assert (prediction.id, prediction.status) == (ID, PredictionStatus.CANCELED)
    assert script.posts == 1


@pytest.mark.parametrize("body", [{}, {"message": "ok"}, None, {"code": "success", "data": None}])
def test_a_cancel_that_is_accepted_without_a_word_returns_nothing(body: object) -> None:
    assert cancel(Script(answer(200, body))) is None


@pytest.mark.parametrize(
    "reply",
    [
        failing(404),
        failing(405),
        failing(401),
        failing(402),
        failing(403),
        TASK_NOT_EXIST,
        html(200),
        html(404),
        html(405),
        answer(301, b"", location="https://www.example/"),
        answer(200, b""),
        UNTRUSTED,
    ],
)
def test_a_cancel_that_a_gateway_does_not_offer_fails_at_once(reply: Reply) -> None:
    """redirect from the API, HTML where JSON is due"""
    script = Script(reply)
    with pytest.raises(CallFailed) as caught:
        cancel(script)
    assert not caught.value.may_exist
    assert caught.value.verdict is Verdict.REFUSED
    assert script.sleeps == []


@pytest.mark.parametrize("reply", [IN_DOUBT, NOT_SENT, failing(429), failing(503), html(502)])
def test_a_cancel_is_repeated_after_passing_trouble(reply: Reply) -> None:
    script = Script(reply, reply, told("canceled"))
    assert cancel(script) is not None
    assert script.posts == 3


def test_a_cancel_is_not_repeated_after_the_deadline() -> None:
    """deadline (`timeout`, also `execution_timeout`)"""
    script = Script(then=failing(503))
    with pytest.raises(CallFailed):
        cancel(script, START + 10)
    assert max(script.asked_at) < 10


def page_of(*ids: str, following: object = None) -> Reply:
    results = [{"id": prediction_id, "status": "succeeded"} for prediction_id in ids]
    return answer(200, {"previous": None, "next": following, "results": results})


def listed(script: Script) -> list[list[str]]:
    pages = (script.run(page) for page in script.talk.list(deadline=DEADLINE))
    return [[prediction.id for prediction in page] for page in pages]


def test_a_list_is_read_page_by_page_to_its_end() -> None:
    script = Script(
        page_of("a", "b", following="https://api.replicate.com/v1/predictions?cursor=2"),
        failing(503),
        page_of("c", following="https://elsewhere.example/?cursor=3"),
        page_of(),
        gateway=REPLICATE,
    )
    assert listed(script) == [["a", "b"], ["c"], []]
    assert [request.path for request in script.requests] == [
        "/v1/predictions",
        "/v1/predictions?cursor=2",
        "/v1/predictions?cursor=2",
        "/v1/predictions?cursor=3",
    ]


def test_a_list_asks_for_no_page_that_nobody_reads() -> None:
    script = Script(page_of("a", following="https://api.replicate.com/v1/predictions?cursor=2"), gateway=REPLICATE)
    assert len(script.run(next(script.talk.list(deadline=DEADLINE)))) == 1
    assert len(script.requests) == 1


@pytest.mark.parametrize("following", [None, "", 5, []])
def test_a_list_ends_where_no_next_page_is_named(following: object) -> None:
    assert listed(Script(page_of("a", following=following), gateway=REPLICATE)) == [["a"]]


@pytest.mark.parametrize("following", ["https://api.replicate.com/v1/predictions", "?cursor=2"])
def test_a_list_that_leads_in_a_circle_ends(following: str) -> None:
    script = Script(then=page_of("a", following=following), gateway=REPLICATE)
    assert len(listed(script)) <= 2


def test_a_list_leaves_out_what_is_no_prediction() -> None:
    script = Script(answer(200, {"results": [None, 5, {"id": "x"}, {"id": "a", "status": "failed"}]}))
    assert listed(script) == [["a"]]


@pytest.mark.parametrize("payload", [[], {}, {"results": None}, {"results": {"id": "a"}}, 5, None])
def test_a_list_of_the_wrong_shape_is_an_error(payload: object) -> None:
    """response of the wrong shape, bare prediction, task envelope, BFL shape"""
    with pytest.raises(CallFailed) as caught:
        listed(Script(answer(200, payload)))
    assert caught.value.failure.reason is Reason.MALFORMED
    assert caught.value.verdict is Verdict.REFUSED
    assert not caught.value.may_exist
