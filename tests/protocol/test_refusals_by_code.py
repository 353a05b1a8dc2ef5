"""A refusal that is told by its code alone is never tried, and never paid for, again."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_flux.exceptions import FluxError, FluxPredictionRejectedError, FluxRefusedError
from airflow_provider_flux.protocol.catalogue import check_input
from airflow_provider_flux.protocol.classify import Problem, Reason, Verdict, can_pass, classify, is_content_refusal
from airflow_provider_flux.protocol.messages import Purpose, Request, Response
from airflow_provider_flux.protocol.prediction import Prediction, read_prediction
from tests.batch.task_instance import SCHNELL, BatchTaskInstance, table
from tests.conftest import Connect
from tests.durable.task_instance import OperatorTaskInstance

SAID = "Please change your request."

REFUSED: list[dict[str, Any]] = [
    {"status": "failed", "error": {"code": "E005", "message": SAID}},
    {"status": "failed", "error": {"message": SAID, "error_code": "E005"}},
    {"status": "failed", "error": {"message": SAID, "type": "content_policy_violation"}},
    {"status": "failed", "error": {"code": "E005"}},
    {"status": "failed", "error": {"detail": SAID, "code": "E005"}},
    {"status": "failed", "error": [{"code": "E005", "message": SAID}]},
    {"status": "failed", "error": SAID, "code": "E005"},
    {"status": "failed", "error": SAID, "error_code": "E005"},
    {"status": "failed", "error": None, "code": "prompt_blocked"},
    {"status": "failed", "error": SAID, "logs": "starting\nDirector: unexpected error (E005)\n"},
    {"status": "failed", "error": None, "logs": "(E005)"},
    {"status": "Error", "error": {"code": "sensitive_words_detected", "message": SAID}},
    {"status": "failed", "error": f"{SAID} (E005) (x)"},
    {"status": "failed", "error": {"code": "moderation_blocked", "message": SAID}},
]
MAY_PASS: list[dict[str, Any]] = [
    {"status": "failed", "error": {"code": "E003", "message": SAID}},
    {"status": "failed", "error": SAID, "code": "fail_to_fetch_task"},
    {"status": "failed", "error": SAID, "logs": "Using seed: 5005\n(E9828)"},
    {"status": "failed", "error": {"code": 5, "message": SAID}},
    {"status": "failed", "error": None},
]


def read(payload: dict[str, Any]) -> Prediction:
    made = read_prediction(payload)
    assert isinstance(made, Prediction)
    return made


@pytest.mark.parametrize("body", REFUSED)
def test_a_failure_is_known_as_refused_content_by_its_code(body: dict[str, Any]) -> None:
    made = read({"id": "abc", **body})
    assert is_content_refusal(made.error or "")
    assert not can_pass(made.error or "")


@pytest.mark.parametrize("task", [{"code": "E005"}, {"error_code": "E005"}, {"data": {"error": {"code": "E005"}}}])
def test_an_envelope_tells_it_as_well(task: dict[str, Any]) -> None:
    data = {"task_id": "abc", "status": "FAILURE", "fail_reason": SAID, **task}
    if "data" in task:
        data["data"] = {"id": "x", "status": "failed", **task["data"]}
    made = read({"code": "success", "message": "", "data": data})
    assert is_content_refusal(made.error or "")
    assert SAID in (made.error or "")


@pytest.mark.parametrize("body", MAY_PASS)
def test_other_codes_may_pass(body: dict[str, Any]) -> None:
    assert can_pass(read({"id": "abc", **body}).error or "")


def test_a_success_has_no_error_whatever_its_logs_say() -> None:
    made = read({"id": "abc", "status": "succeeded", "output": "https://x/y.png", "logs": "(E005)", "code": "E005"})
    assert made.error is None


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": "E005", "message": SAID}},
        {"error": {"type": "content_policy_violation", "code": "", "message": SAID}},
        {"error": [{"code": "E005", "message": SAID}]},
        {"errors": [{"code": "E005", "message": SAID}]},
        {"code": "E005", "message": SAID},
        {"code": "fail_to_fetch_task", "message": json.dumps({"detail": SAID, "code": "E005"})},
        {"title": SAID, "type": "prompt_blocked", "status": 400},
    ],
)
@pytest.mark.parametrize("status", [200, 400, 422, 500, 503])
def test_an_answer_to_a_create_is_known_as_refused_content_by_its_code(body: dict[str, Any], status: int) -> None:
    request = Request(Purpose.CREATE, "POST", "/x", {})
    problem = classify(request, Response(status, {}, json.dumps(body).encode()))
    if status == 200 and "error" not in body:
        return
    assert isinstance(problem, Problem)
    assert (problem.verdict, problem.failure.reason) == (Verdict.REFUSED, Reason.CONTENT)


class Gateway:
    """Answers every create with the same body, and counts them."""

    def __init__(self) -> None:
        self.posts = 0
        self.status = 200
        self.body: dict[str, Any] = {}
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                gateway.posts += 1
                self.rfile.read(int(self.headers["Content-Length"]))
                self.answer()

            def answer(self) -> None:
                body = json.dumps(gateway.body).encode()
                self.send_response(gateway.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                self.answer()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def gateway(connect: Connect) -> Iterator[Gateway]:
    made = Gateway()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    connect(made.url, gateway="deerapi")
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.mark.parametrize("body", [REFUSED[0], REFUSED[6], REFUSED[9]])
def test_a_batch_and_its_retries_pay_once_for_what_is_refused(
    gateway: Gateway, tmp_path: Path, body: dict[str, Any]
) -> None:
    """`failed`"""
    gateway.body = {"id": "abc", "model": SCHNELL, **body}
    instance = BatchTaskInstance(tmp_path, rows=table(1))
    with pytest.raises(FluxError, match="all 1 failed"):
        instance.execute()
    for _ in range(2):
        with pytest.raises(FluxError, match="all 1 failed"):
            instance.retry()
    assert gateway.posts == 1
    assert "The content was refused" in instance.manifest()[0]["error"]


def test_a_task_and_its_retry_pay_once_for_what_is_refused(gateway: Gateway) -> None:
    """`failed`"""
    gateway.body = {"id": "abc", "model": SCHNELL, **REFUSED[0]}
    instance = OperatorTaskInstance(
        {"task_id": "make", "model": SCHNELL, "prompt": "A hat", "wait_for_completion": True}
    )
    for attempt in (instance.execute, instance.retry):
        with pytest.raises(FluxPredictionRejectedError, match="The content was refused"):
            attempt()
    assert gateway.posts == 1


def test_a_create_that_is_refused_with_a_500_is_not_sent_again(gateway: Gateway) -> None:
    """`failed`"""
    gateway.status, gateway.body = 500, {"error": {"code": "E005", "message": SAID}}
    with pytest.raises(FluxRefusedError, match="The content was refused"):
        OperatorTaskInstance({"task_id": "make", "model": SCHNELL, "prompt": "A hat"}).execute()
    assert gateway.posts == 1


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("megapixels", 1, '(the text "1" is meant, in quotes)'),
        ("megapixels", 1.0, '(the text "1" is meant, in quotes)'),
        ("megapixels", 0.25, '(the text "0.25" is meant, in quotes)'),
        ("megapixels", 2, 'one of "1", "0.25"'),
        ("megapixels", "2", 'allowed: "1", "0.25"'),
        ("megapixels", "1.0", 'allowed: "1", "0.25"'),
        ("aspect_ratio", 1, '(the text "1" is meant, in quotes)'),
        ("output_format", None, "(leave the field out instead)"),
        ("seed", None, "(leave the field out instead)"),
        ("seed", "7", "(7 is meant, without quotes; a template renders to text"),
        ("seed", "seven", "(a template renders to text"),
        ("go_fast", "true", "(True is meant, without quotes; a template renders to text"),
        ("go_fast", "False", "(False is meant, without quotes; a template renders to text"),
        ("go_fast", 1, "(True is meant)"),
        ("go_fast", 0, "(False is meant)"),
        ("go_fast", "yes", "(a template renders to text"),
        ("num_outputs", True, "allowed: integer"),
        ("num_outputs", "2 ", "(2 is meant, without quotes"),
        ("prompt", "", "it is empty"),
        ("prompt", " \n", "it is empty"),
    ],
)
def test_a_value_of_the_wrong_type_says_what_is_meant(field: str, value: Any, said: str) -> None:
    (error,) = check_input(SCHNELL, {"prompt": "a cat", field: value}).errors
    assert said in error
    assert "did you mean 1?" not in error


def test_an_empty_prompt_beside_a_picture_is_one() -> None:
    given = {"prompt": "", "image": "https://pictures.example/1.png"}
    assert check_input("black-forest-labs/flux-dev", given).errors == ()
