"""The sensor where a whole run would show too little."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred

from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import AirflowSensorTimeout, FluxInputError, FluxRefusedError
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.sensors.flux import FluxPredictionSensor
from tests.conftest import Connect

SCHNELL = "black-forest-labs/flux-schnell"
BOAT = {"prompt": "A paper boat floating on calm water at sunrise."}


@pytest.fixture(autouse=True)
def gateway(emulator: Emulator, connect: Connect) -> None:
    connect(emulator.url, gateway="deerapi", read_timeout=2)


def context(rescheduled_since: float | None = None) -> Any:
    """What a sensor uses of a task's context."""
    first = None if rescheduled_since is None else datetime.fromtimestamp(rescheduled_since, timezone.utc)
    pushed: dict[str, Any] = {}
    instance = SimpleNamespace(xcom_push=pushed.__setitem__, get_first_reschedule_date=lambda _: first, pushed=pushed)
    return {"ti": instance}


def sensor(prediction_id: Any, **options: Any) -> FluxPredictionSensor:
    return FluxPredictionSensor(**{"task_id": "ready", "prediction_id": prediction_id, "poke_interval": 0.1, **options})


def make() -> str:
    return FluxHook().create_prediction(SCHNELL, BOAT).id


def test_one_answer_that_does_not_know_the_prediction_is_borne(emulator: Emulator) -> None:
    """GET: 404 or `task_not_exist` right after create"""
    prediction_id = make()
    emulator.add_fault("404", on="get", times=3)
    assert len(sensor(prediction_id).execute(context())) == 1


def test_a_prediction_that_stays_unknown_is_an_error(emulator: Emulator) -> None:
    """GET: 404 or `task_not_exist` right after create"""
    with pytest.raises(FluxRefusedError, match="no-such-prediction"):
        sensor("no-such-prediction").execute(context())
    assert emulator.gets < 20


def test_a_rescheduled_sensor_bears_it_for_as_long(emulator: Emulator) -> None:
    """GET: 404 or `task_not_exist` right after create"""
    task = sensor("no-such-prediction", mode="reschedule", poke_interval=10)
    assert task.poke(context(rescheduled_since=time.time() - 20)) is False
    with pytest.raises(FluxRefusedError):
        task.poke(context(rescheduled_since=time.time() - 100))


def test_a_deferrable_one_ends_on_the_worker_too(emulator: Emulator) -> None:
    """GET: 404 or `task_not_exist` right after create"""
    with pytest.raises(TaskDeferred) as deferred:
        sensor("no-such-prediction", deferrable=True, poll_interval=2).execute(context())
    event = deferred.value.trigger.pending.event("cannot_tell")  # type: ignore[attr-defined]
    with pytest.raises(FluxRefusedError):
        sensor("no-such-prediction", deferrable=True, poll_interval=0.01).execute_complete(context(), event)


def test_a_success_that_the_triggerer_saw_stands_after_the_timeout(emulator: Emulator) -> None:
    emulator.settings(run_time=600)
    prediction_id = make()
    with pytest.raises(TaskDeferred) as deferred:
        sensor(prediction_id, deferrable=True, poll_interval=0.5).execute(context())
    event = deferred.value.trigger.pending.event("succeeded")  # type: ignore[attr-defined]
    emulator.finish(prediction_id)
    emulator.add_fault("503", on="get", times=2)
    late = {**event, "deadline": time.time() - 1}
    assert len(sensor(prediction_id, deferrable=True).execute_complete(context(), late)) == 1


def test_execution_timeout_counts_while_deferred(emulator: Emulator) -> None:
    """deadline (`timeout`, also `execution_timeout`)"""
    emulator.add_outcome("stuck")
    task = sensor(make(), deferrable=True, execution_timeout=timedelta(seconds=60))
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(context())
    assert deferred.value.trigger.pending.deadline - time.time() < 61  # type: ignore[attr-defined]


def test_a_deferral_that_airflow_ends_gets_a_last_look(emulator: Emulator) -> None:
    """deadline (`timeout`, also `execution_timeout`)"""
    prediction_id = make()
    emulator.finish(prediction_id)
    task = sensor(prediction_id, deferrable=True)
    assert len(task.resume_execution("__fail__", {"error": "Trigger timeout"}, context())) == 1

    emulator.add_outcome("stuck")
    late = sensor(make(), deferrable=True)
    with pytest.raises(AirflowSensorTimeout):
        late.resume_execution("__fail__", {"error": "Trigger timeout"}, context())


def test_a_deadline_that_passes_on_the_worker_is_a_sensor_timeout(emulator: Emulator) -> None:
    """deadline (`timeout`, also `execution_timeout`)"""
    emulator.add_outcome("stuck")
    with pytest.raises(AirflowSensorTimeout, match="It goes on"):
        sensor(make(), deferrable=True, timeout=1, poll_interval=0.2).execute(context())
    assert emulator.cancels == 0


@pytest.mark.parametrize("options", [{}, {"deferrable": True}])
@pytest.mark.parametrize("prediction_id", [None, "", 7])
def test_an_id_that_is_none_is_refused_or_skipped_as_sensors_do(
    emulator: Emulator, options: dict[str, Any], prediction_id: Any
) -> None:
    with pytest.raises(FluxInputError):
        sensor(prediction_id, **options).execute(context())
    with pytest.raises(AirflowSkipException):
        sensor(prediction_id, soft_fail=True, **options).execute(context())
    assert emulator.counters.requests == 0


def test_a_status_and_an_output_that_do_not_fit_are_looked_at_again(emulator: Emulator) -> None:
    """output: string, list, `data:` URI, null, shorter list than asked"""
    emulator.settings(run_time=2.0)
    emulator.add_outcome("early_output")
    prediction_id = make()
    assert len(sensor(prediction_id).execute(context())) == 1
