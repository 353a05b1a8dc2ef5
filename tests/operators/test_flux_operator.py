"""The operator where a whole run would show too little."""

from __future__ import annotations

import signal
import threading
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import TaskDeferred

from airflow_provider_flux.client.connection import GatewayAccess
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import (
    AirflowFailException,
    FluxDeadlineError,
    FluxEventError,
    FluxInputError,
    FluxOutputError,
    FluxOutputExpiredError,
    FluxPredictionRejectedError,
    FluxRefusedError,
    FluxStillRunningError,
    FluxSubmissionUnknownError,
)
from airflow_provider_flux.operators.flux import FluxPredictionOperator
from airflow_provider_flux.protocol.gateways import choose_gateway
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus
from airflow_provider_flux.tasks.pending import default_wait_before_defer
from airflow_provider_flux.tasks.results import describe
from tests.conftest import KEY, Connect

SCHNELL = "black-forest-labs/flux-schnell"
PRO = "black-forest-labs/flux-1.1-pro"
BOAT = {"prompt": "A paper boat floating on calm water at sunrise."}


class RecordedXComs:
    """Stands in for a task instance, of which only ``xcom_push`` is used."""

    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


@pytest.fixture(autouse=True)
def gateway(emulator: Emulator, connect: Connect) -> None:
    connect(emulator.url, gateway="deerapi", read_timeout=2)


@pytest.fixture
def xcoms() -> RecordedXComs:
    return RecordedXComs()


def operator(**options: Any) -> FluxPredictionOperator:
    return FluxPredictionOperator(**{"task_id": "make", "model": SCHNELL, "input": BOAT, **options})


def execute(task: FluxPredictionOperator, xcoms: RecordedXComs) -> Any:
    return task.execute({"ti": xcoms})  # type: ignore[typeddict-item]


def defer(task: FluxPredictionOperator, xcoms: RecordedXComs) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as deferred:
        execute(task, xcoms)
    return deferred.value


def described(prediction: Prediction) -> dict[str, Any]:
    access = GatewayAccess("flux_default", choose_gateway("https://api.deerapi.com"), KEY)
    return describe(prediction, access, model=prediction.model, input=prediction.input)


def test_without_waiting_it_returns_the_id_that_it_pushed(emulator: Emulator, xcoms: RecordedXComs) -> None:
    task = operator()
    prediction_id = execute(task, xcoms)
    assert set(xcoms.pushed) == {"prediction_id", "flux_result"}
    assert xcoms.pushed["prediction_id"] == prediction_id
    assert emulator.gets == 0
    assert task.prediction_page == f"{emulator.url}/p/{prediction_id}"


def test_what_is_asked_for_can_be_seen_while_it_runs(xcoms: RecordedXComs) -> None:
    prediction_id = execute(operator(input={**BOAT, "seed": 7}), xcoms)

    result = xcoms.pushed["flux_result"]
    assert (result["id"], result["status"], result["seed"]) == (prediction_id, "starting", 7)
    assert (result["prompt"], result["model"]) == (BOAT["prompt"], SCHNELL)
    assert (result["outputs"], result["stored"], result["cost_usd"]) == ([], [], None)


def test_the_id_is_pushed_before_any_wait(emulator: Emulator, xcoms: RecordedXComs) -> None:
    emulator.add_fault("401", on="get", times=None)
    with pytest.raises(FluxRefusedError):
        execute(operator(wait_for_completion=True), xcoms)
    assert xcoms.pushed["prediction_id"] == emulator.predictions[0].id


def test_prompt_and_input_become_one_input(emulator: Emulator, xcoms: RecordedXComs) -> None:
    execute(operator(prompt="A hat", input={"seed": 7}), xcoms)
    assert emulator.predictions[0].input == {"prompt": "A hat", "seed": 7}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "A hat"}, "differ"),
        ({"input": "A hat"}, "must be a mapping"),
        ({"input": None}, "'prompt' is a required property"),
        ({"model": "flux-schnell"}, "did you mean black-forest-labs/flux-schnell"),
        ({"input": {**BOAT, "seed": "7"}}, "render_template_as_native_obj"),
        ({"input": {**BOAT, "seed": timedelta(1)}}, "cannot be sent as JSON"),
    ],
)
def test_a_wrong_input_fails_for_good_before_anything_is_sent(
    emulator: Emulator, xcoms: RecordedXComs, options: dict[str, Any], message: str
) -> None:
    """bad input for a known model"""
    with pytest.raises(FluxInputError, match=message) as caught:
        execute(operator(**options), xcoms)
    assert isinstance(caught.value, AirflowFailException)
    assert emulator.counters.requests == 0


def test_a_model_outside_the_catalogue_is_passed_on_as_it_is(emulator: Emulator, xcoms: RecordedXComs) -> None:
    with pytest.raises(FluxRefusedError, match="does not sell this model"):
        execute(operator(model="somebody/flux-of-their-own", input={"anything": [1, 2]}), xcoms)
    assert emulator.posts == 1


def test_webhooks_are_passed_on(emulator: Emulator, xcoms: RecordedXComs) -> None:
    execute(operator(webhook="https://example.com/hook", webhook_events_filter=["completed"]), xcoms)
    assert emulator.predictions[0].webhook == "https://example.com/hook"


def test_a_wrong_choice_is_found_when_the_dag_is_parsed() -> None:
    with pytest.raises(ValueError, match="'fail' or 'resubmit'"):
        operator(on_unknown_submission="retry")


@pytest.mark.parametrize("poll_interval", [0, -1])
def test_an_interval_without_a_pause_is_found_when_the_dag_is_parsed(poll_interval: float) -> None:
    with pytest.raises(ValueError, match="poll_interval"):
        operator(poll_interval=poll_interval)


def test_an_unknown_outcome_fails_for_good_with_one_post(emulator: Emulator, xcoms: RecordedXComs) -> None:
    """POST: read timeout, reset, 5xx after sending"""
    emulator.add_fault("reset_after_accept", on="create")
    with pytest.raises(AirflowFailException, match="may have been accepted"):
        execute(operator(), xcoms)
    assert (emulator.posts, emulator.accepted) == (1, 1)


def test_a_quick_model_ends_on_the_worker_without_a_deferral(emulator: Emulator, xcoms: RecordedXComs) -> None:
    urls = execute(operator(wait_for_completion=True, deferrable=True), xcoms)
    assert xcoms.pushed["output_url"] == urls[0]
    assert default_wait_before_defer(SCHNELL) > default_wait_before_defer(PRO)


def test_what_airflow_stores_of_a_deferral_holds_no_secret_and_no_url(emulator: Emulator, xcoms: RecordedXComs) -> None:
    """the key"""
    emulator.add_outcome("stuck")
    deferred = defer(operator(wait_for_completion=True, deferrable=True, wait_before_defer=0), xcoms)
    stored = repr((deferred.trigger.serialize(), deferred.kwargs, deferred.method_name))
    assert KEY not in stored
    assert "http" not in stored
    assert BOAT["prompt"] not in stored
    assert deferred.timeout is not None
    assert deferred.timeout > timedelta(minutes=30), "a deferral without a triggerer must not wait for ever"


class TestResume:
    """A task that the triggerer hands back goes on to the end on its worker."""

    OPTIONS: dict[str, Any] = {"wait_for_completion": True, "deferrable": True, "wait_before_defer": 0}

    @pytest.fixture(autouse=True)
    def long_runs(self, emulator: Emulator) -> None:
        emulator.settings(run_time=1.0)

    def event(self, xcoms: RecordedXComs, status: str, **changes: Any) -> dict[str, Any]:
        trigger = defer(operator(**self.OPTIONS), xcoms).trigger
        return {**trigger.pending.event(status), **changes}  # type: ignore[attr-defined]

    def resume(self, xcoms: RecordedXComs, event: dict[str, Any], **options: Any) -> Any:
        task = operator(**{**self.OPTIONS, **options})
        return task.execute_complete({"ti": xcoms}, event)  # type: ignore[typeddict-item]

    def test_one_that_is_handed_back_too_early_waits_on(self, emulator: Emulator, xcoms: RecordedXComs) -> None:
        emulator.settings(run_time=1.0)
        assert len(self.resume(xcoms, self.event(xcoms, "cannot_tell"))) == 1
        assert emulator.posts == 1

    def test_a_prediction_that_the_gateway_does_not_know_ends_the_task_instead_of_bouncing(
        self, emulator: Emulator, xcoms: RecordedXComs
    ) -> None:
        """GET: 404 or `task_not_exist` right after create"""
        event = self.event(xcoms, "cannot_tell")
        emulator.add_fault("404", on="get", times=None)
        with pytest.raises(FluxRefusedError, match=event["prediction_id"]):
            self.resume(xcoms, event, poll_interval=0.01)

    def test_a_success_that_was_seen_stands_though_the_deadline_has_passed_since(
        self, emulator: Emulator, xcoms: RecordedXComs
    ) -> None:
        emulator.settings(run_time=0.5, cancel="404")
        event = self.event(xcoms, "succeeded", deadline=time.time() - 1)
        emulator.finish(event["prediction_id"])
        emulator.add_fault("503", on="get", times=2)
        assert len(self.resume(xcoms, event)) == 1
        assert (emulator.posts, emulator.cancels) == (1, 0)

    def test_it_goes_on_with_the_connection_that_made_the_prediction(
        self, emulator: Emulator, xcoms: RecordedXComs, connect: Connect
    ) -> None:
        event = self.event(xcoms, "succeeded")
        emulator.finish(event["prediction_id"])
        connect("http://127.0.0.1:9", conn_id="flux_other")
        assert len(self.resume(xcoms, event, flux_conn_id="flux_other", model=PRO)) == 1


def test_a_create_in_doubt_ends_before_airflow_would_time_it_out_and_try_again(
    emulator: Emulator, xcoms: RecordedXComs, connect: Connect
) -> None:
    """POST: read timeout, reset, 5xx after sending"""
    connect(emulator.url, read_timeout=60)
    emulator.add_fault("hang_after_accept", on="create")
    started = time.monotonic()
    with pytest.raises(FluxSubmissionUnknownError):
        execute(operator(execution_timeout=timedelta(seconds=3)), xcoms)
    assert time.monotonic() - started < 3
    assert emulator.posts == 1


@pytest.mark.parametrize("events", ["completed", ["complete"]])
def test_wrong_webhook_events_are_refused_before_anything_is_sent(
    emulator: Emulator, xcoms: RecordedXComs, events: Any
) -> None:
    """bad input for a known model"""
    with pytest.raises(FluxInputError, match="webhook_events_filter"):
        execute(operator(webhook="https://example.com/hook", webhook_events_filter=events), xcoms)
    assert emulator.counters.requests == 0


@pytest.mark.parametrize("timeout", [0, -5, timedelta(0)])
def test_a_wait_of_nothing_is_found_when_the_dag_is_parsed(timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout"):
        operator(timeout=timeout)


@pytest.mark.parametrize("event", [None, "success", {}, {"status": "succeeded"}, {"prediction_id": "a"}])
def test_an_event_of_another_kind_is_refused(emulator: Emulator, xcoms: RecordedXComs, event: Any) -> None:
    with pytest.raises(FluxEventError):
        operator().execute_complete({"ti": xcoms}, event)  # type: ignore[typeddict-item]
    assert emulator.counters.requests == 0


class TestTheDeadline:
    """deadline (`timeout`, also `execution_timeout`)"""

    @pytest.mark.parametrize("cancel", ["404", "405", "html", "redirect"])
    def test_the_error_says_that_the_gateway_could_not_cancel(
        self, emulator: Emulator, xcoms: RecordedXComs, cancel: str
    ) -> None:
        emulator.settings(cancel=cancel)
        emulator.add_outcome("stuck")
        with pytest.raises(FluxDeadlineError, match=r"could not be canceled.*may be billed") as caught:
            execute(operator(wait_for_completion=True, timeout=0.5, poll_interval=0.1), xcoms)
        assert caught.value.canceled is False
        assert isinstance(caught.value, FluxStillRunningError), "without a record, a retry would pay for another"
        assert caught.value.prediction_id == emulator.predictions[0].id
        assert emulator.posts == 1

    def test_the_error_says_that_the_prediction_is_canceled(self, emulator: Emulator, xcoms: RecordedXComs) -> None:
        emulator.add_outcome("stuck")
        with pytest.raises(FluxDeadlineError, match="is canceled") as caught:
            execute(operator(wait_for_completion=True, timeout=0.5, poll_interval=0.1), xcoms)
        assert caught.value.canceled is True

    def test_canceling_can_be_turned_off(self, emulator: Emulator, xcoms: RecordedXComs) -> None:
        emulator.add_outcome("stuck")
        with pytest.raises(FluxDeadlineError, match="goes on"):
            execute(operator(wait_for_completion=True, timeout=0.5, cancel_on_timeout=False), xcoms)
        assert emulator.cancels == 0

    def test_a_picture_that_is_done_at_the_last_moment_is_not_thrown_away(
        self, emulator: Emulator, xcoms: RecordedXComs
    ) -> None:
        emulator.settings(run_time=1.0)
        urls = execute(operator(wait_for_completion=True, timeout=1.5, poll_interval=60), xcoms)
        assert len(urls) == 1

    def test_the_shorter_of_the_two_limits_counts(self) -> None:
        assert operator(timeout=4, execution_timeout=timedelta(seconds=100))._seconds_allowed() == 4
        assert operator(timeout=timedelta(hours=1), execution_timeout=timedelta(seconds=100))._seconds_allowed() == 95

    def test_the_task_gives_up_a_little_sooner_than_airflow_would_end_it(self) -> None:
        assert operator(execution_timeout=timedelta(seconds=10))._seconds_allowed() == 9


class TestKill:
    """task killed, marked, cleared"""

    def test_a_worker_that_is_told_to_stop_cancels_the_prediction(
        self, emulator: Emulator, xcoms: RecordedXComs
    ) -> None:
        emulator.add_outcome("stuck")
        task = operator(wait_for_completion=True, poll_interval=0.2)
        previous = signal.signal(signal.SIGTERM, lambda *_: task.on_kill())
        timer = threading.Timer(1.0, signal.raise_signal, [signal.SIGTERM])
        # Only the main thread runs signal handlers, so the signal meets the task in its wait, as a worker's does.
        timer.start()
        try:
            with pytest.raises(Exception, match="was canceled"):
                execute(task, xcoms)
        finally:
            timer.join()
            signal.signal(signal.SIGTERM, previous)
        assert emulator.predictions[0].status == "canceled"
        assert emulator.posts == 1

    def test_canceling_can_be_turned_off(self, emulator: Emulator, xcoms: RecordedXComs) -> None:
        task = operator(cancel_on_kill=False)
        execute(task, xcoms)
        task.on_kill()
        assert emulator.cancels == 0

    def test_a_task_that_has_made_nothing_cancels_nothing(self, emulator: Emulator) -> None:
        operator().on_kill()
        assert emulator.counters.requests == 0

    def test_a_gateway_that_hangs_does_not_hold_up_the_kill(self, emulator: Emulator, xcoms: RecordedXComs) -> None:
        task = operator()
        execute(task, xcoms)
        emulator.add_fault("503", on="cancel", times=None)
        started = time.monotonic()
        task.on_kill()
        assert time.monotonic() - started < 20


class TestOutputs:
    """output: string, list, `data:` URI, null, shorter list than asked"""

    @pytest.mark.parametrize("outcome", ["succeeded", "other_kind", "early_output"])
    def test_every_kind_of_output_becomes_a_list_of_urls(
        self, emulator: Emulator, xcoms: RecordedXComs, outcome: str
    ) -> None:
        emulator.add_outcome(outcome)
        urls = execute(operator(wait_for_completion=True, poll_interval=0.1), xcoms)
        assert len(urls) == 1
        assert urls[0].startswith("http")

    def test_fewer_pictures_than_asked_are_handed_on(self, emulator: Emulator, xcoms: RecordedXComs) -> None:
        emulator.add_outcome("short_list")
        urls = execute(operator(wait_for_completion=True, input={**BOAT, "num_outputs": 3}), xcoms)
        assert len(urls) == 2

    def test_an_inline_picture_never_enters_an_xcom(self, emulator: Emulator, xcoms: RecordedXComs) -> None:
        emulator.add_outcome("data_uri")
        with pytest.raises(FluxOutputError, match="data: URI"):
            execute(operator(wait_for_completion=True), xcoms)
        assert "data:" not in repr(xcoms.pushed)
        assert emulator.posts == 1

    @pytest.mark.parametrize("outcome", ["null_output", "empty_list"])
    def test_a_success_without_output_is_an_error(self, emulator: Emulator, xcoms: RecordedXComs, outcome: str) -> None:
        emulator.add_outcome(outcome)
        with pytest.raises(FluxOutputError, match="without any output"):
            execute(operator(wait_for_completion=True), xcoms)

    def test_an_output_that_is_already_deleted_says_when_it_ended(
        self, emulator: Emulator, xcoms: RecordedXComs
    ) -> None:
        """output already expired (`data_removed`)"""
        emulator.add_outcome("data_removed")
        with pytest.raises(FluxOutputExpiredError, match=r"succeeded at 20\d\d-.*has been deleted") as caught:
            execute(operator(wait_for_completion=True), xcoms)
        assert isinstance(caught.value, AirflowFailException)


def test_the_description_for_galleries_is_small_and_plain() -> None:
    prediction = Prediction(
        id="a", status=PredictionStatus.SUCCEEDED, outputs=("data:image/png;base64,AAAA",), input={"prompt": "x" * 9999}
    )
    result = described(prediction)
    assert result["outputs"] == []
    assert len(result["prompt"]) == 200


@pytest.mark.parametrize(
    ("output", "expires_at"),
    [
        ("https://replicate.delivery/a/out-0.webp", "2026-01-01T01:00:00.000+00:00"),
        ("https://pbxt.replicate.delivery/a/out-0.webp", "2026-01-01T01:00:00.000+00:00"),
        ("https://delivery.bfl.ai/a.jpg", "2026-01-01T00:10:00.000+00:00"),
        ("https://notreplicate.delivery/a.jpg", "2026-01-01T00:10:00.000+00:00"),
    ],
)
def test_the_description_says_until_when_the_picture_can_be_relied_on(output: str, expires_at: str) -> None:
    """output already expired (`data_removed`)"""
    ended = datetime(2026, 1, 1, tzinfo=timezone.utc).timestamp()
    prediction = Prediction(id="a", status=PredictionStatus.SUCCEEDED, outputs=(output,), completed_at=ended)
    assert described(prediction)["expires_at"] == expires_at


def test_the_operator_maps_over_inputs_when_the_dag_is_parsed() -> None:
    with DAG("mapping"):
        mapped = FluxPredictionOperator.partial(task_id="make", model=SCHNELL).expand(input=[BOAT, BOAT])
    assert mapped.operator_class is FluxPredictionOperator


class TestACreateThatIsHeldBack:
    """`Prefer: wait`, where the gateway is known to honour it."""

    def preferences(self, emulator: Emulator) -> list[str | None]:
        return [request.prefer for request in emulator.requests if request.kind == "create"]

    def test_a_quick_model_on_replicate_needs_no_poll_at_all(
        self, emulator: Emulator, connect: Connect, xcoms: RecordedXComs
    ) -> None:
        connect(emulator.url, gateway="replicate")

        assert len(execute(operator(wait_for_completion=True), xcoms)) == 1
        assert (emulator.posts, emulator.accepted, emulator.gets) == (1, 1, 0)

    def test_a_failure_within_the_create_is_told_without_a_poll(
        self, emulator: Emulator, connect: Connect, xcoms: RecordedXComs
    ) -> None:
        connect(emulator.url, gateway="replicate")
        emulator.add_outcome("E005")

        with pytest.raises(FluxPredictionRejectedError):
            execute(operator(wait_for_completion=True), xcoms)
        assert (emulator.posts, emulator.gets) == (1, 0)

    @pytest.mark.parametrize(
        ("extra", "options"),
        [
            ({"gateway": "replicate"}, {"model": PRO, "wait_for_completion": True}),
            ({"gateway": "replicate"}, {"wait_for_completion": False}),
            ({"gateway": "replicate", "prefer_wait": False}, {"wait_for_completion": True}),
            ({"gateway": "deerapi"}, {"wait_for_completion": True}),
        ],
        ids=["slow model", "not waiting", "switched off", "gateway"],
    )
    def test_it_is_not_asked_for_where_it_is_no_use_or_unknown(
        self, emulator: Emulator, connect: Connect, extra: dict[str, Any], options: dict[str, Any]
    ) -> None:
        connect(emulator.url, **extra)

        execute(operator(**options), RecordedXComs())

        assert self.preferences(emulator) == [None]

    def test_a_gateway_is_asked_for_it_where_the_connection_says_so(
        self, emulator: Emulator, connect: Connect, xcoms: RecordedXComs
    ) -> None:
        connect(emulator.url, gateway="deerapi", prefer_wait=True, read_timeout=5)

        execute(operator(wait_for_completion=True), xcoms)

        assert self.preferences(emulator) == ["wait=2"]
        assert emulator.posts == 1
