"""Polling one prediction to its end."""

from __future__ import annotations

import pytest

from airflow_provider_flux.protocol.classify import Reason, Verdict
from airflow_provider_flux.protocol.flows import (
    DOUBTFUL_LIMIT,
    EMPTY_LIMIT,
    SETTLED_AFTER,
    SHORTEST_LIMIT,
    CallFailed,
    DeadlinePassed,
)
from airflow_provider_flux.protocol.gateways import choose_gateway
from airflow_provider_flux.protocol.messages import Purpose, Reply
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus
from airflow_provider_flux.protocol.run_times import RunTimeProfile
from airflow_provider_flux.protocol.schedule import SHORTEST_INTERVAL, PollSchedule
from tests.protocol.recorded import PROCESSING_WITH_OUTPUT, SDXL_BLOCKING_WITH_INLINE_PICTURE, envelope
from tests.protocol.scripted import (
    ID,
    IN_DOUBT,
    NOT_SENT,
    START,
    SUCCEEDED,
    TASK_NOT_EXIST,
    UNTRUSTED,
    URL,
    Late,
    Script,
    answer,
    html,
    told,
)

PROCESSING = told("processing")
FILLED = told("processing", output=URL, input={"prompt": "A"})
OTHER = told("processing", output=f"{URL}?2", input={"prompt": "A"})
EMPTY = told("succeeded")
SCHNELL = "black-forest-labs/flux-schnell"
PRO = "black-forest-labs/flux-1.1-pro"
PROFILE = RunTimeProfile(10.0, 0.35)
SCHEDULE = PollSchedule(PROFILE, chance=lambda: 0.5)


def failing(status: int, **headers: str) -> Reply:
    return answer(status, {"error": {"message": "no", "code": ""}}, **headers)


def watch(
    script: Script,
    *,
    seconds: float = 600,
    interval: float | None = None,
    ago: float = 0,
    at_once: bool = True,
    model: str = PRO,
) -> Prediction:
    return script.run(
        script.talk.watch(
            ID,
            PollSchedule(PROFILE, interval=interval, chance=lambda: 0.5),
            model=model,
            submitted_at=START - ago,
            deadline=START + seconds,
            at_once=at_once,
        )
    )


@pytest.mark.parametrize("status", ["succeeded", "failed", "canceled", "aborted"])
def test_every_terminal_status_ends_the_wait(status: str) -> None:
    """`canceled`, `aborted`: as `succeeded` and `failed` do."""
    script = Script(told("starting"), PROCESSING, told(status, output=[URL] if status == "succeeded" else None))
    assert watch(script).status == status
    assert len(script.requests) == 3
    assert {request.purpose for request in script.requests} == {Purpose.GET}
    assert {request.path for request in script.requests} == {f"/replicate/v1/predictions/{ID}"}


def test_a_success_brings_its_outputs() -> None:
    """`succeeded`"""
    assert watch(Script(PROCESSING, SUCCEEDED)).outputs == (URL,)


def test_a_failure_brings_the_gateways_text() -> None:
    """`failed`"""
    assert watch(Script(told("failed", error="flagged (E005)"))).error == "flagged (E005)"


def test_a_success_whose_output_is_gone_is_told_as_such() -> None:
    """output already expired (`data_removed`)"""
    prediction = watch(Script(told("succeeded", data_removed=True, completed_at="2026-03-12T11:27:20Z")))
    assert prediction.data_removed
    assert prediction.completed_at is not None


def mine(status: str, inside: object = None, **fields: object) -> dict[str, object]:
    """Make the envelope of the prediction of the tests."""
    return envelope(status, inside, task_id=ID, **fields)


@pytest.mark.parametrize(
    ("waiting", "ended"),
    [
        (mine("IN_PROGRESS"), mine("SUCCESS", {"id": "x", "status": "succeeded", "output": [URL]})),
        (mine("NOT_START"), mine("SUCCESS", result_url=URL)),
        ({"id": ID, "status": "Pending"}, {"id": ID, "status": "Ready", "result": {"sample": URL}}),
        (
            {"id": ID, "status": "starting"},
            {"code": "success", "data": {"id": ID, "status": "succeeded", "output": URL}},
        ),
    ],
)
def test_a_prediction_is_watched_in_every_shape(waiting: object, ended: object) -> None:
    """response of the wrong shape, bare prediction, task envelope, BFL shape"""
    prediction = watch(Script(answer(200, waiting), answer(200, ended)))
    assert (prediction.id, prediction.status, prediction.outputs) == (ID, PredictionStatus.SUCCEEDED, (URL,))


def test_an_envelope_that_never_learns_of_the_end_does_not_keep_the_wait_going() -> None:
    """`canceled`, `aborted`"""
    inside = {"id": "x", "status": "aborted", "output": None}
    script = Script(answer(200, mine("IN_PROGRESS", inside)))
    assert watch(script).status is PredictionStatus.ABORTED


def test_a_status_that_nobody_knows_is_logged_once_and_polled_on() -> None:
    """status `starting`, `processing`, or one nobody knows"""
    script = Script(told("starting"), PROCESSING, *[told("hibernating")] * 5, SUCCEEDED)
    assert watch(script).status is PredictionStatus.SUCCEEDED
    (warning,) = script.log.warnings
    assert "'hibernating'" in warning
    assert len(script.log.infos) == 3


def test_a_wait_logs_one_line_for_each_change_and_none_for_each_poll() -> None:
    """status `starting`, `processing`, or one nobody knows"""
    script = Script(*[told("starting")] * 10, *[PROCESSING] * 10, SUCCEEDED)
    watch(script)
    assert script.log.warnings == []
    assert [line.rpartition(" ")[2] for line in script.log.infos] == ["starting", "processing", "succeeded"]


PASSING = [IN_DOUBT, NOT_SENT, failing(429), failing(500), failing(503), html(502), html(429), failing(408)]
PASSING += [answer(503, {"code": code, "message": "no"}) for code in ("model_not_found", "prompt_blocked")]


@pytest.mark.parametrize("reply", PASSING)
def test_passing_trouble_is_borne_and_logged_once_and_so_is_its_end(reply: Reply) -> None:
    """GET: 429, 5xx, timeouts, resets, HTML"""
    script = Script(PROCESSING, *[reply] * 12, PROCESSING, SUCCEEDED)
    assert watch(script, seconds=3600).status is PredictionStatus.SUCCEEDED
    assert len(script.log.warnings) == 1
    assert sum("answers again" in line for line in script.log.infos) == 1


def test_trouble_that_comes_back_is_logged_again() -> None:
    """GET: 429, 5xx, timeouts, resets, HTML"""
    script = Script(IN_DOUBT, IN_DOUBT, PROCESSING, failing(503), failing(503), SUCCEEDED)
    watch(script)
    assert len(script.log.warnings) == 2
    assert sum("answers again" in line for line in script.log.infos) == 2


def test_a_page_of_a_proxy_is_borne_for_a_moment() -> None:
    """GET: 429, 5xx, timeouts, resets, HTML"""
    script = Script(PROCESSING, html(200), html(403), SUCCEEDED)
    assert watch(script).status is PredictionStatus.SUCCEEDED


def test_a_gateway_that_only_gives_pages_is_an_error() -> None:
    """redirect from the API, HTML where JSON is due"""
    script = Script(then=html(200))
    with pytest.raises(CallFailed) as caught:
        watch(script)
    assert caught.value.failure.reason is Reason.WRONG_URL
    assert len(script.requests) == DOUBTFUL_LIMIT


NOT_THERE = [
    TASK_NOT_EXIST,
    answer(404, {"detail": "not found", "status": 404}),
    answer(200, {"code": "success", "data": None}),
    answer(200, {"id": ID, "status": "Task not found"}),
]


NO_CREDIT = [
    failing(402),
    failing(403),
    answer(403, {"error": {"message": "top up", "code": "insufficient_user_quota"}}),
    answer(429, {"error": {"message": "top up", "code": "insufficient_user_quota"}}),
]


@pytest.mark.parametrize("reply", NO_CREDIT)
def test_what_is_said_of_credit_does_not_end_the_wait_for_what_is_paid_already(reply: Reply) -> None:
    """GET: 429, 5xx, timeouts, resets, HTML"""
    script = Script(PROCESSING, *[reply] * (DOUBTFUL_LIMIT - 1), PROCESSING, *[reply] * (DOUBTFUL_LIMIT - 1), SUCCEEDED)
    assert watch(script).outputs == (URL,)
    assert len(script.log.warnings) == 2


@pytest.mark.parametrize("reply", NO_CREDIT)
def test_a_gateway_that_keeps_asking_for_credit_is_an_error(reply: Reply) -> None:
    """GET: 429, 5xx, timeouts, resets, HTML"""
    script = Script(PROCESSING, then=reply)
    with pytest.raises(CallFailed) as caught:
        watch(script)
    assert caught.value.failure.reason in (Reason.CREDIT, Reason.FORBIDDEN)
    assert caught.value.verdict is Verdict.REFUSED
    assert len(script.requests) == 1 + DOUBTFUL_LIMIT


@pytest.mark.parametrize("reply", NOT_THERE)
def test_a_prediction_may_be_unknown_for_a_moment_after_it_was_made(reply: Reply) -> None:
    """GET: 404 or `task_not_exist` right after create"""
    script = Script(*[reply] * (DOUBTFUL_LIMIT - 1), PROCESSING, SUCCEEDED)
    assert watch(script).status is PredictionStatus.SUCCEEDED
    assert len(script.log.warnings) == 1


@pytest.mark.parametrize("reply", NOT_THERE)
def test_a_prediction_that_stays_unknown_is_an_error(reply: Reply) -> None:
    """GET: 404 or `task_not_exist` right after create"""
    script = Script(then=reply)
    with pytest.raises(CallFailed) as caught:
        watch(script)
    assert caught.value.failure.reason is Reason.NOT_FOUND
    assert not caught.value.may_exist
    assert len(script.requests) == DOUBTFUL_LIMIT


@pytest.mark.parametrize("reply", [failing(401), failing(400), answer(301, b"", location="/x"), UNTRUSTED])
def test_a_gateway_that_refuses_to_tell_ends_the_wait_at_once(reply: Reply) -> None:
    """redirect from the API, HTML where JSON is due"""
    script = Script(PROCESSING, reply)
    with pytest.raises(CallFailed) as caught:
        watch(script)
    assert caught.value.verdict is Verdict.REFUSED
    assert not caught.value.may_exist
    assert len(script.requests) == 2


@pytest.mark.parametrize(
    ("recording", "model"),
    [(PROCESSING_WITH_OUTPUT, SCHNELL), (PROCESSING_WITH_OUTPUT, PRO), (SDXL_BLOCKING_WITH_INLINE_PICTURE, PRO)],
)
def test_the_same_output_again_and_again_counts_as_success_although_the_status_lags(
    recording: dict[str, object], model: str
) -> None:
    """output: string, list, `data:` URI, null, shorter list than asked"""
    script = Script(PROCESSING, *[answer(200, {**recording, "id": ID})] * SETTLED_AFTER)
    prediction = watch(script, model=model)
    assert SETTLED_AFTER == 3
    assert prediction.status is PredictionStatus.SUCCEEDED
    assert prediction.status_word == "processing"
    assert prediction.outputs == tuple(recording["output"])  # type: ignore[arg-type]


@pytest.mark.parametrize("word", ["starting", "processing", "hibernating"])
def test_any_status_that_goes_on_may_lag_behind_the_output(word: str) -> None:
    """status `starting`, `processing`, or one nobody knows"""
    assert watch(Script(*[told(word, output=URL)] * SETTLED_AFTER)).status is PredictionStatus.SUCCEEDED


@pytest.mark.parametrize("between", [PROCESSING, OTHER, EMPTY])
def test_an_output_that_changed_in_between_has_not_settled(between: Reply) -> None:
    """output: string, list, `data:` URI, null, shorter list than asked"""
    script = Script(FILLED, FILLED, between, FILLED, FILLED, between, FILLED, FILLED, SUCCEEDED)
    assert watch(script).status_word == "succeeded"
    script = Script(FILLED, FILLED, between, FILLED, FILLED, FILLED)
    assert watch(script).status_word == "processing"


def test_a_poll_that_saw_nothing_does_not_keep_an_output_from_settling() -> None:
    """GET: 429, 5xx, timeouts, resets, HTML"""
    script = Script(FILLED, IN_DOUBT, FILLED, failing(503), FILLED)
    assert watch(script).outputs == (URL,)


@pytest.mark.parametrize("status", ["failed", "canceled", "aborted"])
def test_an_output_beside_a_status_that_ends_is_no_success(status: str) -> None:
    """`canceled`, `aborted`: as `succeeded` and `failed` do."""
    assert watch(Script(FILLED, FILLED, told(status, output=URL))).status == status


STAYS_UNSETTLED = [
    ("outside the catalogue", "stability-ai/sdxl", FILLED),
    ("no model known", "", FILLED),
    ("no input echoed", SCHNELL, told("processing", output=[URL])),
    ("an empty input echoed", SCHNELL, told("processing", output=[URL], input={})),
    ("a count that is none", SCHNELL, told("processing", output=[URL], input={"num_outputs": "1"})),
    ("fewer than asked", SCHNELL, told("processing", output=[URL], input={"num_outputs": 2})),
    ("no output", PRO, PROCESSING),
    ("an odd output", PRO, told("processing", output="out-0.webp")),
]


@pytest.mark.parametrize(
    ("model", "reply"), [row[1:] for row in STAYS_UNSETTLED], ids=[row[0] for row in STAYS_UNSETTLED]
)
def test_an_output_that_nobody_knows_to_be_complete_never_settles(model: str, reply: Reply) -> None:
    """output: string, list, `data:` URI, null, shorter list than asked"""
    script = Script(*[reply] * 9, SUCCEEDED)
    assert watch(script, model=model).status_word == "succeeded"
    with pytest.raises(DeadlinePassed) as caught:
        watch(Script(then=reply), model=model, seconds=120)
    assert caught.value.last is not None
    assert not caught.value.last.status.is_terminal


@pytest.mark.parametrize("host", ["https://api.deerapi.com", "https://api.cometapi.com", "https://gateway.example"])
def test_a_gateway_whose_status_may_lag_is_not_taken_by_its_word(host: str) -> None:
    """output: string, list, `data:` URI, null, shorter list than asked"""
    script = Script(*[FILLED] * SETTLED_AFTER, gateway=choose_gateway(host))
    assert watch(script).status is PredictionStatus.SUCCEEDED


def test_replicate_is_taken_by_its_word() -> None:
    """output: string, list, `data:` URI, null, shorter list than asked"""
    replicate = choose_gateway("https://api.replicate.com")
    assert watch(Script(*[FILLED] * 9, SUCCEEDED, gateway=replicate)).status_word == "succeeded"
    with pytest.raises(DeadlinePassed):
        watch(Script(then=FILLED, gateway=replicate), seconds=120)


def test_an_output_that_still_grows_is_waited_for() -> None:
    """output: string, list, `data:` URI, null, shorter list than asked"""
    growing = [told("processing", output=[URL] * count) for count in (1, 2, 3)]
    script = Script(*growing, told("succeeded", output=[URL] * 4))
    assert len(watch(script).outputs) == 4


def test_a_list_settles_once_it_has_grown_to_what_was_asked_for() -> None:
    """output: string, list, `data:` URI, null, shorter list than asked"""
    asked = {"prompt": "A", "num_outputs": 2}
    half, whole = (told("processing", output=[URL] * count, input=asked) for count in (1, 2))
    script = Script(*[half] * 5, *[whole] * SETTLED_AFTER)
    assert watch(script, model=SCHNELL).outputs == (URL, URL)
    assert len(script.requests) == 5 + SETTLED_AFTER


def test_the_deadline_ends_the_wait_with_the_prediction_as_last_seen() -> None:
    """deadline (`timeout`, also `execution_timeout`)"""
    script = Script(told("starting"), then=PROCESSING)
    with pytest.raises(DeadlinePassed) as caught:
        watch(script, seconds=60)
    assert caught.value.last is not None
    assert caught.value.last.status is PredictionStatus.PROCESSING
    assert caught.value.failure is None
    assert script.asked_at[-1] == pytest.approx(60)
    assert script.now == pytest.approx(START + 60)


def test_the_deadline_tells_what_went_wrong_last() -> None:
    """deadline (`timeout`, also `execution_timeout`)"""
    script = Script(PROCESSING, then=IN_DOUBT)
    with pytest.raises(DeadlinePassed) as caught:
        watch(script, seconds=60)
    assert caught.value.last is not None
    assert caught.value.failure is not None
    assert caught.value.failure.reason is Reason.NETWORK


def test_a_prediction_that_was_never_seen_by_the_deadline_is_not_made_up() -> None:
    """deadline (`timeout`, also `execution_timeout`)"""
    script = Script(then=Late(60, IN_DOUBT))
    with pytest.raises(DeadlinePassed) as caught:
        watch(script, seconds=300)
    assert caught.value.last is None
    assert script.now <= START + 300 + 60


@pytest.mark.parametrize("at_once", [True, False])
def test_a_deadline_that_has_passed_still_allows_one_look(at_once: bool) -> None:
    """deadline (`timeout`, also `execution_timeout`)"""
    assert watch(Script(SUCCEEDED), seconds=-5, at_once=at_once).status is PredictionStatus.SUCCEEDED
    script = Script(PROCESSING)
    with pytest.raises(DeadlinePassed):
        watch(script, seconds=-5, at_once=at_once)
    assert script.now == START


def test_each_poll_is_given_the_time_that_is_left() -> None:
    """deadline (`timeout`, also `execution_timeout`)"""
    script = Script(PROCESSING, Late(40, IN_DOUBT), then=PROCESSING)
    with pytest.raises(DeadlinePassed):
        watch(script, seconds=60, interval=7)
    assert script.asked_at == [0, 7, 54, 60]
    assert script.limits == [60, 53, 6, SHORTEST_LIMIT]


@pytest.mark.parametrize("seconds", [-3600, 0, 0.5])
def test_a_poll_at_the_deadline_is_given_a_moment(seconds: float) -> None:
    """deadline (`timeout`, also `execution_timeout`)"""
    script = Script(SUCCEEDED)
    watch(script, seconds=seconds)
    assert script.limits == [SHORTEST_LIMIT]


def test_a_picture_that_is_ready_at_the_deadline_is_not_lost() -> None:
    """deadline (`timeout`, also `execution_timeout`)"""
    script = Script(PROCESSING, SUCCEEDED)
    assert watch(script, seconds=3).outputs == (URL,)
    assert script.asked_at == [0, pytest.approx(3)]


def test_the_wait_comes_before_the_first_poll_unless_it_is_at_once() -> None:
    script = Script(SUCCEEDED)
    watch(script, at_once=False)
    assert script.asked_at == [pytest.approx(SCHEDULE.first_wait(0))]
    script = Script(SUCCEEDED)
    watch(script, at_once=True)
    assert script.asked_at == [0]


def test_the_times_of_the_polls_follow_the_schedule() -> None:
    """status `starting`, `processing`, or one nobody knows"""
    script = Script(*[PROCESSING] * 30, SUCCEEDED)
    watch(script, at_once=False)
    expected = [SCHEDULE.first_wait(0)]
    while len(expected) < 31:
        expected.append(expected[-1] + SCHEDULE.next_wait(expected[-1]))
    assert script.asked_at == pytest.approx(expected)


def test_the_schedule_counts_from_when_the_prediction_was_made() -> None:
    script = Script(PROCESSING, SUCCEEDED)
    watch(script, ago=40, at_once=False)
    assert script.sleeps == pytest.approx([SHORTEST_INTERVAL, SCHEDULE.next_wait(40 + SHORTEST_INTERVAL)])


def test_a_given_interval_is_kept() -> None:
    script = Script(*[PROCESSING] * 5, SUCCEEDED)
    watch(script, interval=7, at_once=False)
    assert script.asked_at == [7, 14, 21, 28, 35, 42]


def test_a_throttled_poll_waits_as_long_as_the_gateway_asks() -> None:
    """GET: 429, 5xx, timeouts, resets, HTML"""
    script = Script(failing(429, retry_after="30"), SUCCEEDED)
    watch(script, interval=1)
    assert script.sleeps == [30.5]


def test_a_gateway_that_asks_for_too_long_a_wait_is_polled_after_a_minute_lest_the_picture_expires() -> None:
    """GET: 429, 5xx, timeouts, resets, HTML"""
    script = Script(failing(429, retry_after="86400"), SUCCEEDED)
    assert watch(script).status is PredictionStatus.SUCCEEDED
    assert script.now == START + 60


def test_a_success_without_output_is_looked_at_again_before_it_is_believed() -> None:
    """output: string, list, `data:` URI, null, shorter list than asked"""
    assert watch(Script(EMPTY, EMPTY, SUCCEEDED)).outputs == (URL,)
    script = Script(*[EMPTY] * EMPTY_LIMIT)
    prediction = watch(script)
    assert (prediction.status, prediction.outputs) == (PredictionStatus.SUCCEEDED, ())
    assert len(script.requests) == EMPTY_LIMIT == 3


@pytest.mark.parametrize("looks", range(1, EMPTY_LIMIT))
def test_a_success_that_is_not_believed_yet_is_nobodys_end(looks: int) -> None:
    """deadline (`timeout`, also `execution_timeout`)"""
    script = Script(*[EMPTY] * looks)
    with pytest.raises(DeadlinePassed) as caught:
        watch(script, seconds=2 * (looks - 1), interval=2)
    last = caught.value.last
    assert last is not None
    assert (last.status, last.status_word, last.outputs) == (PredictionStatus.PROCESSING, "succeeded", ())


def test_a_success_with_an_odd_output_is_looked_at_again_and_then_shown() -> None:
    """output: string, list, `data:` URI, null, shorter list than asked"""
    odd = told("succeeded", output="out-0.webp")
    assert watch(Script(odd, odd, SUCCEEDED)).outputs == (URL,)
    prediction = watch(Script(*[odd] * EMPTY_LIMIT))
    assert (prediction.status, prediction.odd_output) == (PredictionStatus.SUCCEEDED, "out-0.webp")


@pytest.mark.parametrize("status", ["failed", "canceled", "aborted"])
def test_an_end_without_output_that_is_no_success_is_believed_at_once(status: str) -> None:
    """`canceled`, `aborted`: as `succeeded` and `failed` do."""
    assert watch(Script(EMPTY, told(status))).status == status


def test_an_output_that_is_already_deleted_is_not_waited_for() -> None:
    """output already expired (`data_removed`)"""
    script = Script(told("succeeded", data_removed=True))
    assert watch(script).data_removed
    assert len(script.requests) == 1


def test_a_list_that_may_still_grow_is_not_taken_for_the_end() -> None:
    """output: string, list, `data:` URI, null, shorter list than asked"""
    growing = told("processing", output=[URL], input={"prompt": "A", "num_outputs": 2})
    whole = told("succeeded", output=[URL, URL])
    assert watch(Script(*[growing] * (SETTLED_AFTER + 1), whole), model=SCHNELL).outputs == (URL, URL)


def test_trouble_makes_polls_rarer_and_never_more_frequent() -> None:
    """GET: 429, 5xx, timeouts, resets, HTML"""
    script = Script(*[failing(503)] * 8, SUCCEEDED)
    watch(script, interval=3)
    assert script.sleeps == [3, 3, 4, 8, 15, 15, 15, 15]


def test_a_gateway_that_asks_for_hardly_a_wait_does_not_shorten_the_pauses() -> None:
    """GET: 429, 5xx, timeouts, resets, HTML"""
    script = Script(*[failing(429, retry_after="0")] * 6, SUCCEEDED)
    watch(script, interval=0.1)
    assert script.sleeps == [1, 2, 4, 8, 15, 15]


def test_a_clock_that_is_behind_the_gateways_does_not_stop_the_polls() -> None:
    script = Script(PROCESSING, SUCCEEDED)
    watch(script, ago=-3600)
    assert script.sleeps == [SCHEDULE.next_wait(0)]


def test_another_predictions_answer_is_trouble_and_then_an_error_but_never_its_picture() -> None:
    """an answer about another prediction"""
    another = answer(200, {"id": "another", "status": "succeeded", "output": [URL]})
    script = Script(another, another, SUCCEEDED)
    assert watch(script).id == ID
    assert len(script.requests) == 3
    with pytest.raises(CallFailed, match="about another prediction") as caught:
        watch(Script(then=another))
    assert not caught.value.may_exist
