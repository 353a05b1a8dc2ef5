"""A batch from its table to its manifest, over the emulator."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_flux.batch import row_run, run
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import (
    AirflowFailException,
    FluxBatchError,
    FluxBatchRefusedError,
    FluxBudgetError,
    FluxError,
    FluxGatewayError,
    FluxInputError,
    FluxKilledError,
    FluxRefusedError,
)
from airflow_provider_flux.protocol import times
from tests.batch.task_instance import SCHNELL, BatchTaskInstance, kill_after_posts, table
from tests.conftest import Connect

PRICES = {SCHNELL: 0.01}


@pytest.fixture(autouse=True)
def gateway(emulator: Emulator, connect: Connect) -> None:
    emulator.settings(small_pictures=True)
    connect(emulator.url, gateway="deerapi", read_timeout=1)


@pytest.fixture
def instance(tmp_path: Path) -> BatchTaskInstance:
    return BatchTaskInstance(tmp_path, rows=table(12))


@pytest.fixture
def listing(emulator: Emulator, connect: Connect) -> None:
    """A gateway that lists predictions."""
    connect(emulator.url, gateway="replicate", read_timeout=1, requests_per_minute=1e6)


def by_key(instance: BatchTaskInstance) -> dict[str, dict[str, Any]]:
    return {listed["key"]: listed for listed in instance.manifest()}


def test_each_row_costs_one_post_and_becomes_one_picture(emulator: Emulator, instance: BatchTaskInstance) -> None:
    path = instance.execute()

    assert path == str(instance.folder / "manifest.jsonl")
    assert (emulator.posts, emulator.accepted) == (12, 12)
    manifest = instance.manifest()
    assert [listed["key"] for listed in manifest] == [row["sku"] for row in table(12)]
    assert all(listed["status"] == "succeeded" and Path(listed["path"]).is_file() for listed in manifest)
    assert {prediction.input["prompt"] for prediction in emulator.predictions} == {
        f"A studio photo of thing {number}" for number in range(12)
    }
    assert (instance.totals["succeeded"], instance.totals["total"]) == (12, 12)
    assert emulator.foreign_requests_with_authorization == 0


def test_polls_and_pictures_share_a_few_connections_and_each_create_has_its_own(
    emulator: Emulator, instance: BatchTaskInstance
) -> None:
    instance.options["max_in_flight"] = 1

    instance.execute()

    assert instance.totals["succeeded"] == emulator.counters.files == 12
    assert emulator.posts <= emulator.counters.connections < emulator.posts + 6


def test_no_more_predictions_are_in_flight_than_asked_for(emulator: Emulator, instance: BatchTaskInstance) -> None:
    emulator.settings(run_time=0.3)
    instance.options["max_in_flight"] = 4

    instance.execute()

    moments = [(made.created, 1) for made in emulator.predictions] + [(made.ended, -1) for made in emulator.predictions]
    in_flight = [sum(change for _, change in sorted(moments)[: end + 1]) for end in range(len(moments))]
    assert max(in_flight) <= 4


def test_several_outputs_of_a_row_are_all_stored(instance: BatchTaskInstance) -> None:
    instance.options.update(rows=table(2), input={"num_outputs": 3, "seed": 7})

    instance.execute()

    for listed in instance.manifest():
        assert len(listed["paths"]) == 3
        assert listed["path"] == listed["paths"][0]
        assert all(Path(path).is_file() for path in listed["paths"])
        assert listed["seed"] == 7


def test_a_table_without_rows_succeeds(emulator: Emulator, instance: BatchTaskInstance) -> None:
    instance.options["rows"] = []

    instance.execute()

    assert instance.manifest() == []
    assert instance.totals["total"] == emulator.posts == 0


@pytest.mark.parametrize("fault", ["429", "429_header", "reset", "500", "503", "html", "truncated_json"])
def test_passing_trouble_with_polls_costs_no_further_post(
    emulator: Emulator, instance: BatchTaskInstance, fault: str
) -> None:
    emulator.add_fault(fault if fault != "reset" else "reset_before_accept", on="get", times=5, retry_after=0.1)

    instance.execute()

    assert instance.totals["succeeded"] == 12
    assert emulator.posts == 12


def test_creates_that_are_refused_for_the_rate_are_sent_again(emulator: Emulator, instance: BatchTaskInstance) -> None:
    emulator.add_fault("429_header", on="create", times=5, retry_after=0.1)

    instance.execute()

    assert instance.totals["succeeded"] == 12
    assert (emulator.posts, emulator.accepted) == (17, 12)


LOST = ["hang_after_accept", "reset_after_accept", "500_after_accept", "truncated_after_accept"]


@pytest.mark.parametrize("fault", LOST)
def test_a_create_whose_answer_is_lost_is_never_sent_again_on_its_own(
    emulator: Emulator, instance: BatchTaskInstance, fault: str
) -> None:
    emulator.add_fault(fault, on="create", times=2)

    instance.execute()
    instance.retry()
    instance.next_run()

    assert instance.totals["unknown"] == 2
    assert (emulator.posts, emulator.accepted) == (12, 12)
    (unknown, _) = [listed for listed in instance.manifest() if listed["status"] == "unknown"]
    assert "may have been accepted" in unknown["error"]
    assert 'on_unknown_submission="resubmit"' in unknown["error"]


def test_a_person_who_clears_the_task_takes_the_risk_of_paying_twice(
    emulator: Emulator, instance: BatchTaskInstance
) -> None:
    emulator.add_fault("hang_after_accept", on="create", times=2)

    instance.execute()
    instance.clear()

    assert instance.totals["succeeded"] == 12
    assert emulator.posts == 14


def test_on_request_a_create_whose_answer_is_lost_is_sent_once_more(
    emulator: Emulator, instance: BatchTaskInstance
) -> None:
    emulator.add_fault("reset_after_accept", on="create", times=2)
    instance.options["on_unknown_submission"] = "resubmit"

    instance.execute()

    assert instance.totals["succeeded"] == 12
    assert emulator.posts == 14


@pytest.mark.usefixtures("listing")
@pytest.mark.parametrize("fault", LOST)
def test_what_a_create_with_a_lost_answer_has_made_is_found_in_the_list(
    emulator: Emulator, instance: BatchTaskInstance, fault: str
) -> None:
    emulator.add_fault(fault, on="create", times=3)

    instance.execute()

    assert instance.totals["succeeded"] == 12
    assert (emulator.posts, emulator.accepted) == (12, 12)
    assert len({listed["prediction_id"] for listed in instance.manifest()}) == 12


@pytest.mark.usefixtures("listing")
def test_one_look_into_the_list_serves_all_rows(emulator: Emulator, instance: BatchTaskInstance) -> None:
    emulator.add_fault("reset_after_accept", on="create", times=12)

    instance.execute()

    assert instance.totals["succeeded"] == 12
    assert emulator.counters.lists < 12


@pytest.mark.usefixtures("listing")
def test_what_the_list_does_not_know_in_the_end_was_not_made(emulator: Emulator, instance: BatchTaskInstance) -> None:
    emulator.add_fault("reset_before_accept", on="create", times=3)

    instance.execute()

    assert instance.totals["succeeded"] == 12
    assert (emulator.posts, emulator.accepted) == (15, 12)


@pytest.mark.usefixtures("listing")
def test_rows_with_the_same_input_share_what_the_list_knows_of_them(
    emulator: Emulator, instance: BatchTaskInstance
) -> None:
    instance.options["prompt"] = "always the same"
    emulator.add_fault("reset_after_accept", on="create", times=12)

    instance.execute()

    assert instance.totals["succeeded"] == 12
    assert emulator.accepted == 12
    assert len({listed["prediction_id"] for listed in instance.manifest()}) == 12


@pytest.mark.usefixtures("listing")
def test_a_list_that_cannot_be_read_says_nothing(emulator: Emulator, instance: BatchTaskInstance) -> None:
    emulator.add_fault("reset_after_accept", on="create", times=2)
    emulator.add_fault("401", on="list", times=None)

    instance.execute()

    assert instance.totals["unknown"] == 2
    assert emulator.posts == 12


def test_a_retry_goes_on_with_predictions_that_run(emulator: Emulator, instance: BatchTaskInstance) -> None:
    emulator.settings(run_time=1.0)
    instance.options["cancel_on_kill"] = False
    killer = kill_after_posts(instance, emulator, 12)
    with pytest.raises(FluxKilledError):
        instance.execute()
    killer.join()

    instance.retry()

    assert instance.totals["succeeded"] == 12
    assert (emulator.posts, emulator.accepted, emulator.cancels) == (12, 12, 0)


def test_a_retry_leaves_alone_what_is_done(emulator: Emulator, instance: BatchTaskInstance) -> None:
    instance.execute()
    gets, files = emulator.gets, emulator.counters.files

    instance.retry()

    assert instance.totals["succeeded"] == 12
    assert (emulator.posts, emulator.gets, emulator.counters.files) == (12, gets, files)


def test_a_download_that_fails_is_made_again_without_a_new_prediction(
    emulator: Emulator, instance: BatchTaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(times, "SHORTEST_LIFE", 0.5)
    instance.options["rows"] = table(3)
    emulator.add_fault("500", on="file", times=None)

    with pytest.raises(FluxBatchError, match="could not be fetched"):
        instance.execute()
    assert instance.totals["failed"] == 3
    emulator.clear_rules()
    instance.retry()

    assert instance.totals["succeeded"] == 3
    assert emulator.posts == 3


@pytest.mark.parametrize("on_row_error", ["continue", "fail"])
def test_a_picture_that_is_paid_for_and_not_stored_fails_the_task_until_another_try_has_fetched_it(
    emulator: Emulator, instance: BatchTaskInstance, monkeypatch: pytest.MonkeyPatch, on_row_error: str
) -> None:
    monkeypatch.setattr(row_run, "STORE_PATIENCE", 0.5)
    instance.options.update(on_row_error=on_row_error, max_in_flight=20)
    emulator.add_fault("500", on="file", times=None, skip=10)

    with pytest.raises(FluxBatchError, match=r"'sku-\d+' \(row \d+.*2 are made and paid for") as failed:
        instance.execute()
    assert not isinstance(failed.value, AirflowFailException)
    assert (instance.totals["succeeded"], instance.totals["failed"], emulator.posts) == (10, 2, 12)
    emulator.clear_rules()
    instance.retry()

    assert instance.totals["succeeded"] == 12
    assert (emulator.posts, emulator.accepted) == (12, 12)


def test_pictures_that_are_not_stored_are_fetched_by_another_try_though_the_budget_is_spent(
    emulator: Emulator, instance: BatchTaskInstance, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(emulator.url, gateway="deerapi", prices=PRICES)
    monkeypatch.setattr(row_run, "STORE_PATIENCE", 0.5)
    instance.options["budget_usd"] = 0.05
    emulator.add_fault("500", on="file", times=None)

    with pytest.raises(FluxBatchError, match="5 are made and paid for"):
        instance.execute()
    emulator.clear_rules()
    with pytest.raises(FluxBudgetError):
        instance.retry()

    assert (instance.totals["succeeded"], emulator.posts) == (5, 5)


def test_a_row_that_failed_in_passing_is_made_anew_by_the_next_try(
    emulator: Emulator, instance: BatchTaskInstance
) -> None:
    emulator.add_outcome("PA", times=2)

    instance.execute()
    assert instance.totals["failed"] == 2
    instance.retry()

    assert instance.totals["succeeded"] == 12
    assert emulator.posts == 14


def test_refused_content_is_not_paid_for_again_until_a_person_clears_the_task(
    emulator: Emulator, instance: BatchTaskInstance
) -> None:
    emulator.add_outcome("E005", times=1)

    instance.execute()
    instance.retry()
    assert instance.totals["failed"] == 1
    assert emulator.posts == 12

    instance.clear()
    assert instance.totals["succeeded"] == 12
    assert emulator.posts == 13


def test_a_refused_create_is_not_repeated_by_a_retry(emulator: Emulator, instance: BatchTaskInstance) -> None:
    emulator.add_fault("422", on="create", times=1)

    instance.execute()
    instance.retry()

    assert instance.totals["failed"] == 1
    assert (emulator.posts, emulator.accepted) == (12, 11)


def test_a_changed_input_cancels_what_still_runs_and_is_made_anew(
    emulator: Emulator, instance: BatchTaskInstance
) -> None:
    emulator.settings(run_time=60.0)
    instance.options.update(cancel_on_kill=False, rows=table(3))
    killer = kill_after_posts(instance, emulator, 3)
    with pytest.raises(FluxKilledError):
        instance.execute()
    killer.join()
    emulator.settings(run_time=0.1)

    instance.options["prompt"] = "A drawing of {{ row.name }}"
    instance.retry()

    assert instance.totals["succeeded"] == 3
    assert (emulator.posts, emulator.cancels) == (6, 3)
    assert sum(prediction.status == "canceled" for prediction in emulator.predictions) == 3


def test_killing_cancels_all_that_is_in_flight(emulator: Emulator, instance: BatchTaskInstance) -> None:
    emulator.settings(run_time=60.0)
    killer = kill_after_posts(instance, emulator, 12)

    with pytest.raises(FluxKilledError, match="another try goes on"):
        instance.execute()
    killer.join()

    assert emulator.posts == emulator.cancels == 12
    assert {prediction.status for prediction in emulator.predictions} == {"canceled"}
    assert set(instance.statuses()) == {"in_flight"}


def test_killing_cancels_hundreds_on_a_slow_gateway_before_airflow_ends_the_worker(
    emulator: Emulator, instance: BatchTaskInstance
) -> None:
    emulator.settings(run_time=600.0)
    instance.options.update(rows=table(200), max_in_flight=200, poll_interval=1)

    def kill_when_all_run() -> None:
        while emulator.posts < 200:
            time.sleep(0.05)
        emulator.settings(latency=0.1)
        instance.on_kill()

    killer = threading.Thread(target=kill_when_all_run)
    killer.start()
    with pytest.raises(FluxKilledError):
        instance.execute()
    killer.join()

    assert emulator.accepted == emulator.cancels == 200
    assert {prediction.status for prediction in emulator.predictions} == {"canceled"}


def test_a_create_under_way_when_the_task_is_killed_is_canceled_as_soon_as_its_id_is_known(
    emulator: Emulator, instance: BatchTaskInstance
) -> None:
    emulator.settings(run_time=60.0)
    instance.options["rows"] = table(3)
    emulator.add_fault("slow", on="create", times=3, delay=0.6)
    killer = kill_after_posts(instance, emulator, 3)

    with pytest.raises(FluxKilledError):
        instance.execute()
    killer.join()

    assert emulator.accepted == 3
    assert {prediction.status for prediction in emulator.predictions} == {"canceled"}


def test_killing_before_anything_is_sent_sends_nothing(emulator: Emulator, instance: BatchTaskInstance) -> None:
    def stop(row: Any) -> str:
        instance.operator.on_kill()
        return "x"

    instance.options["prompt"] = stop

    with pytest.raises(FluxKilledError):
        instance.execute()

    assert emulator.posts == 0


def test_an_end_from_outside_stops_cleanly(
    emulator: Emulator, instance: BatchTaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow's execution_timeout raises in the main thread, wherever that is."""
    emulator.settings(run_time=60.0)

    class AirflowTaskTimeout(BaseException):
        pass

    def raise_soon(*_: Any, **__: Any) -> None:
        if emulator.posts == 12:
            raise AirflowTaskTimeout

    monkeypatch.setattr(run.BatchRun, "_publish", raise_soon)
    with pytest.raises(AirflowTaskTimeout):
        instance.execute()

    assert {prediction.status for prediction in emulator.predictions} == {"canceled"}
    assert not [thread for thread in threading.enumerate() if thread.name == "flux-batch"]


def test_a_prediction_that_does_not_end_in_time_is_canceled_and_fails_its_row(
    emulator: Emulator, instance: BatchTaskInstance
) -> None:
    emulator.settings(run_time=60.0)
    instance.options.update(rows=table(2), timeout=0.5)

    with pytest.raises(FluxBatchError, match="did not end in time"):
        instance.execute()

    assert instance.totals["failed"] == emulator.cancels == 2
    emulator.settings(run_time=0.1)
    instance.retry()
    assert instance.totals["succeeded"] == 2
    assert emulator.posts == 4


def test_a_row_that_fails_leaves_the_others_alone(emulator: Emulator, instance: BatchTaskInstance) -> None:
    emulator.add_outcome("E005", times=1)

    instance.execute()

    assert (instance.totals["failed"], instance.totals["succeeded"]) == (1, 11)
    (failed,) = [listed for listed in instance.manifest() if listed["status"] == "failed"]
    assert "E005" in failed["error"]
    assert failed["prediction_id"]


def test_if_asked_to_the_first_failure_stops_the_batch_and_what_is_in_flight_is_stored(
    emulator: Emulator, instance: BatchTaskInstance
) -> None:
    emulator.settings(run_time=0.3)
    emulator.add_outcome("E005", times=1)
    instance.options.update(on_row_error="fail", max_in_flight=3)

    with pytest.raises(FluxBatchRefusedError) as failed:
        instance.execute()

    listed = next(listed for listed in instance.manifest() if listed["status"] == "failed")
    assert repr(listed["key"]) in str(failed.value)
    assert listed["prediction_id"] in str(failed.value)
    assert "Change" in str(failed.value) or "change" in str(failed.value)
    assert emulator.posts < 12
    statuses = instance.statuses()
    assert statuses.count("succeeded") == emulator.accepted - 1
    assert statuses.count("not_started") == 12 - emulator.accepted


def test_more_failures_than_are_borne_stop_the_batch(emulator: Emulator, instance: BatchTaskInstance) -> None:
    emulator.add_outcome("E005", times=None)
    instance.options.update(max_failures=2, max_in_flight=1)

    with pytest.raises(FluxBatchRefusedError, match="3 failed"):
        instance.execute()

    assert emulator.posts == 3


def test_a_batch_whose_every_row_failed_fails(emulator: Emulator, instance: BatchTaskInstance) -> None:
    emulator.add_outcome("E005", times=None)

    with pytest.raises(FluxBatchRefusedError, match="all 12 failed"):
        instance.execute()

    assert instance.totals["failed"] == 12


@pytest.mark.parametrize(
    ("fault", "word"), [("401", "key"), ("402", "Top up"), ("403", "permissions"), ("html", "URL")]
)
def test_what_would_meet_every_row_stops_the_batch_at_once(
    emulator: Emulator, instance: BatchTaskInstance, fault: str, word: str
) -> None:
    emulator.add_fault(fault, on="create", times=None)
    instance.options.update(rows=table(100), max_in_flight=2)

    with pytest.raises(FluxRefusedError, match=word) as failed:
        instance.execute()

    assert isinstance(failed.value, AirflowFailException)
    assert emulator.posts <= 2
    assert instance.totals["failed"] == 0


def test_a_gateway_that_cannot_be_reached_stops_the_batch_and_a_retry_goes_on(
    emulator: Emulator, instance: BatchTaskInstance, connect: Connect
) -> None:
    connect("http://127.0.0.1:9", gateway="deerapi")
    instance.options["timeout"] = 1.0
    with pytest.raises(FluxGatewayError) as failed:
        instance.execute()
    assert not isinstance(failed.value, AirflowFailException)

    connect(emulator.url, gateway="deerapi")
    instance.retry()

    assert instance.totals["succeeded"] == emulator.posts == 12


def test_a_wrong_input_fails_its_row_and_is_not_sent(emulator: Emulator, instance: BatchTaskInstance) -> None:
    instance.options["input"] = lambda row: {"num_outputs": 99 if row["sku"] == "sku-3" else 1}

    instance.execute()

    assert (instance.totals["failed"], emulator.posts) == (1, 11)
    assert "num_outputs" in by_key(instance)["sku-3"]["error"]


def test_if_asked_to_a_wrong_input_stops_the_batch_before_anything_is_sent(
    emulator: Emulator, instance: BatchTaskInstance
) -> None:
    instance.options.update(input=lambda row: {"num_outputs": 99 if row["sku"] == "sku-3" else 1}, on_row_error="fail")

    with pytest.raises(FluxBatchRefusedError, match="sku-3"):
        instance.execute()

    assert emulator.posts == 0


def test_a_misspelt_column_is_no_empty_prompt(emulator: Emulator, instance: BatchTaskInstance) -> None:
    instance.options["prompt"] = "A studio photo of {{ row.nmae }}"

    with pytest.raises(FluxBatchRefusedError, match="nmae"):
        instance.execute()

    assert emulator.posts == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rows": [*table(3), {"sku": "sku-1", "name": "x"}]}, "rows 2 and 4 both have 'sku-1'"),
        ({"rows": [{"sku": " ", "name": "x"}]}, "row 1 has none"),
        ({"rows": [{"sku": None, "name": "x"}]}, "row 1 has none"),
        ({"key": "id"}, "no column 'id'"),
        ({"rows": ["text"]}, "not a mapping"),
        ({"rows": 7}, "rows must be"),
        ({"rows": "/nowhere/table.jsonl"}, "cannot be read"),
        ({"rows": "/nowhere/table.xls"}, "must end in"),
        ({"output_path": "relative/folder"}, "relative path"),
        ({"budget_usd": "much"}, "budget_usd"),
    ],
)
def test_what_is_wrong_with_the_whole_table_is_said_before_anything_is_sent(
    emulator: Emulator, instance: BatchTaskInstance, changes: dict[str, Any], said: str
) -> None:
    instance.options.update(changes)

    with pytest.raises(FluxInputError, match=said):
        instance.execute()

    assert emulator.posts == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("on_row_error", "stop"),
        ("on_unknown_submission", "x"),
        ("max_in_flight", 0),
        ("timeout", 0),
        ("poll_interval", 0),
    ],
)
def test_a_wrong_argument_is_refused_when_the_dag_is_parsed(instance: BatchTaskInstance, name: str, value: Any) -> None:
    instance.options[name] = value

    with pytest.raises(ValueError, match=name):
        instance.execute()


class TestIncremental:
    """The next run of a table that has hardly changed."""

    def test_unchanged_rows_cost_nothing(self, emulator: Emulator, instance: BatchTaskInstance) -> None:
        instance.execute()
        before = instance.manifest()
        requests = emulator.counters.requests

        instance.next_run()
        instance.next_run()

        assert instance.totals["kept"] == 12
        assert emulator.counters.requests == requests
        assert [{**listed, "status": "succeeded"} for listed in instance.manifest()] == before

    def test_a_changed_row_is_made_anew_and_its_old_picture_stays(
        self, emulator: Emulator, instance: BatchTaskInstance
    ) -> None:
        instance.execute()
        before = by_key(instance)
        rows = table(12)
        rows[3]["name"] = "something else"
        instance.options["rows"] = rows

        instance.next_run()

        assert (instance.totals["kept"], instance.totals["succeeded"], emulator.posts) == (11, 1, 13)
        assert Path(before["sku-3"]["path"]).is_file()
        assert by_key(instance)["sku-3"]["path"] != before["sku-3"]["path"]

    def test_a_picture_that_is_gone_is_made_anew(self, emulator: Emulator, instance: BatchTaskInstance) -> None:
        instance.execute()
        Path(by_key(instance)["sku-3"]["path"]).unlink()

        instance.next_run()

        assert (instance.totals["kept"], instance.totals["succeeded"]) == (11, 1)

    def test_a_row_that_is_gone_is_reported_and_its_picture_stays(self, instance: BatchTaskInstance) -> None:
        instance.execute()
        path = by_key(instance)["sku-3"]["path"]
        instance.options["rows"] = [row for row in table(12) if row["sku"] != "sku-3"]

        instance.next_run()

        assert (instance.totals["removed"], instance.totals["kept"]) == (1, 11)
        assert Path(path).is_file()

    def test_pictures_in_another_folder_count_as_well(self, emulator: Emulator, instance: BatchTaskInstance) -> None:
        instance.options.update(
            output_path=str(instance.folder / "monday"), manifest_path=str(instance.folder / "manifest.jsonl")
        )
        instance.execute()
        instance.options["output_path"] = str(instance.folder / "tuesday")

        instance.next_run()

        assert (instance.totals["kept"], emulator.posts) == (12, 12)

    def test_on_request_all_rows_are_made_anew_but_not_by_a_retry(
        self, emulator: Emulator, instance: BatchTaskInstance
    ) -> None:
        instance.options["incremental"] = False
        instance.execute()

        instance.next_run()
        assert (instance.totals["succeeded"], emulator.posts) == (12, 24)
        instance.retry()
        assert (instance.totals["succeeded"], emulator.posts) == (12, 24)

    def test_what_a_killed_run_has_made_is_kept_without_its_manifest(
        self, emulator: Emulator, instance: BatchTaskInstance
    ) -> None:
        instance.execute()
        (instance.folder / "manifest.jsonl").unlink()

        instance.next_run()

        assert (instance.totals["kept"], emulator.posts) == (12, 12)

    def test_what_failed_is_tried_again_by_the_next_run(self, emulator: Emulator, instance: BatchTaskInstance) -> None:
        emulator.add_outcome("E005", times=1)
        instance.execute()

        instance.next_run()

        assert (instance.totals["kept"], instance.totals["succeeded"], emulator.posts) == (11, 1, 13)


class TestBudget:
    """What a run may spend."""

    @pytest.fixture(autouse=True)
    def prices(self, emulator: Emulator, connect: Connect) -> None:
        connect(emulator.url, gateway="deerapi", prices=PRICES)

    def test_nothing_is_submitted_that_would_cross_it(self, emulator: Emulator, instance: BatchTaskInstance) -> None:
        instance.options["budget_usd"] = "0.05"

        with pytest.raises(FluxBudgetError, match=r"0\.0500 of 0\.05 USD are spent"):
            instance.execute()

        assert emulator.posts == 5
        assert (instance.totals["succeeded"], instance.totals["over_budget"], instance.totals["spent_usd"]) == (
            5,
            7,
            0.05,
        )

    def test_a_retry_counts_what_earlier_tries_have_spent(
        self, emulator: Emulator, instance: BatchTaskInstance
    ) -> None:
        instance.options["budget_usd"] = 0.05
        with pytest.raises(FluxBudgetError):
            instance.execute()

        with pytest.raises(FluxBudgetError):
            instance.retry()
        assert emulator.posts == 5

        instance.options["budget_usd"] = 0.12
        instance.clear()
        assert (instance.totals["succeeded"], emulator.posts, instance.totals["spent_usd"]) == (12, 12, 0.12)

    def test_the_next_run_has_a_budget_of_its_own(self, emulator: Emulator, instance: BatchTaskInstance) -> None:
        instance.options["budget_usd"] = 0.06
        with pytest.raises(FluxBudgetError):
            instance.execute()

        instance.next_run()

        assert (instance.totals["kept"], instance.totals["succeeded"], instance.totals["spent_usd"]) == (6, 6, 0.06)

    def test_a_create_whose_outcome_is_unknown_counts_as_spent(
        self, emulator: Emulator, instance: BatchTaskInstance
    ) -> None:
        emulator.add_fault("reset_after_accept", on="create", times=2)
        instance.options["budget_usd"] = 0.05

        with pytest.raises(FluxBudgetError):
            instance.execute()

        assert emulator.posts == 5

    def test_a_create_that_made_nothing_does_not(self, emulator: Emulator, instance: BatchTaskInstance) -> None:
        emulator.add_fault("422", on="create", times=3)
        instance.options.update(budget_usd=0.09, max_in_flight=1)

        instance.execute()

        assert (instance.totals["succeeded"], instance.totals["failed"], emulator.accepted) == (9, 3, 9)

    def test_without_a_price_nothing_is_sent(
        self, emulator: Emulator, instance: BatchTaskInstance, connect: Connect
    ) -> None:
        connect(emulator.url, gateway="deerapi")
        instance.options.update(budget_usd=5, model="someone/some-model")

        line = re.escape('{"prices": {"someone/some-model": 0.04}}')
        with pytest.raises(FluxBudgetError, match=f"Put its price in USD into the extra of .*{line}"):
            instance.execute()

        assert emulator.posts == 0


def test_the_figures_are_small_and_plain(instance: BatchTaskInstance) -> None:
    instance.options.update(rows=table(40, note="x" * 5000), prompt="{{ row.name }} {{ row.note }}")

    instance.execute()

    figures = instance.store.kept["flux_batch"]
    assert len(json.dumps(figures)) < 32 * 1024
    assert (figures["done"], figures["total"], figures["in_flight"], len(figures["recent"])) == (40, 40, 0, 24)
    assert set(figures["recent"][0]) == {
        *("key", "status", "prediction_id", "model", "prompt", "error"),
        *("path", "sha256", "format", "bytes", "width", "height", "cost_usd", "cost_is_at_most", "cost_source"),
        *("gateway", "passed_over"),
    }


def test_figures_that_cannot_be_published_do_not_end_the_batch(instance: BatchTaskInstance) -> None:
    instance.store.fails_at = set(range(1000))

    instance.execute()

    assert instance.totals["succeeded"] == 12


def test_without_a_store_for_figures_all_is_the_same(
    instance: BatchTaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance, "store", None)

    instance.execute()

    assert instance.totals["succeeded"] == 12


def test_sidecars_are_written_on_request(instance: BatchTaskInstance) -> None:
    instance.options.update(rows=table(1), write_sidecars=True)

    instance.execute()

    (listed,) = instance.manifest()
    assert json.loads(Path(listed["path"].replace("_0.webp", ".json")).read_text())["prompt"] == listed["prompt"]


def test_every_error_of_a_batch_is_one_of_this_package() -> None:
    assert issubclass(FluxBudgetError, FluxError)
    assert issubclass(FluxBudgetError, AirflowFailException)
    assert not issubclass(FluxBatchError, AirflowFailException)
