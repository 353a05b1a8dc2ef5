"""The budget of a connection, by a clock that the tests turn, and where the worker meets it, over real sockets."""

from __future__ import annotations

import heapq
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_flux.client import rate_limiter
from airflow_provider_flux.client.connection import GatewayAccess, read_connection
from airflow_provider_flux.client.rate_limiter import (
    BURST,
    FINEST_WAIT,
    SLOWEST,
    Pace,
    RateLimiter,
    Turn,
    rate_limiter_of,
)
from airflow_provider_flux.client.sync import run
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import FluxConnectionError, FluxGatewayError, FluxSubmissionUnknownError
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.protocol import schedule
from airflow_provider_flux.protocol.flows import LONGEST_SILENCE, CallFailed, Conversation
from airflow_provider_flux.protocol.gateways import choose_gateway
from airflow_provider_flux.protocol.messages import Delivery, Request, Response
from tests.conftest import KEY, Connect
from tests.protocol.scripted import LogBook, answer, create_request

GATEWAY = choose_gateway("https://api.deerapi.com")
POLL = GATEWAY.get("some-prediction")
CANCEL = GATEWAY.cancel("some-prediction")
CREATE = create_request()
GOOD = answer(200, {"id": "some-prediction", "status": "starting"})
SCHNELL = "black-forest-labs/flux-schnell"
BOAT = {"prompt": "A paper boat"}


def answer_429(seconds: float | None) -> Response:
    headers = {"content-type": "application/json"} | ({} if seconds is None else {"retry-after": str(seconds)})
    return Response(429, headers, b'{"error": {"message": "slow down"}}')


@pytest.fixture(autouse=True)
def no_rate_limiters() -> Iterator[None]:
    yield
    rate_limiter._rate_limiters.clear()


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO, logger=rate_limiter.__name__)
    return lambda: [record.getMessage() for record in caplog.records if record.name == rate_limiter.__name__]


class Bench:
    """A pace of ten turns a second, and a clock that is turned by hand."""

    def __init__(self, per_minute: float = 600) -> None:
        self.now = 100.0
        self.pace = Pace(per_minute, "Connection 'flux_default'", clock=lambda: self.now, chance=lambda: 1.0)

    def turn(self, request: Request = POLL) -> Turn:
        return Turn(self.pace, request)

    def use_up(self) -> None:
        """Take every turn that is there at once."""
        while not self.turn().wait():
            pass

    def wait_for(self, turn: Turn) -> float:
        """Wait as a driver does, and return when the turn came."""
        for _ in range(100):
            seconds = turn.wait()
            if not seconds:
                return self.now
            self.now += seconds
        raise AssertionError("the turn never comes")

    def refuse(self, seconds: float | None) -> None:
        """Meet a 429 with a request of its own."""
        turn = self.turn(CANCEL)
        turn.wait()
        turn.note(answer_429(seconds))


def distances(moments: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(moments)]


def test_a_rested_connection_may_send_a_second_of_its_pace_at_once_and_then_one_by_one() -> None:
    bench = Bench()
    at_once = 0
    while not bench.turn().wait():
        at_once += 1
    assert at_once == pytest.approx(600 / 60 * BURST, abs=1)
    moments = [bench.wait_for(turn) for turn in [bench.turn() for _ in range(20)]]
    assert distances(moments) == pytest.approx([0.1] * 19, abs=0.002)


def test_turns_come_in_the_order_in_which_they_were_asked_for() -> None:
    bench = Bench()
    bench.use_up()
    waits = [bench.turn().wait() for _ in range(50)]
    assert waits == sorted(waits)
    assert len(set(waits)) == 50


def test_a_429_puts_off_every_turn_that_has_not_come_and_lets_none_of_them_bunch() -> None:
    bench = Bench()
    bench.use_up()
    waiting = [bench.turn() for _ in range(30)]
    bench.refuse(20.0)
    refused_at = bench.now
    late = [bench.turn() for _ in range(5)]
    moments = [bench.wait_for(turn) for turn in [*waiting, *late]]
    assert moments[0] >= refused_at + 20.0
    # At half the pace, which grows while they come: never closer than before the 429.
    assert min(distances(moments)) > 0.1
    assert moments[1] - moments[0] == pytest.approx(0.2, abs=0.01)


def test_requests_that_come_during_the_silence_do_not_all_go_when_it_ends() -> None:
    bench = Bench()
    bench.refuse(20.0)
    moments = [bench.wait_for(turn) for turn in [bench.turn() for _ in range(10)]]
    assert moments[0] >= 119.9
    assert min(distances(moments)) > 0.1


def test_requests_that_were_on_their_way_together_slow_the_connection_down_once() -> None:
    bench = Bench()
    together = [bench.turn() for _ in range(8)]
    assert not any(turn.wait() for turn in together)
    for turn in together:
        turn.note(answer_429(1.0))
    assert bench.pace.cuts == 1
    after = bench.turn()
    bench.wait_for(after)
    after.note(answer_429(1.0))
    assert bench.pace.cuts == 2


def test_the_longest_silence_asked_for_counts() -> None:
    bench = Bench()
    together = [bench.turn() for _ in range(3)]
    assert not any(turn.wait() for turn in together)
    for turn, seconds in zip(together, (2.0, 9.0, 4.0), strict=True):
        turn.note(answer_429(seconds))
    assert bench.wait_for(bench.turn()) >= 109.0


def test_no_gateways_word_silences_a_connection_for_longer_than_a_prediction_may_go_unwatched() -> None:
    bench = Bench()
    bench.refuse(1e12)
    assert bench.turn().wait() == pytest.approx(LONGEST_SILENCE, abs=2.0)


def test_a_gateway_that_does_not_say_how_long_is_given_ever_more_time_until_it_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schedule, "BACKOFF_BASE", 1.0)
    bench = Bench()
    silences = []
    for _ in range(4):
        asked_at = bench.now
        bench.refuse(None)
        silences.append(bench.wait_for(bench.turn()) - asked_at)
    assert silences == sorted(silences)
    assert silences[-1] > 4 * silences[0]
    answered = bench.turn()
    bench.wait_for(answered)
    answered.note(GOOD)
    asked_at = bench.now
    bench.refuse(None)
    assert bench.wait_for(bench.turn()) - asked_at < silences[-1] / 2


def test_the_pause_of_the_refused_request_and_that_of_its_connection_run_together() -> None:
    bench = Bench()
    refused = bench.turn(CREATE)
    assert not refused.wait()
    refused.note(answer_429(9.0))
    bench.now += 9.5  # the flow's own pause
    assert bench.turn(CREATE).wait() == 0.0


def test_a_turn_that_came_but_was_not_used_before_a_429_is_taken_anew() -> None:
    bench = Bench()
    behind = [bench.turn() for _ in range(5)]
    assert not any(turn.wait() for turn in behind)
    bench.now += 0.01
    bench.refuse(5.0)
    moments = [bench.wait_for(turn) for turn in behind]
    assert moments[0] >= 105.01
    assert min(distances(moments)) > 0.1


def test_each_of_ten_thousand_that_wait_looks_only_once_more_after_a_429() -> None:
    bench = Bench(per_minute=60_000)
    bench.use_up()
    turns = [bench.turn() for _ in range(10_000)]
    looks = [0] * len(turns)
    wakes = [(bench.now, number) for number in range(len(turns))]
    refused = False
    while wakes:
        bench.now, number = heapq.heappop(wakes)
        if not refused and bench.now > 101:
            refused = True
            bench.refuse(30.0)
        looks[number] += 1
        if seconds := turns[number].wait():
            heapq.heappush(wakes, (bench.now + seconds, number))
    assert refused
    # At first, when the turn should have come, and when it then comes.
    assert max(looks) == 3


def test_slowing_down_and_its_end_are_each_told_once(told: Callable[[], list[str]]) -> None:
    bench = Bench()
    for _ in range(5):
        together = [bench.turn() for _ in range(10)]
        for turn in together:
            bench.wait_for(turn)
        for turn in together:
            turn.note(answer_429(1.0))
    for _ in range(2000):
        turn = bench.turn()
        bench.wait_for(turn)
        turn.note(GOOD)
    began, ended = told()
    assert "slow down" in began
    assert "HTTP 429" in began
    assert "full pace again" in ended
    assert KEY not in began


def test_a_connection_left_in_peace_is_as_fast_as_before() -> None:
    bench = Bench()
    for _ in range(8):
        bench.refuse(1.0)
        bench.wait_for(bench.turn())
    bench.now += 600
    bench.use_up()
    moments = [bench.wait_for(turn) for turn in [bench.turn() for _ in range(10)]]
    assert distances(moments) == pytest.approx([0.1] * 9, abs=0.002)


def test_no_number_of_429s_brings_a_connection_to_a_halt() -> None:
    bench = Bench()
    for _ in range(200):
        refused = bench.turn()
        bench.wait_for(refused)
        refused.note(answer_429(1.0))
    moments = [bench.wait_for(turn) for turn in [bench.turn() for _ in range(5)]]
    assert max(distances(moments)) < 1.1 * SLOWEST


def test_a_pace_that_is_slow_by_choice_is_not_made_slower() -> None:
    bench = Bench(per_minute=6)
    bench.refuse(1.0)
    moments = [bench.wait_for(turn) for turn in [bench.turn() for _ in range(4)]]
    assert distances(moments) == pytest.approx([10.0] * 3, abs=0.01)


def test_a_cancel_is_never_held_back() -> None:
    bench = Bench(per_minute=1)
    bench.use_up()
    bench.refuse(60.0)
    assert bench.turn(CANCEL).wait() == 0.0


def test_a_refusal_for_another_reason_slows_nothing_down() -> None:
    bench = Bench()
    for status in (402, 500, 503):
        turn = bench.turn()
        turn.wait()
        turn.note(answer(status, {"error": {"message": "no"}}))
    quota = bench.turn()
    quota.wait()
    quota.note(answer(429, {"error": {"code": "insufficient_user_quota", "message": "no credit"}}))
    assert bench.pace.cuts == 0


steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(1, 40)),
        st.tuples(st.just("rest"), st.floats(0, 30)),
        st.tuples(st.just("refuse"), st.one_of(st.none(), st.floats(0, 100))),
    ),
    max_size=30,
)


@given(per_minute=st.floats(1, 100_000), steps=steps)
def test_whatever_happens_turns_keep_their_order_and_no_minute_has_too_many(
    per_minute: float, steps: list[tuple[str, float]]
) -> None:
    bench = Bench(per_minute)
    moments: list[float] = []
    for what, amount in steps:
        if what == "rest":
            bench.now += amount
        elif what == "refuse":
            bench.refuse(amount)
        else:
            # Turns are waited for one after the other, so each is used at the earliest moment it can be.
            moments += [bench.wait_for(turn) for turn in [bench.turn() for _ in range(int(amount))]]
    assert moments == sorted(moments)
    at_once = per_minute / 60 * BURST + 1
    for index, moment in enumerate(moments):
        until = moments[index:]
        sent = sum(later < moment + 60 for later in until)
        assert sent <= per_minute + at_once + FINEST_WAIT * per_minute / 60 + 1


def test_threads_that_ask_at_once_get_different_turns() -> None:
    pace = Pace(600_000, "Connection 'flux_default'", clock=lambda: 0.0)
    turns: list[float] = []

    def ask() -> None:
        mine = [pace.reserve() for _ in range(2_000)]
        turns.extend(mine)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    to_come = sorted(turn for turn in turns if turn > 0)
    assert len(turns) == 16_000
    assert min(distances(to_come)) == pytest.approx(0.0001, rel=0.01)


def test_a_signal_handler_may_cancel_while_its_own_thread_is_inside_the_budget() -> None:
    pace = Pace(600_000, "Connection 'flux_default'")
    entered = 0

    def cancel(*_: object) -> None:
        nonlocal entered
        turn = Turn(pace, CANCEL)
        assert turn.wait() == 0.0
        turn.note(answer_429(0.0))
        entered += 1

    before = signal.signal(signal.SIGALRM, cancel)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        while entered < 200:
            Turn(pace, POLL).wait()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert pace.cuts > 0


HELD_AND_FORKED = """
import os, threading
from airflow_provider_flux.client.connection import GatewayAccess
from airflow_provider_flux.client.rate_limiter import rate_limiter_of
from airflow_provider_flux.protocol.gateways import choose_gateway

gateway = choose_gateway("https://api.deerapi.com")
access = GatewayAccess("flux_default", gateway, "key", chosen_per_minute=1)
pace = rate_limiter_of(access).others
pace.reserve(), pace.reserve(), pace.reserve()
held = threading.Event()

def hold():
    with pace._lock:
        held.set()
        threading.Event().wait()

threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    os._exit(0 if rate_limiter_of(access).turn(gateway.get("some-prediction")).wait() == 0 else 1)
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_has_a_budget_of_its_own_and_inherits_no_lock() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", HELD_AND_FORKED], check=False, timeout=60)
    assert done.returncode == 0


class TestWhoShares:
    @staticmethod
    def access(host: str = "https://api.deerapi.com", conn_id: str = "flux_default", **fields: float) -> GatewayAccess:
        return GatewayAccess(conn_id, choose_gateway(host), KEY, **fields)  # type: ignore[arg-type]

    def test_all_users_of_a_connection_share_one_budget(self) -> None:
        assert rate_limiter_of(self.access()) is rate_limiter_of(self.access(read_timeout=1.0))

    def test_another_connection_or_another_origin_has_its_own(self) -> None:
        budgets: list[RateLimiter] = [
            rate_limiter_of(self.access()),
            rate_limiter_of(self.access(conn_id="other")),
            rate_limiter_of(self.access(host="https://api.cometapi.com")),
        ]
        assert len({id(found) for found in budgets}) == 3

    def test_a_limit_that_is_changed_holds_from_the_next_request_on(self) -> None:
        assert rate_limiter_of(self.access()).others.per_minute == 30_000
        changed = rate_limiter_of(self.access(chosen_per_minute=60))
        assert changed.others is changed.creates
        assert changed.others.per_minute == 60

    def test_replicates_documented_limits_hold_for_creates_and_for_the_rest_apart(self) -> None:
        replicate = rate_limiter_of(self.access("https://api.replicate.com"))
        assert (replicate.creates.per_minute, replicate.others.per_minute) == (600, 3_000)
        create = replicate.turn(CREATE)
        create.wait()
        create.note(answer_429(30.0))
        assert replicate.turn(CREATE).wait() > 20
        assert replicate.turn(POLL).wait() == 0.0

    def test_a_chosen_limit_holds_for_all_requests_together_on_replicate_too(self) -> None:
        chosen = rate_limiter_of(self.access("https://api.replicate.com", chosen_per_minute=100))
        assert chosen.creates is chosen.others


class TestTheConnection:
    @pytest.mark.parametrize("given", [120, "120", 120.0])
    def test_the_limit_is_read_from_the_extra(self, connect: Connect, given: object) -> None:
        connect("https://api.deerapi.com", requests_per_minute=given)
        assert FluxHook().access.requests_per_minute == 120

    @pytest.mark.parametrize("given", [0, -1, "many", "inf", "nan", [1]])
    def test_a_limit_that_is_no_number_above_0_is_refused(self, connect: Connect, given: object) -> None:
        connect("https://api.deerapi.com", requests_per_minute=given)
        with pytest.raises(FluxConnectionError, match=r"requests_per_minute in extra must be a number of requests"):
            _ = FluxHook().access

    @pytest.mark.parametrize("given", [None, ""])
    def test_without_it_the_gateways_own_limits_hold(self, connect: Connect, given: object) -> None:
        connect("https://api.replicate.com", requests_per_minute=given)
        access = FluxHook().access
        assert (access.requests_per_minute, access.creates_per_minute) == (3_000, 600)


class TestTheWorker:
    """Over real sockets."""

    @staticmethod
    def spend(access: GatewayAccess) -> None:
        """Take the turns of the next minutes."""
        for _ in range(20):
            rate_limiter_of(access).turn(POLL)

    def test_a_create_whose_turn_does_not_come_in_time_is_never_sent(
        self, emulator: Emulator, connect: Connect
    ) -> None:
        connect(emulator.url, requests_per_minute=6)
        hook = FluxHook()
        self.spend(hook.access)
        with pytest.raises(FluxGatewayError, match="not sent: the connection's 6 requests a minute") as caught:
            hook.create_prediction(SCHNELL, BOAT, deadline=time.time() + 1.5)
        assert not isinstance(caught.value, FluxSubmissionUnknownError)
        assert emulator.counters.requests == 0

    def test_a_poll_whose_turn_does_not_come_in_time_counts_as_never_sent(
        self, emulator: Emulator, connect: Connect
    ) -> None:
        connect(emulator.url, requests_per_minute=6)
        access = FluxHook().access
        self.spend(access)
        slept: list[float] = []

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            time.sleep(seconds)

        with pytest.raises(CallFailed, match=Delivery.NOT_SENT.value):
            run(Conversation(access.gateway, LogBook()).get("x", deadline=time.time()), access, sleep=sleep)
        assert emulator.counters.requests == 0
        assert len(slept) <= 2, "one wait for the turn, not many short ones"

    def test_a_cancel_is_sent_though_no_turn_is_left(self, emulator: Emulator, connect: Connect) -> None:
        connect(emulator.url, requests_per_minute=6)
        emulator.add_outcome("stuck")
        hook = FluxHook()
        made = hook.create_prediction(SCHNELL, BOAT)
        self.spend(hook.access)
        hook.cancel_prediction(made.id)
        assert (emulator.cancels, emulator.predictions[0].status) == (1, "canceled")

    def test_a_throttled_create_is_sent_once_more_after_the_time_asked_for(
        self, emulator: Emulator, connect: Connect
    ) -> None:
        connect(emulator.url)
        emulator.add_fault("429_header", on="create", retry_after=1)
        FluxHook().create_prediction(SCHNELL, BOAT)
        first, second = (record for record in emulator.requests if record.kind == "create")
        assert (emulator.posts, emulator.accepted) == (2, 1)
        assert second.at - first.at >= 1

    def test_a_429_to_one_task_of_a_process_holds_back_the_others(self, emulator: Emulator, connect: Connect) -> None:
        connect(emulator.url)
        emulator.add_fault("429_header", on="create", retry_after=1)
        first = threading.Thread(target=FluxHook().create_prediction, args=(SCHNELL, BOAT))
        first.start()
        while not any(record.status == 429 for record in emulator.requests):
            time.sleep(0.01)
        time.sleep(0.1)  # until the answer has arrived
        FluxHook().create_prediction(SCHNELL, BOAT)
        first.join()
        refused, *later = (record.at for record in emulator.requests if record.kind == "create")
        assert min(later) >= refused + 1
        assert (emulator.posts, emulator.accepted) == (3, 2)


def test_reading_a_connection_gives_what_its_documentation_says() -> None:
    assert "``requests_per_minute``" in (read_connection.__doc__ or "")
