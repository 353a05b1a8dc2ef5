"""The trigger against the emulator, over real sockets, with and without TLS."""

from __future__ import annotations

import asyncio
import gc
import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_flux.client import aio
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.tasks.pending import PendingPrediction
from airflow_provider_flux.triggers.defer import SerializedTrigger
from airflow_provider_flux.triggers.flux import CANNOT_TELL, TIMED_OUT, FluxPredictionTrigger
from tests.certificates import make_certificates
from tests.conftest import KEY, Connect
from tests.servers import TricklingServer

SCHNELL = "black-forest-labs/flux-schnell"
BOAT = {"prompt": "A paper boat floating on calm water at sunrise."}


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, str]]:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def secure_emulator(certificates: tuple[Path, tuple[str, str]]) -> Iterator[Emulator]:
    with Emulator(key=KEY, speed=50, tls=certificates[1]) as running:
        yield running


@pytest.fixture(autouse=True)
def connection(emulator: Emulator, connect: Connect) -> None:
    connect(emulator.url, gateway="deerapi", read_timeout=0.5)


@pytest.mark.parametrize(("setting", "freezes"), [(None, True), ("True", True), ("False", False)])
def test_what_a_triggerer_has_loaded_is_left_out_of_collections_unless_a_setting_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, setting: str | None, freezes: bool
) -> None:
    if setting is not None:
        monkeypatch.setenv("AIRFLOW__FLUX__FREEZE_LOADED_OBJECTS", setting)
    monkeypatch.setattr(FluxPredictionTrigger, "_client", None)
    trigger = trigger_for(make())
    loaded = [[] for _ in range(1000)]
    asyncio.run(trigger._wait())

    is_collected = {id(each) for each in gc.get_objects()}
    assert any(id(each) in is_collected for each in loaded) is not freezes


def make() -> str:
    return FluxHook().create_prediction(SCHNELL, BOAT).id


def trigger_for(prediction_id: str, *, seconds: float = 20, **options: Any) -> FluxPredictionTrigger:
    now = time.time()
    arguments: dict[str, Any] = {
        "flux_conn_id": "flux_default",
        "prediction_id": prediction_id,
        "model": SCHNELL,
        "submitted_at": now,
        "deadline": now + seconds,
        "poll_interval": 0.05,
    }
    return FluxPredictionTrigger(**{**arguments, **options})


async def fire(trigger: FluxPredictionTrigger) -> dict[str, Any]:
    events = [event.payload async for event in trigger.run()]
    assert len(events) == 1
    return events[0]


async def test_a_prediction_that_succeeds_ends_in_one_small_event(emulator: Emulator) -> None:
    """`succeeded`"""
    prediction_id = make()
    event = await fire(trigger_for(prediction_id))
    assert (event["prediction_id"], event["status"]) == (prediction_id, "succeeded")
    assert len(json.dumps(event)) < 400
    assert emulator.posts == 1


@pytest.mark.parametrize(("outcome", "status"), [("E005", "failed"), ("canceled", "canceled"), ("aborted", "aborted")])
async def test_any_other_end_is_told_by_its_status(emulator: Emulator, outcome: str, status: str) -> None:
    """`canceled`, `aborted`"""
    emulator.add_outcome(outcome)
    assert (await fire(trigger_for(make())))["status"] == status


async def test_the_deadline_is_absolute_and_survives_a_restart_of_the_triggerer(emulator: Emulator) -> None:
    """deadline (`timeout`, also `execution_timeout`)"""
    emulator.add_outcome("stuck")
    first = trigger_for(make(), seconds=1.0)
    waiting = asyncio.create_task(fire(first))
    await asyncio.sleep(0.3)
    waiting.cancel()

    path, arguments = first.serialize()
    assert path == "airflow_provider_flux.triggers.flux.FluxPredictionTrigger"
    event = await fire(FluxPredictionTrigger(**json.loads(json.dumps(arguments))))

    assert event["status"] == TIMED_OUT
    assert time.time() - first.pending.deadline < 5
    assert emulator.cancels == 0, "the task that resumes cancels, not the trigger"


@pytest.mark.parametrize("fault", ["429_header", "500", "502", "503", "504", "hang", "reset_before_accept", "html"])
async def test_trouble_with_a_poll_is_borne(emulator: Emulator, fault: str) -> None:
    """GET: 429, 5xx, timeouts, resets, HTML"""
    prediction_id = make()
    emulator.add_fault(fault, on="get", times=3, retry_after=0.1)
    assert (await fire(trigger_for(prediction_id)))["status"] == "succeeded"


async def test_a_refused_key_hands_the_task_back_instead_of_polling_on(emulator: Emulator) -> None:
    emulator.add_fault("401", on="get", times=None)
    assert (await fire(trigger_for(make())))["status"] == CANNOT_TELL
    assert emulator.gets == 1


async def test_a_broken_connection_hands_the_task_back(connect: Connect) -> None:
    prediction_id = make()
    connect("https://api.example.com", key="")
    assert (await fire(trigger_for(prediction_id)))["status"] == CANNOT_TELL


def test_a_worker_hands_on_what_the_trigger_itself_would_be_stored_as() -> None:
    choices = {"poll_interval": 2.0, "cancel_on_kill": True, "end_task": True, "push_return_value": False}
    pending = PendingPrediction(
        prediction_id="abc", flux_conn_id="flux_default", model="a/b", submitted_at=1.0, deadline=2.0
    )
    handed_on = SerializedTrigger(pending=pending, **choices).serialize()  # type: ignore[arg-type]
    assert handed_on == FluxPredictionTrigger(**asdict(pending), **choices).serialize()  # type: ignore[arg-type]


async def test_a_fault_of_this_triggerer_hands_the_task_back_instead_of_failing_it(
    emulator: Emulator, connect: Connect
) -> None:
    prediction_id = make()
    connect(emulator.url, ca_file="/no/such/file.pem")
    assert (await fire(trigger_for(prediction_id)))["status"] == CANNOT_TELL


async def test_a_prediction_that_the_gateway_never_knew_hands_the_task_back(emulator: Emulator) -> None:
    """GET: 404 or `task_not_exist` right after create"""
    assert (await fire(trigger_for("no-such-prediction", seconds=60)))["status"] == CANNOT_TELL


@pytest.mark.parametrize("count", [1, 100])
async def test_requests_that_hang_do_not_outlive_the_deadline(emulator: Emulator, connect: Connect, count: int) -> None:
    """deadline (`timeout`, also `execution_timeout`)"""
    ids = [make() for _ in range(count)]
    connect(emulator.url, read_timeout=60)
    emulator.add_fault("hang", on="get", times=None)
    triggers = [trigger_for(prediction_id, seconds=2) for prediction_id in ids]
    events = await asyncio.gather(*map(fire, triggers))
    assert {event["status"] for event in events} == {TIMED_OUT}
    assert time.time() - triggers[0].pending.deadline < 10


async def test_an_answer_that_trickles_does_not_outlive_the_deadline(connect: Connect) -> None:
    """deadline (`timeout`, also `execution_timeout`)"""
    with TricklingServer() as url:
        connect(url, read_timeout=30)
        trigger = trigger_for("some-prediction", seconds=2)
        assert (await fire(trigger))["status"] == TIMED_OUT
        assert time.time() - trigger.pending.deadline < 10


async def test_two_hundred_triggers_share_one_bounded_pool(emulator: Emulator) -> None:
    ids = [make() for _ in range(200)]
    before = emulator.connections
    events = await asyncio.gather(*(fire(trigger_for(prediction_id, seconds=60)) for prediction_id in ids))
    assert {event["status"] for event in events} == {"succeeded"}
    assert emulator.connections - before <= aio.POOL_SIZE
    assert emulator.posts == 200


async def test_the_last_trigger_closes_the_session(emulator: Emulator) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        await asyncio.gather(*(fire(trigger_for(make())) for _ in range(5)))
        gc.collect()
    assert not aio._sessions[asyncio.get_running_loop()].by_origin


async def test_a_trigger_that_is_canceled_in_a_request_leaves_nothing_open(emulator: Emulator) -> None:
    """task killed, marked, cleared"""
    emulator.add_fault("hang", on="get", times=None)
    waiting = asyncio.create_task(fire(trigger_for(make())))
    await asyncio.sleep(0.3)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not aio._sessions[asyncio.get_running_loop()].by_origin
    assert emulator.cancels == 0, "a trigger that merely stops must not cancel a paid prediction"


async def test_the_loop_is_never_blocked_for_long(emulator: Emulator) -> None:
    late = 0.0

    async def tick() -> None:
        nonlocal late
        while True:
            asked = time.perf_counter()
            await asyncio.sleep(0.005)
            late = max(late, time.perf_counter() - asked - 0.005)

    await fire(trigger_for(make()))
    emulator.settings(latency=0.3)
    ticking = asyncio.create_task(tick())
    await asyncio.gather(*(fire(trigger_for(prediction_id)) for prediction_id in await made(5)))
    ticking.cancel()
    # A poll that waited for the gateway on the loop would block it for the gateway's 300 ms each time.
    assert late < 0.2


async def made(count: int) -> list[str]:
    return [await asyncio.to_thread(make) for _ in range(count)]


class TestTls:
    """Both clients trust the same authorities."""

    async def test_a_gateway_of_an_own_authority_is_trusted_by_worker_and_triggerer(
        self, secure_emulator: Emulator, certificates: tuple[Path, tuple[str, str]], connect: Connect
    ) -> None:
        connect(secure_emulator.url, ca_file=str(certificates[0]))
        prediction_id = await asyncio.to_thread(make)
        assert (await fire(trigger_for(prediction_id)))["status"] == "succeeded"

    async def test_the_usual_environment_variable_works_for_both_too(
        self,
        secure_emulator: Emulator,
        certificates: tuple[Path, tuple[str, str]],
        connect: Connect,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates[0]))
        connect(secure_emulator.url)
        prediction_id = await asyncio.to_thread(make)
        assert (await fire(trigger_for(prediction_id)))["status"] == "succeeded"

    async def test_a_certificate_that_is_not_trusted_ends_the_wait_and_gets_no_key(
        self, secure_emulator: Emulator, connect: Connect
    ) -> None:
        connect(secure_emulator.url)
        works, message = await asyncio.to_thread(FluxHook().test_connection)
        assert not works
        assert "certificate" in message
        assert (await fire(trigger_for("some-prediction")))["status"] == CANNOT_TELL
        assert secure_emulator.counters.requests == 0


class TestTheKey:
    """the key"""

    async def test_a_redirect_does_not_take_it_elsewhere(self, emulator: Emulator) -> None:
        prediction_id = make()
        emulator.add_fault("redirect", on="get")
        assert (await fire(trigger_for(prediction_id)))["status"] == CANNOT_TELL
        assert {record.origin for record in emulator.requests} == {"gateway"}

    async def test_a_netrc_cannot_replace_it(
        self, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1\nlogin someone\npassword else\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        assert (await fire(trigger_for(make())))["status"] == "succeeded"
        assert {record.key_ok for record in emulator.requests} == {True}

    def test_it_is_in_no_argument_of_the_trigger(self) -> None:
        trigger = trigger_for("some-prediction")
        assert KEY not in repr(trigger.serialize())
        assert KEY not in repr(trigger)


class TestKill:
    """task killed, marked, cleared"""

    @staticmethod
    def in_state(trigger: FluxPredictionTrigger, monkeypatch: pytest.MonkeyPatch, state: Any) -> None:
        """Let Airflow's supervisor, which only a real triggerer has, tell a state of the task."""
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        def get_task_states(**_: Any) -> Any:
            if isinstance(state, Exception):
                raise state
            return {"run": {"make": state}}

        monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(get_task_states))
        instance = SimpleNamespace(dag_id="dag", task_id="make", run_id="run", map_index=-1)
        trigger.task_instance = instance  # type: ignore[assignment]

    @pytest.mark.parametrize("state", ["failed", "success", "up_for_retry", None])
    async def test_a_task_that_a_person_ended_cancels_its_prediction(
        self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, state: str | None
    ) -> None:
        emulator.add_outcome("stuck")
        trigger = trigger_for(make(), cancel_on_kill=True)
        self.in_state(trigger, monkeypatch, state)
        await trigger.on_kill()
        assert emulator.predictions[0].status == "canceled"

    async def test_a_task_that_still_waits_elsewhere_keeps_it(
        self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        emulator.add_outcome("stuck")
        trigger = trigger_for(make(), cancel_on_kill=True)
        self.in_state(trigger, monkeypatch, "deferred")
        await trigger.on_kill()
        assert emulator.cancels == 0

    async def test_a_state_that_cannot_be_read_keeps_it(
        self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        emulator.add_outcome("stuck")
        trigger = trigger_for(make(), cancel_on_kill=True)
        self.in_state(trigger, monkeypatch, RuntimeError("no supervisor"))
        await trigger.on_kill()
        assert emulator.cancels == 0

    async def test_the_cancel_goes_through_though_airflow_interrupts_the_wait_for_it(
        self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        emulator.add_outcome("stuck")
        trigger = trigger_for(make(), cancel_on_kill=True)
        self.in_state(trigger, monkeypatch, "failed")
        emulator.settings(latency=0.4)
        killing = asyncio.create_task(trigger.on_kill())
        await asyncio.sleep(0.1)
        killing.cancel()
        await asyncio.sleep(1.0)
        assert emulator.predictions[0].status == "canceled"

    async def test_a_sensors_trigger_never_cancels(self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
        trigger = trigger_for(make(), cancel_on_kill=False)
        self.in_state(trigger, monkeypatch, "failed")
        await trigger.on_kill()
        assert emulator.cancels == 0
