from __future__ import annotations

import pytest


def test_a_flat_body_makes_a_prediction_with_a_polling_address_elsewhere(client):
    answer = client.post("/flux/v1/flux-2-pro", {"prompt": "a boat", "width": 512, "height": 768})
    body = answer.json()
    assert answer.status_code == 200
    assert body["polling_url"].startswith(client.emulator.foreign_url)
    assert body["cost"] is None
    client.emulator.finish(body["id"])
    done = client.get(f"/flux/v1/get_result?id={body['id']}").json()
    assert done["status"] == "Ready"
    assert set(done["result"]) == {"seed", "prompt", "sample", "duration", "start_time", "end_time"}
    assert client.bare(done["result"]["sample"]).headers["Content-Type"] == "image/jpeg"


def test_a_webhook_replaces_the_polling_address(client):
    body = client.post("/flux/v1/flux-dev", {"prompt": "a boat", "webhook_url": "https://example.com/"}).json()
    assert "polling_url" not in body
    assert body["status"] == "Pending"


def test_the_unified_query_answers_by_the_origin_of_the_id(client):
    replicate_id = client.create().json()["id"]
    assert client.get(f"/flux/v1/get_result?id={replicate_id}").json()["status"] in {"starting", "processing"}
    unknown = client.get("/flux/v1/get_result?id=nothing")
    assert (unknown.status_code, unknown.json()["status"]) == (200, "Task not found")
    assert client.emulator.gets == 2


@pytest.mark.parametrize(
    ("outcome", "word"), [("E005", "Content Moderated"), ("NSFW", "Content Moderated"), ("E6716", "Error")]
)
def test_failures_use_bfls_words(client, outcome, word):
    client.emulator.add_outcome(outcome)
    prediction_id = client.post("/flux/v1/flux-dev", {"prompt": "a boat"}).json()["id"]
    client.emulator.finish(prediction_id)
    assert client.get(f"/flux/v1/get_result?id={prediction_id}").json()["status"] == word


def test_an_expired_result_is_not_found(run, clock):
    client = run(clock=clock, run_time=1, output_life=60)
    prediction_id = client.post("/flux/v1/flux-dev", {"prompt": "a boat"}).json()["id"]
    clock.now += 62
    assert client.get(f"/flux/v1/get_result?id={prediction_id}").json()["status"] == "Task not found"


@pytest.mark.parametrize("wrong", [{"width": 500}, {"safety_tolerance": 7}, {"output_format": "webp"}, {"prompt": 3}])
def test_a_bad_flat_body_is_refused_by_the_upstream(client, wrong):
    answer = client.post("/flux/v1/flux-dev", {"prompt": "a boat", **wrong})
    assert answer.status_code == 422
    assert answer.json()["code"] == "fail_to_fetch_task"
    assert '"loc"' in answer.json()["message"]
    assert client.post("/flux/v1/none", {"prompt": "a boat"}).status_code == 503


def test_the_price_list_needs_no_key_and_leaves_unsold_models_out(run):
    client = run(unsold=["black-forest-labs/flux-2-max"])
    body = client.bare(client.emulator.url + "/api/models").json()
    assert body["success"] is True
    assert body["total"] == len(body["data"]) == 10
    assert body["data"][0]["pricing"]["per_request"] == 0.003
    assert any(entry["pricing"]["per_request"] is None for entry in body["data"])


def test_the_model_list_has_openais_shape_and_needs_a_key(client):
    body = client.get("/v1/models").json()
    assert body["object"] == "list"
    assert "black-forest-labs/flux-dev" in {entry["id"] for entry in body["data"]}
    assert client.bare(client.emulator.url + "/v1/models").status_code == 401


def test_every_balance_falls_by_the_list_price(client):
    client.create("flux-1.1-pro")
    quota = client.bare(client.emulator.url + "/user/quota?key=a-key-for-tests").json()
    assert quota["total_quota"] == pytest.approx(99.96)
    assert quota["request_count"] == 1
    assert client.get("/v1/dashboard/billing/subscription").json()["hard_limit_usd"] == 100
    assert client.get("/v1/dashboard/billing/usage").json()["total_usage"] == pytest.approx(4)
    token = client.get("/api/usage/token").json()["data"]
    assert token["total_granted"] - token["total_used"] == token["total_available"] == 49_980_000


def test_the_quota_refuses_a_wrong_key(client):
    assert client.bare(client.emulator.url + "/user/quota?key=wrong").status_code == 401
    assert client.bare(client.emulator.url + "/user/quota").status_code == 401


def test_balances_need_a_key(client):
    for path in ("/v1/dashboard/billing/subscription", "/v1/dashboard/billing/usage", "/api/usage/token"):
        assert client.bare(client.emulator.url + path).status_code == 401
