from __future__ import annotations

import socket
import threading
import time
from email.utils import parsedate_to_datetime

import pytest
import requests

from airflow_provider_flux.emulator import FAULT_KINDS, FAULTS, FaultRule

PATH = "/replicate/v1/models/black-forest-labs/flux-dev/predictions"
BODY = {"input": {"prompt": "a boat"}}
BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


def last(client):
    return client.emulator.requests[-1]


@pytest.mark.parametrize("name", [name for name in FAULTS if name[0].isdigit()])
@pytest.mark.parametrize("prefix", ["/replicate/v1", "/v1"])
def test_a_fault_named_by_its_status_answers_with_it(client, prefix, name):
    client.emulator.add_fault(name)
    answer = client.create(prefix=prefix)
    assert answer.status_code == int(name[:3])
    accepted = name.endswith("_after_accept")
    assert client.emulator.accepted == accepted
    assert (last(client).fault, last(client).accepted, last(client).status) == (name, accepted, int(name[:3]))
    assert client.create(prefix=prefix).ok


@pytest.mark.parametrize("kind", ["get", "cancel", "list", "file", "models", "balance", "upload", "other"])
def test_every_kind_of_request_can_meet_a_fault(client, kind):
    done = client.finished(prefix="/v1")
    client.emulator.add_fault("503", on=kind)
    paths = {
        "get": ("GET", f"/v1/predictions/{done['id']}"),
        "cancel": ("POST", f"/v1/predictions/{done['id']}/cancel"),
        "list": ("GET", "/v1/predictions"),
        "file": ("GET", done["output"][0]),
        "models": ("GET", "/api/models"),
        "balance": ("GET", "/v1/dashboard/billing/usage"),
        "upload": ("POST", "/v1/files"),
        "other": ("GET", "/v1/account"),
    }
    assert set(FAULT_KINDS) == {*paths, "create", "any"}
    assert client.create().ok
    assert client.request(*paths[kind]).status_code == 503
    # An upload of nothing is refused, but not by the fault.
    assert client.request(*paths[kind]).status_code == (400 if kind == "upload" else 200)


def test_the_hints_of_a_429(client):
    def refused(name, prefix="/replicate/v1", seconds=9):
        client.emulator.add_fault(name, retry_after=seconds)
        answer = client.create(prefix=prefix)
        assert answer.status_code == 429
        return answer

    assert refused("429_header").headers["Retry-After"] == "9"
    assert refused("429_header", seconds=0.2).headers["Retry-After"] == "0.2"
    assert parsedate_to_datetime(refused("429_date").headers["Retry-After"]) is not None
    assert refused("429_body").json()["retry_after"] == 9
    assert "resets in ~9s." in refused("429_text").json()["error"]["message"]
    assert "retry_after" in refused("429_upstream").json()["message"]
    assert refused("429_body", "/v1").json()["retry_after"] == 9
    assert "resets in ~9s." in refused("429_text", "/v1").json()["detail"]
    bare = refused("429")
    assert "Retry-After" not in bare.headers
    assert "9" not in bare.json()["error"]["message"].partition("(")[0]
    assert client.emulator.accepted == 0


@pytest.mark.parametrize(
    ("name", "status", "content"),
    [
        ("html", 200, b"<!DOCTYPE html>"),
        ("wrong_shape", 200, b'{"result"'),
        ("not_an_object", 200, b"["),
        ("null_body", 200, b"null"),
        ("empty", 200, b""),
        ("failure_in_200", 200, b'{"error"'),
        ("empty_envelope", 200, b'{"code":"success","data":null}'),
        ("truncated_json", 200, b'{"completed_at":null,'),
    ],
)
def test_answers_of_the_wrong_shape_make_no_prediction(client, name, status, content):
    client.emulator.add_fault(name)
    answer = client.create()
    assert answer.status_code == status
    assert answer.content.startswith(content)
    assert client.emulator.accepted == 0
    assert '"id"' not in answer.text


@pytest.mark.parametrize(("name", "status"), [("redirect", 301), ("redirect_302", 302), ("redirect_307", 307)])
def test_a_redirect_leads_to_the_second_origin(client, name, status):
    client.emulator.add_fault(name)
    answer = client.create()
    assert answer.status_code == status
    assert answer.headers["Location"].startswith(client.emulator.foreign_url + "/replicate/v1/models/")
    assert client.post(answer.headers["Location"]).status_code == 401
    assert client.emulator.foreign_requests_with_authorization == 1


@pytest.mark.parametrize(("name", "accepted"), [("reset_before_accept", 0), ("reset_after_accept", 1)])
def test_a_reset_breaks_the_connection(client, name, accepted):
    client.emulator.add_fault(name)
    with pytest.raises(requests.ConnectionError, match="reset"):
        client.create()
    assert client.emulator.accepted == accepted
    assert (client.emulator.posts, last(client).status, last(client).fault) == (1, None, name)
    assert len(client.emulator.predictions) == accepted


@pytest.mark.parametrize(("name", "accepted"), [("hang", 0), ("hang_after_accept", 1)])
def test_a_hang_gives_no_answer(client, eventually, name, accepted):
    client.emulator.add_fault(name)
    with pytest.raises(requests.ReadTimeout):
        client.post(PATH, BODY, timeout=0.3)
    eventually(lambda: client.emulator.posts == 1)
    assert client.emulator.accepted == accepted
    assert last(client).status is None


def test_a_hang_ends_after_its_limit(run):
    client = run(max_hang=0.2)
    client.emulator.add_fault("hang")
    with pytest.raises(requests.ConnectionError):
        client.create()


def test_stopping_ends_what_hangs(run):
    client = run()
    client.emulator.add_fault("hang", on="any", times=None)
    failures = []

    def ask():
        try:
            requests.post(client.emulator.url + PATH, json=BODY, headers=dict(client.session.headers), timeout=60)
        except requests.RequestException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    while client.emulator.posts < 3:
        time.sleep(0.01)
    client.emulator.stop()
    for thread in threads:
        thread.join(20)
    assert len(failures) == 3


def test_an_answer_cut_after_the_prediction_was_made_is_told_apart_in_the_ledger(client):
    client.emulator.add_fault("truncated_after_accept")
    answer = client.create()
    assert answer.status_code == 200
    with pytest.raises(requests.JSONDecodeError):
        answer.json()
    assert (last(client).fault, last(client).accepted) == ("truncated_after_accept", True)
    assert last(client).prediction_id == client.emulator.predictions[0].id


@pytest.mark.parametrize(("name", "accepted"), [("cut_body", 0), ("cut_body_after_accept", 1)])
def test_a_body_can_end_before_its_announced_length(client, name, accepted):
    client.emulator.add_fault(name)
    with pytest.raises(BROKEN):
        client.create()
    assert client.emulator.accepted == accepted


def test_queries_and_files_can_be_cut_too(client):
    done = client.finished()
    whole = client.bare(done["output"][0]).content
    client.emulator.add_fault("truncated_json", on="file")
    assert client.bare(done["output"][0]).content == whole[: len(whole) // 2]
    client.emulator.add_fault("cut_body", on="file")
    with pytest.raises(BROKEN):
        client.bare(done["output"][0])
    client.emulator.add_fault("truncated_json", on="get")
    answer = client.get(f"/replicate/v1/predictions/{done['id']}")
    assert answer.text.startswith('{"id"')


def test_a_cancel_that_was_carried_out_can_lose_its_answer(client):
    first, second = (client.create().json()["id"] for _ in range(2))
    for prediction_id, name in ((first, "reset_before_accept"), (second, "reset_after_accept")):
        client.emulator.add_fault(name, on="cancel")
        with pytest.raises(requests.ConnectionError):
            client.post(f"/replicate/v1/predictions/{prediction_id}/cancel")
    assert client.query(first)["status"] != "canceled"
    assert client.query(second)["status"] == "canceled"


def test_a_huge_body_is_as_long_as_set(run):
    client = run(huge_bytes=1024 * 1024)
    client.emulator.add_fault("huge_body")
    assert len(client.create().content) > 1024 * 1024


def test_a_client_may_leave_a_huge_body_half_read(client):
    client.emulator.add_fault("huge_body")
    answer = client.post(PATH, BODY, stream=True)
    next(answer.iter_content(1024))
    answer.close()
    assert client.create().ok


def test_slow_answers_come_late_but_whole(client):
    client.emulator.add_fault("slow", delay=0.3)
    started = time.monotonic()
    assert client.create().ok
    assert time.monotonic() - started >= 0.3


def test_a_503_hints_only_when_told(client):
    client.emulator.add_fault("503")
    assert "Retry-After" not in client.create().headers
    client.emulator.add_fault("503", retry_after=4)
    assert client.create().headers["Retry-After"] == "4"


def test_a_rule_skips_and_counts(client):
    client.emulator.add_fault("500", skip=1, times=2)
    assert [client.create().status_code for _ in range(4)] == [200, 500, 500, 200]
    assert client.emulator.counters.faults == 2


def test_a_rule_can_pick_by_prompt_and_model(client):
    client.emulator.add_fault("500", on="any", times=None, prompt_contains="Boat", model="flux-dev")
    assert client.create("flux-dev", prompt="a blue boat").status_code == 500
    assert client.create("flux-dev", prompt="a car").status_code == 200
    made = client.create("flux-schnell", prompt="a boat").json()["id"]
    client.query(made)
    client.emulator.clear_rules()
    made = client.create("flux-dev", prompt="a boat").json()["id"]
    client.emulator.add_fault("500", on="get", model="black-forest-labs/flux-dev")
    assert client.get(f"/replicate/v1/predictions/{made}").status_code == 500


def test_chance_is_the_same_for_the_same_seed(run):
    def statuses(seed):
        client = run(seed=seed)
        client.emulator.add_fault("503", times=None, probability=0.5)
        return [client.create().status_code for _ in range(30)]

    assert statuses(1) == statuses(1)
    assert statuses(1) != statuses(2)
    assert set(statuses(1)) == {200, 503}


def test_a_wrong_key_is_refused_before_a_fault_is_used_up(client):
    client.emulator.add_fault("500")
    assert client.post(PATH, BODY, headers={"Authorization": "Bearer no"}).status_code == 401
    assert client.create().status_code == 500


def test_rules_that_cannot_be_are_refused():
    for fields in (
        {"fault": "501"},
        {"fault": "500", "on": "post"},
        {"fault": "500", "probability": 2},
        {"fault": "500", "times": 0},
        {"fault": "500", "skip": -1},
    ):
        with pytest.raises(ValueError, match=r"unknown|probability|skip"):
            FaultRule(**fields)


@pytest.mark.parametrize(
    ("hint", "where"), [("header", "Retry-After"), ("body", "retry_after"), ("text", "resets in ~")]
)
def test_a_rate_limit_gives_real_429s_and_refills(run, clock, hint, where):
    client = run(clock=clock, creates_per_minute=6, rate_hint=hint)
    assert client.create().ok
    refused = client.create()
    assert refused.status_code == 429
    assert where in (refused.headers if hint == "header" else refused.text)
    clock.now += 11
    assert client.create().ok
    assert client.query(client.emulator.predictions[0].id)
    assert (client.emulator.posts, client.emulator.accepted) == (3, 2)


def test_reads_have_a_limit_of_their_own(run, clock):
    client = run(clock=clock, reads_per_minute=60, burst=2)
    prediction_id = client.create().json()["id"]
    path = f"/replicate/v1/predictions/{prediction_id}"
    assert [client.get(path).status_code for _ in range(3)] == [200, 200, 429]


def test_a_client_that_sends_half_a_request_harms_nobody(client):
    host, port = client.emulator.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{{".encode())
    assert client.create().ok
    assert client.emulator.accepted == 1
