from __future__ import annotations

import json
import re

import pytest

from airflow_provider_flux.emulator.served_models import MODELS

PREDICTIONS = "/replicate/v1/predictions"
SAMPLE_KEYS = [
    "id",
    "model",
    "version",
    "input",
    "logs",
    "output",
    "data_removed",
    "error",
    "source",
    "status",
    "created_at",
    "urls",
]


def test_a_create_answers_200_with_the_keys_of_the_published_samples(client):
    answer = client.create(aspect_ratio="1:1", output_format="webp")
    body = answer.json()
    assert answer.status_code == 200
    assert list(body) == SAMPLE_KEYS
    assert body["status"] == "starting"
    assert body["version"] == "hidden"
    assert body["logs"] == ""
    assert re.fullmatch(r"[a-z0-9]{26}", body["id"])


def test_the_input_comes_back_equal_but_in_another_order(client):
    sent = {"prompt": "a boat", "seed": 3, "aspect_ratio": "1:1"}
    echoed = client.create(**sent).json()["input"]
    assert echoed == sent
    assert list(echoed) != list(sent)
    sorted_sent = {"aspect_ratio": "1:1", "prompt": "a boat"}
    body = {"input": sorted_sent}
    echoed = client.post("/replicate/v1/models/black-forest-labs/flux-dev/predictions", body).json()["input"]
    assert list(echoed) == ["prompt", "aspect_ratio"]


def test_the_urls_name_another_host_and_a_page_on_the_gateway(client):
    urls = client.create().json()["urls"]
    emulator = client.emulator
    assert emulator.url != emulator.foreign_url
    assert all(urls[name].startswith(emulator.foreign_url + "/") for name in ("get", "cancel", "stream"))
    assert urls["web"].startswith(emulator.url + "/p/")


def test_the_other_host_refuses_and_notes_who_brought_a_key(client):
    urls = client.create().json()["urls"]
    refused = client.bare(urls["get"])
    assert refused.status_code == 401
    assert refused.headers["Content-Type"].startswith("application/problem+json")
    assert client.emulator.foreign_requests_with_authorization == 0
    assert client.post(urls["cancel"]).status_code == 401
    assert client.emulator.foreign_requests_with_authorization == 1
    last = client.emulator.requests[-1]
    assert (last.origin, last.kind, last.had_authorization) == ("foreign", "foreign", True)


def test_a_key_hidden_in_an_address_counts_as_carried(client):
    client.bare(client.emulator.foreign_url + "/x?token=a-key-for-tests")
    client.bare(client.emulator.foreign_url + "/x?token=a-key-for-tests-not")
    assert client.emulator.foreign_requests_with_authorization == 1


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_runs_and_answers_in_its_own_kind_of_output(client, name):
    done = client.finished(name.partition("/")[2])
    assert done["status"] == "succeeded"
    assert isinstance(done["output"], list if name.endswith(("schnell", "/flux-dev")) else str)
    assert done["metrics"]["image_count"] == 1
    assert "Using seed:" in done["logs"]


def test_num_outputs_makes_as_many_files(client):
    done = client.finished("flux-dev", num_outputs=4)
    assert len(set(done["output"])) == 4


def test_legacy_creates_take_version_or_model(client):
    for body in (
        {"version": "black-forest-labs/flux-dev"},
        {"model": "black-forest-labs/flux-dev"},
        {"version": MODELS["black-forest-labs/flux-dev"].version_id},
    ):
        answer = client.post(PREDICTIONS, {**body, "input": {"prompt": "a boat"}})
        assert answer.json()["model"] == "black-forest-labs/flux-dev"
    refused = client.post(PREDICTIONS, {"input": {"prompt": "a boat"}})
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == ""
    assert "(request id: " in refused.json()["error"]["message"]


def test_a_slash_in_the_model_must_not_be_escaped(client):
    path = "/replicate/v1/models/black-forest-labs%2Fflux-dev/predictions"
    answer = client.post(path, {"input": {"prompt": "a boat"}})
    assert answer.status_code == 404
    assert answer.headers["Content-Type"].startswith("text/html")
    assert client.emulator.accepted == 0


def test_an_unknown_or_unsold_model_looks_like_an_outage(run):
    client = run(unsold=["black-forest-labs/flux-2-max"])
    for name in ("flux-2-max", "no-such-model"):
        answer = client.create(name)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "model_not_found"
        assert "(distributor)" in answer.json()["error"]["message"]
    assert (client.emulator.posts, client.emulator.accepted) == (2, 0)


def test_a_bad_input_comes_back_as_the_upstreams_body_in_text(client):
    answer = client.create(num_outputs=9)
    assert answer.status_code == 422
    body = answer.json()
    assert body["code"] == "fail_to_fetch_task"
    assert body["data"] is None
    upstream = json.loads(body["message"])
    assert upstream["status"] == 422
    assert upstream["invalid_fields"][0]["field"] == "input.num_outputs"
    assert upstream["invalid_fields"][0]["type"] == "number_lte"


@pytest.mark.parametrize("text", ["", "[]", "not json", '{"input": '])
def test_a_body_that_is_no_json_object_gives_400(client, text):
    path = "/replicate/v1/models/black-forest-labs/flux-dev/predictions"
    assert client.request("POST", path, data=text).status_code == 400


def test_an_unknown_id_gives_the_flat_error_with_400(client):
    answer = client.get(f"{PREDICTIONS}/nothing")
    assert answer.status_code == 400
    assert answer.json() == {"code": "task_not_exist", "message": "task_not_exist", "data": None}


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer", "Basic a-key-for-tests", "a-key-for-tests"])
def test_a_wrong_key_gives_401_and_makes_nothing(client, header):
    path = "/replicate/v1/models/black-forest-labs/flux-dev/predictions"
    answer = client.post(path, {"input": {"prompt": "a boat"}}, headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "comet_api_error"
    assert client.emulator.accepted == 0
    assert client.emulator.counters.unauthorized == 1


def test_without_a_set_key_any_key_that_is_not_empty_is_accepted(run):
    client = run(key=None)
    assert client.create().status_code == 200
    assert client.get(f"{PREDICTIONS}/x", headers={"Authorization": "Bearer "}).status_code == 401


def test_the_envelope_wraps_the_prediction(run):
    client = run(shape="envelope")
    prediction_id = client.create().json()["id"]
    running = client.query(prediction_id)
    assert running["data"]["status"] in {"SUBMITTED", "IN_PROGRESS"}
    client.emulator.finish(prediction_id)
    done = client.query(prediction_id)
    assert (done["code"], done["data"]["status"], done["data"]["progress"]) == ("success", "SUCCESS", "100%")
    assert done["data"]["task_id"] == prediction_id
    assert done["data"]["result_url"] == done["data"]["data"]["output"][0]
    assert isinstance(done["data"]["finish_time"], int)


def test_the_envelope_names_the_reason_of_a_failure(run):
    client = run(shape="envelope")
    client.emulator.add_outcome("PA")
    failed = client.finished()["data"]
    assert (failed["status"], failed["fail_reason"]) == (
        "FAILURE",
        "Prediction interrupted; please retry (code: PA)",
    )


def test_the_bfl_shape_on_request(run):
    client = run(shape="bfl")
    assert client.query(client.create().json()["id"])["status"] == "Pending"
    done = client.finished()
    assert done["status"] == "Ready"
    assert done["result"]["sample"].startswith(client.emulator.foreign_url)


@pytest.mark.parametrize("status", [200, 201, 202])
def test_the_created_status_can_be_chosen(run, status):
    assert run(created_status=status).create().status_code == status


def test_an_alias_can_stand_in_model(run):
    body = run(alias=True).create().json()
    assert body["model"] == "replicate/flux-schnell-internal-model"
    assert body["version"].startswith("dp-")


def test_keys_can_be_left_out(run):
    body = run(drop_fields=["model", "logs"]).create().json()
    assert "model" not in body
    assert "logs" not in body


def test_fractional_seconds_take_turns_in_length(client):
    lengths = []
    for _ in range(4):
        created = client.create().json()["created_at"]
        lengths.append(len(re.fullmatch(r"[\d-]+T[\d:]+\.(\d+)Z", created)[1]))
    assert lengths == [3, 6, 8, 9]


def test_cancel_works_and_leaves_null_output_and_logs(client):
    prediction_id = client.create().json()["id"]
    answer = client.post(f"{PREDICTIONS}/{prediction_id}/cancel")
    assert answer.json()["status"] == "canceled"
    done = client.query(prediction_id)
    assert (done["status"], done["output"], done["logs"]) == ("canceled", None, None)
    assert client.emulator.cancels == 1
    assert client.emulator.predictions[0].canceled_by == "gateway"


def test_a_cancel_after_the_end_changes_nothing(client):
    done = client.finished()
    assert client.post(f"{PREDICTIONS}/{done['id']}/cancel").json()["status"] == "succeeded"


@pytest.mark.parametrize(
    ("mode", "status", "media_type"),
    [
        ("404", 404, "application/json"),
        ("405", 405, "text/plain"),
        ("html", 404, "text/html"),
        ("redirect", 301, "text/html"),
        ("ignored", 200, "application/json"),
    ],
)
def test_cancel_can_be_missing_in_every_way_seen(run, mode, status, media_type):
    client = run(cancel=mode)
    prediction_id = client.create().json()["id"]
    answer = client.post(f"{PREDICTIONS}/{prediction_id}/cancel")
    assert answer.status_code == status
    assert answer.headers["Content-Type"].startswith(media_type)
    if mode == "redirect":
        assert answer.headers["Location"].startswith(client.emulator.foreign_url)
    assert client.query(prediction_id)["status"] != "canceled"


def test_there_is_no_list(run):
    page = run().get(PREDICTIONS)
    assert page.status_code == 404
    assert page.headers["Content-Type"].startswith("text/html")
    client = run(list_answer="redirect")
    redirect = client.get(PREDICTIONS)
    assert redirect.status_code == 301
    assert redirect.headers["Location"].startswith(client.emulator.foreign_url)


def test_prefer_is_ignored_unless_the_gateway_is_told_to_honour_it(run):
    path = "/replicate/v1/models/black-forest-labs/flux-schnell/predictions"
    body, headers = {"input": {"prompt": "a boat"}}, {"Prefer": "wait=5"}
    assert run(run_time=0.2).post(path, body, headers=headers).json()["status"] == "starting"
    waited = run(run_time=0.2, gateway_prefer=True).post(path, body, headers=headers)
    assert waited.json()["status"] == "succeeded"


def test_ids_can_look_like_a_gateways_own(run):
    assert run(id_style="task").create().json()["id"].startswith("task_")


def test_a_webhook_is_accepted_and_noted(client):
    body = {"input": {"prompt": "a boat"}, "webhook": "https://example.com/hook"}
    client.post("/replicate/v1/models/black-forest-labs/flux-dev/predictions", body)
    assert client.emulator.predictions[0].webhook == "https://example.com/hook"


def test_the_page_shows_status_and_picture_and_escapes_the_prompt(client):
    done = client.finished(prompt="<script>alert(1)</script> & more")
    page = client.bare(done["urls"]["web"])
    assert page.status_code == 200
    assert "<script" not in page.text
    assert "&lt;script&gt;" in page.text
    assert "local stand-in" in page.text
    assert done["output"][0] in page.text
    assert client.bare(client.emulator.url + "/").status_code == 200
    assert client.bare(client.emulator.url + "/p/nothing").status_code == 404


def test_file_addresses_can_name_another_origin(run):
    done = run(output_origin="http://files.internal:9000").finished()
    assert done["output"][0].startswith("http://files.internal:9000/output/")


def test_answers_can_be_made_to_take_their_time(run):
    assert run(latency=0.2).create().elapsed.total_seconds() >= 0.2


def test_every_answer_names_the_stand_in(client):
    assert "local stand-in" in client.create().headers["Server"]
