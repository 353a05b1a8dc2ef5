from __future__ import annotations

import threading
import warnings

import pytest
import requests

from airflow_provider_flux.emulator import OUTCOMES, Emulator, OutcomeRule
from airflow_provider_flux.emulator.rules import TERMINAL
from airflow_provider_flux.emulator.served_models import MODELS


def test_a_run_passes_through_its_states_as_the_clock_moves(run, clock):
    client = run(clock=clock, run_time=10, start_share=0.2)
    prediction_id = client.create().json()["id"]
    seen = []
    for step in (1, 2, 6, 2):
        clock.now += step
        seen.append(client.query(prediction_id)["status"])
    assert seen == ["starting", "processing", "processing", "succeeded"]
    done = client.query(prediction_id)
    assert done["metrics"]["total_time"] == pytest.approx(10)
    assert done["metrics"]["predict_time"] == pytest.approx(8)
    assert client.emulator.predictions[0].gets == 5


def test_run_times_differ_by_model_and_are_divided_by_the_speed(run, clock):
    client = run(clock=clock, speed=10)
    made = {name: client.create(name).json()["id"] for name in ("flux-schnell", "flux-2-pro")}
    clock.now += 0.3
    assert client.query(made["flux-schnell"])["status"] == "succeeded"
    assert client.query(made["flux-2-pro"])["status"] != "succeeded"
    clock.now += 20
    assert client.query(made["flux-2-pro"])["status"] == "succeeded"


def test_the_same_seed_gives_the_same_run_times(run, clock):
    def totals(seed):
        client = run(clock=clock, seed=seed)
        ids = [client.create("flux-dev").json()["id"] for _ in range(5)]
        clock.now += 1000
        return [round(client.query(prediction_id)["metrics"]["total_time"], 3) for prediction_id in ids]

    assert totals(3) == totals(3) != totals(4)


def test_data_and_files_are_removed_after_their_life_time(run, clock):
    client = run(clock=clock, run_time=1, output_life=3600)
    prediction_id = client.create().json()["id"]
    clock.now += 3600
    address = client.query(prediction_id)["output"][0]
    assert client.bare(address).status_code == 200
    clock.now += 1
    gone = client.query(prediction_id)
    assert (gone["output"], gone["input"], gone["logs"], gone["data_removed"]) == (None, {}, None, True)
    assert gone["status"] == "succeeded"
    assert client.bare(address).status_code == 404


def test_a_file_does_not_exist_before_the_end(client):
    prediction_id = client.create("flux-2-max").json()["id"]
    address = f"{client.emulator.foreign_url}/output/{prediction_id}/out-0.webp"
    assert client.bare(address).status_code == 404
    client.emulator.finish(prediction_id)
    assert client.bare(address).status_code == 200
    assert client.bare(address.replace("out-0", "out-1")).status_code == 404


FAILURES = {
    "E005": "The input or output was flagged as sensitive. Please try again with different inputs. (E005) (",
    "NSFW": "All generated images contained NSFW content. Try running it again with a different prompt.",
    "E6716": "Director: unexpected error handling prediction (E6716)",
    "E9828": "Director: unexpected error handling prediction (E9828)",
    "PA": "Prediction interrupted; please retry (code: PA)",
    "KeyError": "KeyError: 'sample'",
}


@pytest.mark.parametrize(("outcome", "text"), FAILURES.items())
def test_failures_carry_the_known_texts(client, outcome, text):
    client.emulator.add_outcome(outcome)
    failed = client.finished()
    assert (failed["status"], failed["output"]) == ("failed", None)
    assert failed["error"].startswith(text)
    assert client.emulator.predictions[0].error.startswith(text)


def test_a_code_can_stand_in_the_logs_alone(client):
    client.emulator.add_outcome("code_in_logs")
    failed = client.finished()
    assert "(E9828)" in failed["logs"]
    assert "E9828" not in failed["error"]


@pytest.mark.parametrize("name", OUTCOMES)
def test_every_outcome_can_be_queried_to_its_end(client, name):
    client.emulator.add_outcome(name)
    prediction_id = client.create("flux-dev", num_outputs=3).json()["id"]
    if OUTCOMES[name].stays is None:
        client.emulator.finish(prediction_id)
    answer = client.get(f"/replicate/v1/predictions/{prediction_id}")
    if name == "forgotten":
        assert answer.json()["code"] == "task_not_exist"
        return
    status = answer.json()["status"]
    assert (status in TERMINAL) == (name not in {"stuck", "stuck_starting", "unknown_status"})


def test_aborted_runs_never_started(client):
    client.emulator.add_outcome("aborted")
    done = client.finished()
    assert (done["status"], done["started_at"], done["output"]) == ("aborted", None, None)
    assert done["completed_at"] is not None


def test_outputs_can_be_missing_short_or_of_the_other_kind(client):
    shapes = {}
    for name in ("null_output", "empty_list", "short_list", "other_kind", "data_uri", "data_removed"):
        client.emulator.add_outcome(name)
        shapes[name] = client.finished("flux-dev", num_outputs=3)["output"]
    assert shapes["null_output"] is None
    assert shapes["empty_list"] == []
    assert len(shapes["short_list"]) == 2
    assert isinstance(shapes["other_kind"], str)
    assert [text[:22] for text in shapes["data_uri"]] == ["data:image/png;base64,"] * 3
    assert shapes["data_removed"] is None
    client.emulator.add_outcome("other_kind")
    assert isinstance(client.finished("flux-2-pro")["output"], list)


def test_output_can_be_there_before_the_end(run, clock):
    client = run(clock=clock, run_time=10)
    client.emulator.add_outcome("early_output")
    prediction_id = client.create().json()["id"]
    clock.now += 5
    shown = client.query(prediction_id)
    assert shown["status"] == "processing"
    assert client.bare(shown["output"][0]).status_code == 200


def test_a_stuck_run_stays_until_it_is_cancelled_or_finished(run, clock):
    client = run(clock=clock)
    client.emulator.add_outcome("stuck", times=2)
    first, second = (client.create().json()["id"] for _ in range(2))
    clock.now += 10_000_000
    assert client.query(first)["status"] == "processing"
    client.post(f"/replicate/v1/predictions/{first}/cancel")
    assert client.query(first)["status"] == "canceled"
    assert client.emulator.finish(second).status == "succeeded"
    assert client.query(second)["output"]


def test_an_end_can_be_forced_with_another_outcome(client):
    prediction_id = client.create("flux-2-max").json()["id"]
    assert client.emulator.finish(prediction_id, "E005").status == "failed"
    assert client.emulator.finish(prediction_id).status == "failed"
    with pytest.raises(KeyError):
        client.emulator.finish("nothing")


def test_outcomes_pick_by_prompt(client):
    client.emulator.add_outcome("E005", prompt_contains="nude", times=None)
    assert client.finished(prompt="a nude statue")["status"] == "failed"
    assert client.finished(prompt="a boat")["status"] == "succeeded"


def test_an_unknown_outcome_is_refused():
    with pytest.raises(ValueError, match="unknown outcome"):
        OutcomeRule("E999")


def test_the_ledger_counts_exactly_and_keeps_no_key(client):
    done = client.finished()
    client.bare(done["output"][0])
    client.bare(client.emulator.url + "/user/quota?key=a-key-for-tests")
    counters = client.emulator.counters
    assert (counters.posts, counters.accepted, counters.gets, counters.files) == (1, 1, 1, 1)
    assert counters.requests == 4
    assert [record.index for record in client.emulator.requests] == [1, 2, 3, 4]
    assert [record.key_ok for record in client.emulator.requests] == [True, True, None, True]
    assert client.emulator.requests[0].prediction_id == client.emulator.predictions[0].id
    assert "a-key-for-tests" not in str(client.emulator.requests)


def test_connections_are_counted_one_by_one(client):
    for _ in range(5):
        client.create()
    assert client.emulator.connections == 1
    for _ in range(3):
        client.bare(client.emulator.url + "/api/models")
    assert client.emulator.connections == 4
    assert [record.connection for record in client.emulator.requests] == [1, 1, 1, 1, 1, 2, 3, 4]


def test_request_records_are_bounded_and_counters_are_not(run):
    client = run(keep_requests=10)
    for _ in range(25):
        client.create()
    assert len(client.emulator.requests) == 10
    assert client.emulator.posts == 25
    assert len(client.emulator.predictions) == 25


def test_ten_thousand_predictions_cost_no_tasks(run):
    client = run()
    state = client.emulator._state
    before = threading.active_count()
    for number in range(10_000):
        state.make_prediction("gateway", MODELS["black-forest-labs/flux-dev"], {"prompt": f"{number}"})
    assert threading.active_count() == before
    assert len(client.emulator.predictions) == 10_000
    assert len(client.get("/v1/predictions").json()["results"]) == 100


def test_settings_change_while_it_runs_and_a_reset_takes_them_back(client):
    client.create()
    client.emulator.settings(created_status=202)
    client.emulator.add_fault("500", skip=1)
    assert client.create().status_code == 202
    client.emulator.reset()
    assert client.emulator.posts == 0
    assert client.emulator.predictions == []
    assert [client.create().status_code for _ in range(2)] == [200, 200]


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": "xml"},
        {"speed": 0},
        {"run_time": -1},
        {"fraction_digits": [10]},
        {"fraction_digits": []},
        {"start_share": 2},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        Emulator(**wrong)


def test_an_unknown_setting_is_refused(client):
    with pytest.raises(TypeError):
        client.emulator.settings(colour="red")


def test_requests_from_many_threads_are_all_counted(run):
    client = run(run_time=0)
    headers = dict(client.session.headers)
    path = client.emulator.url + "/replicate/v1/models/black-forest-labs/flux-dev/predictions"

    def work():
        for _ in range(20):
            assert requests.post(path, json={"input": {"prompt": "x"}}, headers=headers, timeout=20).ok

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.emulator.posts == client.emulator.accepted == 160
    assert len({shot.id for shot in client.emulator.predictions}) == 160


def test_it_ends_without_leaving_threads_or_sockets():
    before = set(threading.enumerate())
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for _ in range(3):
            with Emulator() as emulator:
                requests.get(emulator.url + "/api/models", timeout=20)
    assert set(threading.enumerate()) <= before


def test_stopping_twice_or_before_the_start_is_harmless():
    emulator = Emulator()
    emulator.stop()
    emulator.start()
    with pytest.raises(RuntimeError):
        emulator.start()
    emulator.stop()
    emulator.stop()


def test_a_taken_port_raises_and_leaves_nothing_behind():
    before = set(threading.enumerate())
    with Emulator() as first:
        port = int(first.url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            Emulator(port=port).start()
        with pytest.raises(OSError, match="in use"):
            Emulator(foreign_port=port).start()
    assert set(threading.enumerate()) <= before
