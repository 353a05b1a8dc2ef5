from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import quote

import pytest

from airflow_provider_flux.emulator.served_models import MODELS

V1 = "/v1"
MODEL = "/v1/models/black-forest-labs/flux-schnell"


def body(**more):
    return {"input": {"prompt": "a boat"}, **more}


def test_a_create_answers_201_with_its_location(client):
    answer = client.create(prefix=V1)
    assert answer.status_code == 201
    assert answer.headers["Location"] == answer.json()["urls"]["get"]
    assert client.get(answer.headers["Location"]).json()["id"] == answer.json()["id"]


def test_legacy_creates_need_a_version_that_exists(client):
    version = MODELS["black-forest-labs/flux-dev"].version_id
    for named in ("black-forest-labs/flux-dev", f"black-forest-labs/flux-dev:{version}", version):
        assert client.post("/v1/predictions", body(version=named)).status_code == 201
    for named in ("no/model", "0" * 64, f"black-forest-labs/flux-dev:{'0' * 64}"):
        answer = client.post("/v1/predictions", body(version=named))
        assert answer.status_code == 422
        assert answer.json()["detail"] == "Invalid version or not permitted"


def test_errors_are_problem_documents_with_a_numeric_status(client):
    unknown = client.get("/v1/predictions/nothing")
    assert (unknown.status_code, unknown.json()["status"]) == (404, 404)
    assert unknown.headers["Content-Type"].startswith("application/problem+json")
    keyless = client.get("/v1/account", headers={"Authorization": None})
    assert (keyless.status_code, keyless.json()["title"]) == (401, "Unauthenticated")
    assert client.create("no-such-model", V1).status_code == 404
    assert client.get("/v1/nothing").status_code == 404


@pytest.mark.parametrize(
    ("given", "kind", "field"),
    [
        ({"output_format": "gif"}, "enum", "input.output_format"),
        ({"num_outputs": 5}, "number_lte", "input.num_outputs"),
        ({"num_outputs": 0}, "number_gte", "input.num_outputs"),
        ({"seed": "x"}, "invalid_type", "input.seed"),
        ({"seed": None}, "invalid_type", "input.seed"),
        ({"prompt": None}, "invalid_type", "input.prompt"),
    ],
)
def test_a_bad_input_names_its_field(client, given, kind, field):
    answer = client.create(prefix=V1, **given)
    assert answer.status_code == 422
    assert answer.json()["title"] == "Input validation failed"
    assert field in answer.json()["detail"]
    assert [(found["type"], found["field"]) for found in answer.json()["invalid_fields"]] == [(kind, field)]
    assert client.emulator.accepted == 0


def test_the_root_takes_no_unknown_key_and_the_input_does(client):
    assert client.create(prefix=V1, unheard_of=1).status_code == 201
    refused = client.post(f"{MODEL}/predictions", body(priority=1))
    assert refused.json()["invalid_fields"][0]["type"] == "additional_property_not_allowed"
    missing = client.post(f"{MODEL}/predictions", {})
    assert missing.json()["invalid_fields"][0]["type"] == "required"
    no_prompt = client.post(f"{MODEL}/predictions", {"input": {}})
    assert "prompt is required" in no_prompt.json()["detail"]


def test_a_blocking_create_waits_for_the_end(run):
    client = run(run_time=0.2)
    answer = client.post(f"{MODEL}/predictions", body(), headers={"Prefer": "wait"})
    assert (answer.status_code, answer.json()["status"]) == (201, "succeeded")
    assert answer.headers["Preference-Applied"] == "wait"


def test_a_blocking_create_gives_up_after_the_asked_time(run):
    client = run(run_time=600)
    answer = client.post(f"{MODEL}/predictions", body(), headers={"Prefer": "wait=1"})
    assert answer.status_code == 202
    assert answer.json()["status"] == "starting"


@pytest.mark.parametrize("kind", ["data_uri", "url"])
def test_a_blocking_create_can_show_output_while_still_processing(run, kind):
    client = run(run_time=0.05, wait_output=kind)
    shown = client.post(f"{MODEL}/predictions", body(), headers={"Prefer": "wait=5"}).json()
    assert (shown["status"], shown["completed_at"]) == ("processing", None)
    if kind == "data_uri":
        data = base64.b64decode(shown["output"][0].partition(",")[2])
        assert data.startswith(b"\x89PNG")
    assert client.query(shown["id"], V1)["output"][0].startswith(client.emulator.foreign_url)


def test_cancel_after_cancels_a_run_and_aborts_one_that_never_began(run, clock):
    client = run(run_time=100, start_share=0.1, clock=clock)
    early = client.post(f"{MODEL}/predictions", body(), headers={"Cancel-After": "5s"}).json()
    late = client.post(f"{MODEL}/predictions", body(), headers={"Cancel-After": "1m"}).json()
    assert early["deadline"] > early["created_at"]
    clock.now += 61
    assert client.query(early["id"], V1)["status"] == "aborted"
    assert client.query(late["id"], V1)["status"] == "canceled"


@pytest.mark.parametrize("text", ["4", "3s", "soon", "", "-9"])
def test_a_cancel_after_that_is_too_short_or_unreadable_is_refused(client, text):
    assert client.post(f"{MODEL}/predictions", body(), headers={"Cancel-After": text}).status_code == 422


def test_cancel_answers_with_the_prediction(client):
    prediction_id = client.create(prefix=V1).json()["id"]
    answer = client.post(f"/v1/predictions/{prediction_id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
    assert client.emulator.predictions[0].canceled_by == "replicate"


def test_the_list_has_pages_newest_first_that_lead_both_ways(client):
    made = [client.create(prefix=V1).json()["id"] for _ in range(250)]
    address, seen = client.emulator.url + "/v1/predictions", []
    pages = []
    while address:
        page = client.get(address).json()
        pages.append(page)
        seen += [found["id"] for found in page["results"]]
        address = page["next"]
    assert seen == made[::-1]
    assert [len(page["results"]) for page in pages] == [100, 100, 50]
    assert pages[0]["previous"] is None
    back = client.get(pages[2]["previous"]).json()["results"]
    assert [found["id"] for found in back] == seen[100:200]
    assert client.emulator.counters.lists == 4


def test_the_list_can_be_bounded_in_time(run, clock):
    client = run(clock=clock, run_time=1)
    made = []
    for _ in range(3):
        made.append(client.create(prefix=V1).json())
        clock.now += 10
    middle = quote(made[1]["created_at"])
    after = client.get(f"/v1/predictions?created_after={middle}").json()["results"]
    before = client.get(f"/v1/predictions?created_before={middle}").json()["results"]
    assert [found["id"] for found in after] == [made[2]["id"], made[1]["id"]]
    assert [found["id"] for found in before] == [made[0]["id"]]
    assert client.get("/v1/predictions?created_after=yesterday").status_code == 400
    assert client.get("/v1/predictions?cursor=%21").status_code == 400


def test_a_model_carries_its_input_schema(client):
    model = client.get("/v1/models/black-forest-labs/flux-dev").json()
    schemas = model["latest_version"]["openapi_schema"]["components"]["schemas"]
    assert model["is_official"] is True
    assert "num_outputs" in schemas["Input"]["properties"]
    assert schemas["Output"]["type"] == "array"
    assert client.get("/v1/models/black-forest-labs/none").status_code == 404


def test_the_account_names_the_stand_in(client):
    assert client.get("/v1/account").json()["username"] == "local-stand-in"


def test_an_upload_is_described(client):
    answer = client.request("POST", "/v1/files", files={"content": b"some bytes"})
    assert answer.status_code == 201
    assert answer.json()["urls"]["get"].startswith(client.emulator.url)


def test_a_webhook_must_be_https_or_lead_to_this_machine(client):
    refused = client.post(f"{MODEL}/predictions", body(webhook="http://example.com/x"))
    assert refused.status_code == 422
    assert client.post(f"{MODEL}/predictions", body(webhook="https://example.com/x")).status_code == 201


class Receiver(HTTPServer):
    """Takes webhook calls and refuses the first of them."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Hook)
        self.calls = []


class Hook(BaseHTTPRequestHandler):
    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.calls.append((dict(self.headers), content))
        self.send_response(500 if len(self.server.calls) == 1 else 200)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def receiver():
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_final_webhook_is_signed_and_repeated_until_taken(run, receiver, eventually):
    client = run(run_time=0.05)
    hook = f"http://127.0.0.1:{receiver.server_port}/hook?token=t"
    sent = body(webhook=hook, webhook_events_filter=["completed"])
    prediction_id = client.post(f"{MODEL}/predictions", sent).json()["id"]
    eventually(lambda: len(client.emulator.webhooks) == 2)
    headers, content = receiver.calls[-1]
    assert json.loads(content)["id"] == prediction_id
    secret = client.get("/v1/webhooks/default/secret").json()["key"]
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + content
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert receiver.calls[0][0]["webhook-id"] == headers["webhook-id"]
    assert [call["status"] for call in client.emulator.webhooks] == [500, 200]
    assert "token" not in str(client.emulator.webhooks)


def test_start_and_output_webhooks_come_in_order(run, receiver, eventually):
    client = run(run_time=0.1)
    hook = f"http://127.0.0.1:{receiver.server_port}/"
    sent = body(webhook=hook, webhook_events_filter=["start", "output"])
    client.post(f"{MODEL}/predictions", sent)
    eventually(lambda: len(client.emulator.webhooks) == 2)
    assert [call["event"] for call in client.emulator.webhooks] == ["start", "output"]
