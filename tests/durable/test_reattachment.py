"""Retries, clears and crashes on real Airflow: one prediction for one task."""

from __future__ import annotations

import os
import signal
import time
from datetime import datetime, timedelta
from typing import Any

import pytest
import requests
from airflow.sdk import DAG
from airflow.sdk.exceptions import TaskDeferred

from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import (
    AirflowFailException,
    FluxDeadlineError,
    FluxGatewayError,
    FluxKilledError,
    FluxOutputExpiredError,
    FluxPredictionCanceledError,
    FluxRefusedError,
    FluxSubmissionUnknownError,
    TaskDeferralTimeout,
)
from airflow_provider_flux.operators.flux import FluxPredictionOperator
from airflow_provider_flux.protocol import lookup
from airflow_provider_flux.tasks.state_store import RECORD_KEY
from tests.conftest import KEY, Connect
from tests.durable.task_instance import OperatorTaskInstance, Store
from tests.on_airflow.runs import run

SCHNELL = "black-forest-labs/flux-schnell"
BOAT = {"prompt": "A paper boat floating on calm water at sunrise."}


@pytest.fixture(autouse=True)
def gateway(emulator: Emulator, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "LOOKS_AFTER", (0.05, 0.3))
    connect(emulator.url, gateway="deerapi", read_timeout=2)


@pytest.fixture
def replicate(emulator: Emulator, connect: Connect) -> None:
    connect(emulator.url, gateway="replicate", read_timeout=2)


def instance(**options: Any) -> OperatorTaskInstance:
    return OperatorTaskInstance(
        {
            "task_id": "make",
            "model": SCHNELL,
            "input": BOAT,
            "wait_for_completion": True,
            "poll_interval": 0.1,
            **options,
        }
    )


def deferred(emulator: Emulator, *, run_time: float, has_store: bool = True) -> OperatorTaskInstance:
    """Return a task instance whose first try has made a prediction and waits for it in the triggerer."""
    emulator.settings(run_time=run_time)
    task = instance(deferrable=True, wait_before_defer=0)
    task.has_store = has_store
    with pytest.raises(TaskDeferred):
        task.execute()
    return task


class FailsOnce(FluxPredictionOperator):
    """Fails after its picture is there, as a task whose worker dies at the last moment."""

    def execute(self, context: Any) -> Any:
        urls = super().execute(context)
        if context["ti"].try_number == 1:
            raise RuntimeError("the worker has died")
        return urls


@pytest.mark.usefixtures("airflow_db")
def test_on_real_airflow_a_retry_uses_the_picture_that_the_first_try_paid_for(emulator: Emulator) -> None:
    """worker or triggerer dies at any point, retry, clear"""
    with DAG("retried") as dag:
        FailsOnce(
            task_id="make", model=SCHNELL, input=BOAT, wait_for_completion=True, retries=1, retry_delay=timedelta(0)
        )

    finished = run(dag)

    assert finished.state == "success"
    assert (emulator.posts, emulator.accepted, emulator.cancels) == (1, 1, 0)


class TestRetry:
    """worker or triggerer dies at any point, retry, clear"""

    def test_a_running_prediction_is_waited_for(self, emulator: Emulator) -> None:
        task = deferred(emulator, run_time=1.5)
        task.options.update(deferrable=False)
        assert len(task.retry()) == 1
        assert (emulator.posts, emulator.accepted, emulator.cancels) == (1, 1, 0)

    def test_a_finished_one_is_used(self, emulator: Emulator) -> None:
        task = instance()
        urls = task.execute()
        assert task.retry() == urls
        assert emulator.posts == 1

    def test_a_failed_one_is_made_again(self, emulator: Emulator) -> None:
        emulator.add_outcome("PA")
        task = instance()
        with pytest.raises(Exception, match="PA"):
            task.execute()
        assert task.retry()
        assert (emulator.posts, emulator.accepted) == (2, 2)

    def test_a_changed_input_cancels_the_old_one_and_makes_a_new_one(self, emulator: Emulator) -> None:
        emulator.add_outcome("stuck")
        task = instance(deferrable=True, wait_before_defer=0)
        with pytest.raises(TaskDeferred):
            task.execute()
        task.options.update(input={"prompt": "A hat"}, deferrable=False)
        assert task.retry()
        assert [made.status for made in emulator.predictions] == ["canceled", "succeeded"]
        assert emulator.posts == 2

    def test_an_expired_output_says_so_and_is_not_paid_for_again(self, emulator: Emulator) -> None:
        """output already expired (`data_removed`)"""
        emulator.settings(output_life=0.0)
        task = instance(wait_for_completion=False)
        task.execute()
        task.options.update(wait_for_completion=True)
        with pytest.raises(FluxOutputExpiredError):
            task.retry()
        assert emulator.posts == 1

    def test_trouble_with_asking_is_not_taken_for_an_answer(self, emulator: Emulator) -> None:
        task = instance(wait_for_completion=False)
        task.execute()
        emulator.add_fault("403", on="get", times=None)
        with pytest.raises(FluxRefusedError):
            task.retry()
        assert emulator.posts == 1
        emulator.clear_rules()
        task.retry()
        assert emulator.posts == 1

    def test_each_mapped_row_has_a_record_of_its_own(self, emulator: Emulator) -> None:
        first, second = instance(), instance()
        first.execute()
        second.execute()
        first.retry()
        second.retry()
        assert emulator.posts == 2

    def test_durable_false_makes_a_new_one(self, emulator: Emulator) -> None:
        task = instance(durable=False)
        task.execute()
        task.retry()
        assert emulator.posts == 2
        assert task.store.kept == {}


class TestClear:
    """worker or triggerer dies at any point, retry, clear"""

    def test_a_finished_one_is_used(self, emulator: Emulator) -> None:
        task = instance()
        urls = task.execute()
        assert task.clear() == urls
        assert emulator.posts == 1

    def test_an_expired_one_is_made_again_because_a_person_asked_for_it(self, emulator: Emulator) -> None:
        task = instance(wait_for_completion=False)
        first = task.execute()
        emulator.finish(first)
        emulator.settings(output_life=0.0)
        assert task.clear() != first
        assert emulator.posts == 2

    def test_one_that_is_canceled_under_the_new_try_is_made_again_once(self, emulator: Emulator) -> None:
        task = deferred(emulator, run_time=1.5)
        first = emulator.predictions[0].id
        task.options.update(deferrable=False)
        task.meanwhile(0.5, lambda: emulator.finish(first, "canceled"))
        assert task.clear()
        assert emulator.posts == 2

    def test_one_that_is_canceled_again_and_again_ends_the_task(self, emulator: Emulator) -> None:
        emulator.add_outcome("canceled", times=None)
        task = instance()
        with pytest.raises(FluxPredictionCanceledError):
            task.execute()
        assert emulator.posts == 1


class TestUnknownOutcome:
    """POST: read timeout, reset, 5xx after sending"""

    def test_a_worker_that_dies_before_the_answer_leaves_an_intent_and_the_retry_sends_nothing(
        self, emulator: Emulator
    ) -> None:
        task = instance()
        task.die_during_post(emulator)
        assert task.store.kept[RECORD_KEY]["prediction_id"] is None
        with pytest.raises(FluxSubmissionUnknownError, match="may have been accepted") as caught:
            task.retry()
        assert isinstance(caught.value, AirflowFailException)
        assert (emulator.posts, emulator.accepted) == (1, 1)

    def test_clearing_pays_again_only_after_an_error_has_told_of_it(self, emulator: Emulator) -> None:
        task = instance()
        task.die_during_post(emulator)
        with pytest.raises(FluxSubmissionUnknownError):
            task.clear()
        assert emulator.posts == 1
        assert task.clear()
        assert emulator.posts == 2

    def test_an_error_in_the_very_try_that_lost_the_answer_counts_as_told(self, emulator: Emulator) -> None:
        emulator.add_fault("reset_after_accept", on="create")
        task = instance()
        with pytest.raises(FluxSubmissionUnknownError):
            task.execute()
        with pytest.raises(FluxSubmissionUnknownError):
            task.retry()
        assert task.clear()
        assert emulator.posts == 2

    def test_the_caller_may_choose_to_risk_it(self, emulator: Emulator) -> None:
        task = instance()
        task.die_during_post(emulator)
        task.options.update(on_unknown_submission="resubmit")
        assert task.retry()
        assert emulator.posts == 2

    @pytest.mark.usefixtures("replicate")
    def test_replicate_is_searched_for_it(self, emulator: Emulator) -> None:
        task = instance()
        task.die_during_post(emulator)
        assert task.retry()
        assert (emulator.posts, emulator.accepted) == (1, 1)
        assert task.store.kept[RECORD_KEY]["prediction_id"] == emulator.predictions[0].id

    @pytest.mark.usefixtures("replicate")
    def test_what_replicate_does_not_list_after_a_while_was_never_made(self, emulator: Emulator) -> None:
        task = instance()
        task.die_during_post(emulator, fault="hang")
        assert task.retry()
        assert (emulator.posts, emulator.accepted) == (2, 1)

    @pytest.mark.usefixtures("replicate")
    def test_a_list_that_cannot_be_read_is_not_an_empty_one(self, emulator: Emulator) -> None:
        task = instance()
        task.die_during_post(emulator)
        emulator.add_fault("403", on="list", times=None)
        with pytest.raises(FluxSubmissionUnknownError):
            task.retry()
        assert emulator.posts == 1

    def test_a_create_that_was_refused_leaves_no_intent(self, emulator: Emulator) -> None:
        emulator.add_fault("402", on="create")
        task = instance()
        with pytest.raises(FluxRefusedError):
            task.execute()
        assert task.store.kept == {}
        assert task.retry()
        assert (emulator.posts, emulator.accepted) == (2, 1)

    def test_the_intent_is_written_before_the_post_and_the_id_right_after_it(self, emulator: Emulator) -> None:
        task = instance(wait_for_completion=False)
        posts_at_write: list[tuple[int, Any]] = []
        task.store.on_set = lambda value: posts_at_write.append((emulator.posts, value["prediction_id"]))
        prediction_id = task.execute()
        assert posts_at_write == [(0, None), (1, prediction_id)]

    def test_only_a_first_start_spares_the_look_into_the_store(self, emulator: Emulator) -> None:
        task = instance(wait_for_completion=False)
        task.execute()
        assert task.store.gets == 0
        task.retry()
        assert (task.store.gets, emulator.posts) == (1, 1)

    def test_a_task_that_was_rescheduled_in_its_first_try_finds_its_prediction(self, emulator: Emulator) -> None:
        task = instance(wait_for_completion=False)
        prediction_id = task.execute()
        # Airflow counts no try for it.
        task.reschedules = 1
        assert task.execute() == prediction_id
        assert emulator.posts == 1

    def test_what_is_shown_while_it_runs_is_stored_with_the_id_and_not_pushed(self, emulator: Emulator) -> None:
        task = deferred(emulator, run_time=30)
        shown = task.store.kept["flux_prediction"]["shown"]
        assert set(task.xcoms) == {"prediction_id"}
        assert (shown["id"], shown["prompt"], shown["status"]) == (
            task.xcoms["prediction_id"],
            BOAT["prompt"],
            "starting",
        )

    def test_an_attached_prediction_that_an_older_version_recorded_is_pushed(self, emulator: Emulator) -> None:
        task = deferred(emulator, run_time=30)
        del task.store.kept["flux_prediction"]["shown"]
        with pytest.raises(TaskDeferred):
            task.retry()
        assert task.xcoms["flux_result"]["id"] == task.xcoms["prediction_id"]
        assert emulator.posts == 1

    def test_without_a_store_it_is_pushed(self, emulator: Emulator) -> None:
        task = deferred(emulator, run_time=30, has_store=False)
        assert task.xcoms["flux_result"]["id"] == task.xcoms["prediction_id"]

    def test_after_a_deadline_the_result_is_pushed(self, emulator: Emulator) -> None:
        """deadline (`timeout`, also `execution_timeout`)"""
        emulator.settings(run_time=30)
        task = instance(timeout=1.0)
        with pytest.raises(FluxDeadlineError):
            task.execute()
        assert task.xcoms["flux_result"]["id"] == task.xcoms["prediction_id"]

    def test_a_question_about_the_earlier_one_ends_at_the_deadline_and_nothing_is_sent_after_it(
        self, emulator: Emulator
    ) -> None:
        """deadline (`timeout`, also `execution_timeout`)"""
        task = instance(wait_for_completion=False)
        task.execute()
        emulator.add_fault("503", on="get", times=None)
        task.options.update(timeout=1.0)
        started = time.monotonic()
        with pytest.raises(FluxGatewayError):
            task.retry()
        assert time.monotonic() - started < 10
        assert emulator.posts == 1

    def test_a_store_that_cannot_be_written_stops_the_task_before_it_costs_anything(self, emulator: Emulator) -> None:
        task = instance()
        task.store.fails_at = {1}
        with pytest.raises(OSError, match="no database"):
            task.execute()
        assert emulator.posts == 0

    def test_a_store_that_cannot_take_the_id_does_not_cost_the_picture(self, emulator: Emulator) -> None:
        task = instance()
        task.store.fails_at = {2}
        assert task.execute()
        assert emulator.posts == 1


class TestWithoutAStore:
    """Airflow 3.1 and 3.2 have no task state store."""

    def test_one_warning_says_what_a_crash_can_cost(
        self, emulator: Emulator, capsys: pytest.CaptureFixture[str]
    ) -> None:
        task = instance(wait_for_completion=False)
        task.has_store = False
        task.execute()
        assert capsys.readouterr().out.count("a retry pays for a second one") == 1

    @pytest.mark.usefixtures("replicate")
    def test_replicate_is_searched_on_a_retry(self, emulator: Emulator) -> None:
        task = instance()
        task.has_store = False
        urls = task.execute()
        assert task.retry() == urls
        assert emulator.posts == 1

    @pytest.mark.usefixtures("replicate")
    def test_durable_false_searches_nothing(self, emulator: Emulator) -> None:
        task = instance(durable=False)
        task.has_store = False
        task.execute()
        task.retry()
        assert emulator.posts == 2


class TestKill:
    """task killed, marked, cleared"""

    def test_before_the_post_nothing_is_sent(self, emulator: Emulator) -> None:
        task = instance()
        task.store.on_set = lambda _: task.operator.on_kill()
        with pytest.raises(FluxKilledError):
            task.execute()
        assert emulator.posts == 0
        assert task.store.kept == {}

    def test_during_the_post_the_prediction_is_canceled_as_soon_as_it_is_known(self, emulator: Emulator) -> None:
        emulator.add_outcome("stuck")
        emulator.settings(latency=1.0)
        task = instance()
        previous = signal.signal(signal.SIGTERM, lambda *_: task.operator.on_kill())
        try:
            task.meanwhile(0.5, lambda: os.kill(os.getpid(), signal.SIGTERM))
            with pytest.raises(FluxKilledError):
                task.execute()
        finally:
            signal.signal(signal.SIGTERM, previous)
        assert emulator.predictions[0].status == "canceled"
        assert emulator.posts == 1

    def test_a_kill_never_leads_to_another_post(self, emulator: Emulator) -> None:
        emulator.add_outcome("stuck")
        task = instance(deferrable=True, wait_before_defer=0)
        with pytest.raises(TaskDeferred):
            task.execute()
        task.options.update(deferrable=False)
        task.meanwhile(0.5, lambda: task.operator.on_kill())  # noqa: PLW0108 (the operator is a new one by then)
        with pytest.raises(FluxPredictionCanceledError):
            task.clear()
        assert emulator.posts == 1


class TestDeadline:
    """deadline (`timeout`, also `execution_timeout`)"""

    def test_a_deferral_that_airflow_itself_times_out_cancels_too(self, emulator: Emulator) -> None:
        emulator.add_outcome("stuck")
        task = instance(deferrable=True, wait_before_defer=0)
        with pytest.raises(TaskDeferred):
            task.execute()
        with pytest.raises(FluxDeadlineError, match="is canceled") as caught:
            task.resume("__fail__", {"error": "Trigger timeout"})
        assert isinstance(caught.value.__cause__, TaskDeferralTimeout)
        assert emulator.predictions[0].status == "canceled"

    def test_a_picture_that_is_there_by_then_is_handed_on(self, emulator: Emulator) -> None:
        task = instance(deferrable=True, wait_before_defer=0)
        emulator.settings(run_time=0.5)
        with pytest.raises(TaskDeferred):
            task.execute()
        emulator.finish(emulator.predictions[0].id)
        assert len(task.resume("__fail__", {"error": "Trigger timeout"})) == 1

    def test_a_trigger_that_crashed_keeps_the_prediction_for_the_retry(self, emulator: Emulator) -> None:
        emulator.settings(run_time=1.0)
        task = instance(deferrable=True, wait_before_defer=0)
        with pytest.raises(TaskDeferred):
            task.execute()
        with pytest.raises(Exception, match="Trigger failure"):
            task.resume("__fail__", {"error": "Trigger failure"})
        assert emulator.cancels == 0
        task.options.update(deferrable=False)
        assert task.retry()
        assert emulator.posts == 1

    @pytest.mark.usefixtures("replicate")
    def test_replicate_is_told_to_end_the_prediction_by_itself(self, emulator: Emulator) -> None:
        emulator.add_outcome("stuck")
        made = instance(timeout=100, deferrable=True, wait_before_defer=0)
        with pytest.raises(TaskDeferred):
            made.execute()
        made_at = emulator.predictions[0].created
        request = made.operator.hook.access.gateway.get(emulator.predictions[0].id)
        shown = requests.get(f"{emulator.url}{request.path}", headers={"Authorization": f"Bearer {KEY}"}, timeout=5)
        ends_at = datetime.fromisoformat(shown.json()["deadline"][:19] + "+00:00").timestamp()
        assert ends_at - made_at == pytest.approx(130, abs=3)


def test_the_store_stands_in_faithfully() -> None:
    store = Store()
    store.set("key", {"a": 1})
    assert store.get("key") == {"a": 1}
    store.delete("key")
    assert store.get("key") is None
