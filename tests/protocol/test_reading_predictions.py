"""What an answer says about a prediction, in each of the shapes that gateways use."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_flux.protocol.prediction import (
    Absent,
    Prediction,
    PredictionStatus,
    read_created,
    read_prediction,
)
from tests.protocol import recorded
from tests.protocol.recorded import envelope

URL = "https://replicate.delivery/xezq/abc/out-0.webp"
INLINE = "data:image/png;base64,iVBORw0KGgo="


def read(payload: object, *, asked_for: str | None = None) -> Prediction:
    prediction = read_prediction(payload, asked_for=asked_for)
    assert isinstance(prediction, Prediction)
    return prediction


def bare(**fields: object) -> dict[str, Any]:
    return {"id": "abc", "status": "processing", **fields}


@pytest.mark.parametrize("sample", [recorded.COMETAPI_CREATE, recorded.DEERAPI_CREATE])
def test_the_documented_answers_of_both_gateways_are_read(sample: dict[str, Any]) -> None:
    prediction = read(sample)
    assert prediction.id == sample["id"]
    assert prediction.status is PredictionStatus.STARTING
    assert prediction.model == sample["model"]
    assert prediction.input == sample["input"]
    assert prediction.outputs == ()
    assert prediction.error is None
    assert prediction.created_at == datetime.fromisoformat(sample["created_at"].replace("Z", "+00:00")).timestamp()
    assert prediction.started_at is prediction.completed_at is None
    assert prediction.data_removed is False
    assert prediction.page == sample["urls"]["web"]


@pytest.mark.parametrize(
    ("recording", "status", "outputs"),
    [
        (recorded.SDXL_SUCCEEDED_WITHOUT_MODEL, "succeeded", ("https://replicate.delivery/pbxt/iVLRYVd/out-0.png",)),
        (recorded.LLAMA_CANCELED, "canceled", ()),
        (recorded.SDXL_BLOCKING_WITH_INLINE_PICTURE, "processing", (INLINE,)),
        (recorded.SCHNELL_SUCCEEDED, "succeeded", ("https://replicate.delivery/yhqm/tlZvB/out-0.webp",)),
        (
            recorded.PRO_SUCCEEDED_AT_BFL,
            "succeeded",
            ("https://bflapistorage.blob.core.windows.net/public/ec0c/sample.png",),
        ),
        (recorded.PROCESSING_WITH_OUTPUT, "processing", ("https://replicate.delivery/xezq/cat/out-0.webp",)),
        (recorded.BFL_READY, "succeeded", ("https://delivery-eu1.bfl.ai/results/a7/sample.jpeg?se=2026",)),
    ],
    ids=lambda value: value["id"] if isinstance(value, dict) else None,
)
def test_recorded_objects_are_read(recording: dict[str, Any], status: str, outputs: tuple[str, ...]) -> None:
    prediction = read(recording)
    assert (prediction.id, prediction.status, prediction.outputs) == (recording["id"], status, outputs)
    assert prediction.model == recording.get("model", "")
    result = recording.get("result") or {}
    timed = {"predict_time": result["duration"]} if "duration" in result else {}
    assert prediction.metrics == {**timed, **recording.get("metrics", {})}
    assert (prediction.created_at is None) == ("created_at" not in recording)


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("starting", PredictionStatus.STARTING),
        ("processing", PredictionStatus.PROCESSING),
        ("succeeded", PredictionStatus.SUCCEEDED),
        ("failed", PredictionStatus.FAILED),
        ("canceled", PredictionStatus.CANCELED),
        ("cancelled", PredictionStatus.CANCELED),
        ("aborted", PredictionStatus.ABORTED),
        ("Succeeded ", PredictionStatus.SUCCEEDED),
        ("unknown", PredictionStatus.UNKNOWN),
        ("hibernating", PredictionStatus.UNKNOWN),
        ("", PredictionStatus.UNKNOWN),
        ("NOT_START", PredictionStatus.STARTING),
        ("SUBMITTED", PredictionStatus.STARTING),
        ("QUEUED", PredictionStatus.STARTING),
        ("IN_PROGRESS", PredictionStatus.PROCESSING),
        ("SUCCESS", PredictionStatus.SUCCEEDED),
        ("FAILURE", PredictionStatus.FAILED),
        ("Pending", PredictionStatus.PROCESSING),
        ("Ready", PredictionStatus.SUCCEEDED),
        ("Error", PredictionStatus.FAILED),
        ("Request Moderated", PredictionStatus.FAILED),
        ("Content Moderated", PredictionStatus.FAILED),
    ],
)
def test_every_status_word_has_a_meaning_and_is_kept(word: str, status: PredictionStatus) -> None:
    prediction = read(bare(status=word))
    assert (prediction.status, prediction.status_word) == (status, word)


def test_four_states_end_a_prediction_and_an_unknown_one_does_not() -> None:
    """`canceled`, `aborted`: both end the wait, like success and failure."""
    ended = {status.value for status in PredictionStatus if status.is_terminal}
    assert ended == {"succeeded", "failed", "canceled", "aborted"}


@pytest.mark.parametrize(
    ("output", "outputs"),
    [
        (URL, (URL,)),
        ([URL], (URL,)),
        ([URL, f"{URL}?2"], (URL, f"{URL}?2")),
        (INLINE, (INLINE,)),
        ([INLINE], (INLINE,)),
        (None, ()),
        ([], ()),
        ("", ()),
        ([None, "", URL, 5, {"url": URL}], (URL,)),
        ({"url": URL}, ()),
        (5, ()),
        ("http://127.0.0.1:8000/out-0.webp", ("http://127.0.0.1:8000/out-0.webp",)),
        ("s3://bucket/out-0.webp", ()),
        ("out-0.webp", ()),
        ("//replicate.delivery/out-0.webp", ()),
        ("javascript:alert(1)", ()),
        ("file:///etc/passwd", ()),
        (["ftp://x/out-0.webp", URL, "out-1.webp"], (URL,)),
    ],
)
def test_outputs_are_always_one_list_of_texts(output: object, outputs: tuple[str, ...]) -> None:
    """output: string, list, `data:` URI, null, shorter list than asked"""
    assert read(bare(output=output)).outputs == outputs


@pytest.mark.parametrize(
    ("output", "odd"),
    [
        (URL, ""),
        ([URL, URL], ""),
        (INLINE, ""),
        (None, ""),
        ([], ""),
        ("", ""),
        ({}, ""),
        ("s3://bucket/out-0.webp", "s3://bucket/out-0.webp"),
        (["one", "two"], "['one', 'two']"),
        ({"url": "x"}, "{'url': 'x'}"),
        (5, "5"),
        ([None], "[None]"),
        ("x" * 1000, "x" * 200),
        (["x" * 1000], "['" + "x" * 198),
    ],
)
def test_an_output_that_is_no_url_is_left_out_and_shown(output: object, odd: str) -> None:
    """output: string, list, `data:` URI, null, shorter list than asked"""
    prediction = read(bare(status="succeeded", output=output))
    assert prediction.odd_output == odd
    assert not (prediction.odd_output and prediction.outputs)


def test_an_odd_output_is_shown_in_every_shape() -> None:
    """output: string, list, `data:` URI, null, shorter list than asked"""
    assert read({"id": "abc", "status": "Ready", "result": {"sample": "out.png"}}).odd_output == "out.png"
    assert read(envelope("SUCCESS", bare(status="succeeded", output="out.png"))).odd_output == "out.png"
    assert read(envelope("SUCCESS", {"id": "abc", "status": "Ready", "result": {"sample": 5}})).odd_output == "5"


def test_a_list_shorter_than_asked_is_read_as_it_is() -> None:
    """output: string, list, `data:` URI, null, shorter list than asked"""
    prediction = read(bare(status="succeeded", input={"num_outputs": 4}, output=[URL, URL]))
    assert prediction.outputs == (URL, URL)


def test_an_older_answer_has_no_output_at_all() -> None:
    assert read(bare()).outputs == ()


def test_a_prediction_whose_data_is_gone_says_so() -> None:
    """output already expired (`data_removed`)"""
    prediction = read(
        bare(
            status="succeeded",
            data_removed=True,
            input={},
            output=None,
            logs=None,
            completed_at="2026-03-12T11:27:20Z",
        )
    )
    assert prediction.data_removed
    assert prediction.outputs == ()
    assert prediction.completed_at == datetime(2026, 3, 12, 11, 27, 20, tzinfo=timezone.utc).timestamp()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (None, None),
        ("", None),
        ("Director: unexpected error (E9828)", "Director: unexpected error (E9828)"),
        ({"message": "flagged", "code": 5}, "flagged"),
        ({"code": 5}, "{'code': 5}"),
        (["one", 2], "['one', 2]"),
        (False, "False"),
    ],
)
def test_an_error_is_always_a_text_or_nothing(error: object, text: str | None) -> None:
    assert read(bare(status="failed", error=error)).error == text


SECOND = datetime(2026, 3, 12, 11, 27, 18, tzinfo=timezone.utc).timestamp()


@pytest.mark.parametrize(
    ("written", "fraction"),
    [
        ("2026-03-12T11:27:18Z", 0.0),
        ("2026-03-12T11:27:18.258Z", 0.258),
        ("2026-03-12T11:27:18.258123Z", 0.258123),
        ("2026-03-12T11:27:18.25812345Z", 0.25812345),
        ("2026-03-12T11:27:18.258123456Z", 0.258123456),
        ("2026-03-12T11:27:18.2Z", 0.2),
        ("2026-03-12T13:27:18.258+02:00", 0.258),
        ("2026-03-12T05:57:18.258123456-0530", 0.258123456),
        ("2026-03-12 11:27:18.258z", 0.258),
        ("2026-03-12T11:27:18.258", 0.258),
    ],
)
def test_times_of_every_length_and_zone_are_read(written: str, fraction: float) -> None:
    assert read(bare(created_at=written)).created_at == pytest.approx(SECOND + fraction, abs=1e-6)


@pytest.mark.parametrize(
    "written",
    [
        "yesterday",
        "",
        "2026-13-12T11:27:18Z",
        "2026-03-12",
        "2026-03-12T11:27:18+99:00",
        None,
        True,
        [],
        {},
        0,
        -5,
        10**400,
        1_773_300_000_000,
        math.inf,
        math.nan,
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59.9999999-01:00",
    ],
)
def test_a_time_that_no_calendar_shows_is_taken_as_not_told(written: object) -> None:
    prediction = read(bare(created_at=written, started_at=written, completed_at=written))
    assert prediction.created_at is prediction.started_at is prediction.completed_at is None


def test_unknown_keys_are_ignored() -> None:
    prediction = read(bare(webhook_completed=None, stream=True, deadline="later", brand_new={"a": 1}))
    assert prediction == read(bare())


@pytest.mark.parametrize(
    ("name", "value"), [("input", None), ("input", "text"), ("metrics", None), ("metrics", []), ("urls", "x")]
)
def test_fields_of_another_type_than_declared_are_taken_as_not_told(name: str, value: object) -> None:
    assert read(bare(**{name: value})) == read(bare())


@pytest.mark.parametrize("web", ["javascript:alert(1)", "/p/abc", None, 5])
def test_a_page_for_people_is_a_web_page(web: object) -> None:
    assert read(bare(urls={"web": web})).page == ""


@pytest.mark.parametrize(
    "body",
    [
        recorded.REPLICATE_UNAUTHENTICATED,
        {"detail": "The requested resource could not be found.", "status": 404},
        {"id": "abc", "status": 404},
        {"id": "abc", "status": 500.0},
        {"id": "abc", "status": True},
    ],
)
def test_an_error_body_with_a_numeric_status_is_no_prediction(body: dict[str, object]) -> None:
    """response of the wrong shape, bare prediction, task envelope, BFL shape"""
    assert read_prediction(body) is Absent.NOT_A_PREDICTION


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "succeeded",
        5,
        {},
        {"id": "abc"},
        {"status": "succeeded"},
        {"id": "", "status": "succeeded"},
        {"id": 0, "status": "succeeded"},
        {"id": True, "status": "succeeded"},
        {"id": "..", "status": "succeeded"},
        {"id": "a\nb", "status": "succeeded"},
        {"id": "a/b", "status": "succeeded"},
        {"id": "a" * 201, "status": "succeeded"},
        {"id": "abc", "status": None},
        {"id": "abc", "status": ["succeeded"]},
        [{"id": "abc", "status": "succeeded"}],
        {"code": "fail_to_fetch_task", "message": "no", "data": None},
        {"code": "success", "message": "", "data": []},
        {"code": "success", "message": "", "data": {}},
        {"code": "success", "message": "", "data": {"data": {}}},
        {"code": ["success"], "data": {"id": "abc", "status": "succeeded"}},
    ],
)
def test_anything_else_is_no_prediction(payload: object) -> None:
    """response of the wrong shape, bare prediction, task envelope, BFL shape"""
    assert read_prediction(payload) is Absent.NOT_A_PREDICTION


@pytest.mark.parametrize(
    ("payload", "prediction_id"),
    [
        ({"id": "abc"}, "abc"),
        ({"id": 5}, "5"),
        ({"task_id": "abc"}, "abc"),
        ({"id": "", "task_id": "abc"}, "abc"),
        ({"id": None, "task_id": 5}, "5"),
        ({"id": "abc", "status": None}, "abc"),
        ({"id": "abc", "status": ["succeeded"]}, "abc"),
        ({"id": "abc", "error": None}, "abc"),
        ({"id": "abc", "error": ""}, "abc"),
        ({"code": "success", "data": "abc"}, "abc"),
        ({"code": 0, "data": 5}, "5"),
        ({"code": 200, "data": {"id": "abc"}}, "abc"),
        ({"code": "success", "message": "", "data": {"task_id": "abc"}}, "abc"),
        ({"code": "success", "message": "", "data": {"task_id": "abc", "data": {}}}, "abc"),
    ],
)
def test_a_create_that_is_answered_with_nothing_but_an_id_has_been_made(payload: object, prediction_id: str) -> None:
    """response of the wrong shape, bare prediction, task envelope, BFL shape"""
    assert read_prediction(payload) is Absent.NOT_A_PREDICTION
    assert read_created(payload) == Prediction(id=prediction_id, status=PredictionStatus.STARTING)


@pytest.mark.parametrize(
    "payload",
    [
        None,
        "abc",
        5,
        [],
        {},
        [{"id": "abc"}],
        {"id": ""},
        {"id": None},
        {"id": 0},
        {"id": True},
        {"id": 1.5},
        {"id": ["abc"]},
        {"id": {"abc": 1}},
        {"status": "starting"},
        {"id": "abc", "error": "busy"},
        {"id": "abc", "error": {"message": "busy"}},
        {"id": "abc", "status": 404},
        {"id": "abc", "status": True},
        {"data": {"id": "abc"}},
        {"code": "fail_to_fetch_task", "message": "no", "data": "abc"},
        {"code": "fail_to_fetch_task", "message": "no", "data": {"id": "abc"}},
        {"code": ["success"], "data": {"id": "abc"}},
        {"code": "success", "data": ""},
        {"code": "success", "data": []},
        {"code": "success", "data": ["abc"]},
        {"code": "success", "data": True},
        {"code": "success", "data": {"data": {"id": "abc"}}},
        {"code": "success", "data": {"task_id": "abc", "error": "busy"}},
        {"code": "success", "data": {"id": "abc", "status": 500}},
    ],
)
def test_a_create_that_names_no_id_or_an_error_is_not_taken_for_made(payload: object) -> None:
    """response of the wrong shape, bare prediction, task envelope, BFL shape"""
    assert read_created(payload) is Absent.NOT_A_PREDICTION


@pytest.mark.parametrize(
    "payload",
    [
        recorded.COMETAPI_CREATE,
        recorded.DEERAPI_CREATE,
        recorded.BFL_READY,
        envelope("SUBMITTED"),
        {"id": "abc", "polling_url": "https://api.bfl.ai/v1/get_result?id=abc"},
        {"code": "success", "data": None},
        {"code": "task_not_exist", "message": "", "data": None},
        {"id": "abc", "status": "Task not found"},
    ],
)
def test_a_create_that_is_answered_in_full_is_read_in_full(payload: object) -> None:
    """response of the wrong shape, bare prediction, task envelope, BFL shape"""
    assert read_created(payload) == read_prediction(payload)


@pytest.mark.parametrize(
    "payload",
    [
        {"code": "task_not_exist", "message": "task_not_exist", "data": None},
        {"code": "success", "data": None},
        {"code": 200, "data": None},
        {"id": "abc", "status": "Task not found"},
        {"id": "abc", "status": "Task not found", "result": None},
    ],
)
def test_a_gateway_can_say_that_it_knows_no_such_prediction(payload: object) -> None:
    """GET: 404 or `task_not_exist` right after create"""
    assert read_prediction(payload) is Absent.NOT_FOUND


@pytest.mark.parametrize("code", ["success", 0, 200])
def test_a_task_envelope_with_the_prediction_inside_is_read(code: object) -> None:
    """response of the wrong shape, bare prediction, task envelope, BFL shape"""
    payload = {**envelope("SUCCESS", recorded.SCHNELL_SUCCEEDED), "code": code}
    prediction = read(payload, asked_for="task_0123456789")
    assert prediction.id == "task_0123456789"
    assert (prediction.status, prediction.status_word) == (PredictionStatus.SUCCEEDED, "SUCCESS")
    assert prediction.outputs == ("https://replicate.delivery/yhqm/tlZvB/out-0.webp",)
    assert prediction.model == "replicate/flux-schnell-internal-model"
    assert prediction.metrics == {"predict_time": 0.8}
    assert prediction.created_at == read(recorded.SCHNELL_SUCCEEDED).created_at


def test_a_task_envelope_around_a_bfl_answer_is_read() -> None:
    assert read(envelope("SUCCESS", recorded.BFL_READY)).outputs == read(recorded.BFL_READY).outputs


@pytest.mark.parametrize("inside", [None, {}, [], "text", {"detail": "gone", "status": 404}])
def test_a_task_envelope_without_a_prediction_inside_is_read(inside: object) -> None:
    """response of the wrong shape, bare prediction, task envelope, BFL shape"""
    payload = envelope("SUCCESS", inside, result_url=URL, finish_time=1773300009)
    prediction = read(payload)
    assert prediction.id == "task_0123456789"
    assert prediction.status is PredictionStatus.SUCCEEDED
    assert prediction.outputs == (URL,)
    assert (prediction.created_at, prediction.started_at, prediction.completed_at) == (
        1773300000.0,
        1773300001.0,
        1773300009.0,
    )


def test_a_prediction_right_inside_an_envelope_keeps_its_outputs() -> None:
    """response of the wrong shape, bare prediction, task envelope, BFL shape"""
    prediction = read({"code": "success", "message": "", "data": recorded.PRO_SUCCEEDED_AT_BFL})
    assert prediction == read(recorded.PRO_SUCCEEDED_AT_BFL)


def test_a_prediction_inside_a_task_without_a_status_is_read() -> None:
    prediction = read({"code": "success", "data": {"task_id": "task_1", "data": recorded.SCHNELL_SUCCEEDED}})
    assert prediction == read(recorded.SCHNELL_SUCCEEDED)


def test_a_task_that_has_not_ended_has_no_end() -> None:
    assert read(envelope("IN_PROGRESS")).completed_at is None


@pytest.mark.parametrize(
    ("outside", "inside", "status"),
    [
        ("NOT_START", "starting", PredictionStatus.STARTING),
        ("IN_PROGRESS", "processing", PredictionStatus.PROCESSING),
        ("SUCCESS", "processing", PredictionStatus.SUCCEEDED),
        ("UNKNOWN", "processing", PredictionStatus.PROCESSING),
        ("UNKNOWN", "hibernating", PredictionStatus.UNKNOWN),
        ("IN_PROGRESS", "hibernating", PredictionStatus.PROCESSING),
        ("IN_PROGRESS", "succeeded", PredictionStatus.SUCCEEDED),
        ("IN_PROGRESS", "aborted", PredictionStatus.ABORTED),
        ("UNKNOWN", "failed", PredictionStatus.FAILED),
        ("FAILURE", "canceled", PredictionStatus.CANCELED),
        ("FAILURE", "processing", PredictionStatus.FAILED),
    ],
)
def test_a_prediction_that_ended_counts_more_than_its_envelope(
    outside: str, inside: str, status: PredictionStatus
) -> None:
    """`canceled`, `aborted`: a gateway without a word for them would leave its envelope running for ever."""
    assert read(envelope(outside, bare(status=inside))).status is status


def test_the_reason_of_a_failed_task_is_its_error_and_not_a_picture() -> None:
    """`failed`: new-api repeats the reason where the picture's URL would be."""
    prediction = read(envelope("FAILURE", fail_reason="upstream said no", result_url="upstream said no"))
    assert prediction.error == "upstream said no"
    assert prediction.outputs == ()


def test_no_text_of_a_failure_is_lost() -> None:
    """`failed`: either text can hold the code that says whether a new attempt is worth its price."""
    inside = bare(status="failed", error="flagged as sensitive (E005)")
    assert read(envelope("FAILURE", inside, fail_reason="task failed")).error == (
        "task failed: flagged as sensitive (E005)"
    )
    assert read(envelope("FAILURE", inside, fail_reason="flagged as sensitive (E005)")).error == (
        "flagged as sensitive (E005)"
    )


def test_the_id_that_was_asked_for_wins() -> None:
    mine = "task_0123456789"
    assert read(envelope("SUCCESS", bare()), asked_for=mine).id == mine
    assert read(envelope("SUCCESS", bare())).id == mine
    assert read({**bare(), "id": 17, "task_id": mine}, asked_for=mine).id == mine
    assert read({**bare(), "id": 17}, asked_for="17").id == "17"


@pytest.mark.parametrize(
    "payload",
    [
        bare(),
        {**bare(), "id": 18},
        {**bare(), "task_id": "another"},
        envelope("SUCCESS", bare()),
        envelope("SUCCESS", {**bare(), "id": "mine"}),
        envelope("SUCCESS", bare(), task_id=None),
        {"code": "success", "data": bare()},
    ],
)
def test_an_answer_about_another_prediction_is_not_believed(payload: object) -> None:
    assert read_prediction(payload, asked_for="mine") is Absent.ANOTHER


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        ({"id": "abc", "polling_url": "https://api.bfl.ai/v1/get_result?id=abc"}, PredictionStatus.STARTING),
        (
            {"id": "abc", "polling_url": "https://api.bfl.ai/v1/get_result?id=abc", "cost": None, "input_mp": None},
            PredictionStatus.STARTING,
        ),
        ({"id": "abc", "status": "Pending", "webhook_url": "https://me.example"}, PredictionStatus.PROCESSING),
        ({"id": "abc", "status": "Pending", "result": None, "progress": 0.5}, PredictionStatus.PROCESSING),
        ({"id": "abc", "status": "Ready", "result": {"sample": URL}}, PredictionStatus.SUCCEEDED),
        ({"id": "abc", "status": "Error", "result": None}, PredictionStatus.FAILED),
    ],
)
def test_answers_of_bfl_are_read(payload: dict[str, Any], status: PredictionStatus) -> None:
    """response of the wrong shape, bare prediction, task envelope, BFL shape"""
    prediction = read(payload)
    assert (prediction.id, prediction.status) == ("abc", status)
    assert prediction.outputs == ((URL,) if status is PredictionStatus.SUCCEEDED else ())


@pytest.mark.parametrize("word", ["Request Moderated", "Content Moderated"])
def test_a_moderated_answer_of_bfl_names_its_status_as_the_error(word: str) -> None:
    """`failed`: the word is all that tells a refusal of the content from a passing failure."""
    assert read({"id": "abc", "status": word}).error == word
    assert read({"id": "abc", "status": word, "error": "see details"}).error == f"{word}: see details"


KEYS = [
    *("id", "task_id", "status", "output", "error", "result", "sample", "data", "code", "message", "polling_url"),
    *("input", "metrics", "urls", "web", "created_at", "submit_time", "result_url", "fail_reason", "data_removed"),
]
WORDS = ["succeeded", "aborted", "SUCCESS", "FAILURE", "Ready", "Task not found", "success", "abc", URL, INLINE]
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text()
    | st.sampled_from(WORDS)
    | st.datetimes().map(lambda moment: f"{moment.isoformat()}+14:00")
)
JSON_VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner, max_size=8),
    max_leaves=25,
)
NEARLY_PREDICTIONS = st.fixed_dictionaries(
    {"id": st.text(min_size=1), "status": st.sampled_from(WORDS) | st.text()},
    optional={key: JSON_VALUES for key in KEYS if key not in ("id", "status")},
)
NEARLY_ENVELOPES = st.fixed_dictionaries(
    {"code": st.sampled_from(["success", 0, 200]), "data": NEARLY_PREDICTIONS | JSON_VALUES}
)


@given(payload=JSON_VALUES | NEARLY_PREDICTIONS | NEARLY_ENVELOPES, asked_for=st.none() | st.text(min_size=1))
def test_reading_never_raises_and_gives_what_can_be_handed_on(payload: object, asked_for: str | None) -> None:
    """response of the wrong shape, bare prediction, task envelope, BFL shape"""
    prediction = read_prediction(payload, asked_for=asked_for)
    created = read_created(payload)
    if isinstance(prediction, Absent):
        bare = prediction is Absent.NOT_A_PREDICTION and not isinstance(created, Absent)
        assert not bare or created == Prediction(id=created.id, status=PredictionStatus.STARTING)
        assert isinstance(created, Absent) or created.id
        return
    assert asked_for is not None or created == prediction
    assert prediction.id
    assert asked_for is None or prediction.id == asked_for
    assert all(output.startswith(("https://", "http://", "data:")) for output in prediction.outputs)
    assert len(prediction.odd_output) <= 200
    assert prediction.error is None or isinstance(prediction.error, str)
    assert isinstance(prediction.model, str)
    assert isinstance(prediction.page, str)
    for moment in (prediction.created_at, prediction.started_at, prediction.completed_at):
        assert moment is None or datetime.fromtimestamp(moment, timezone.utc)
