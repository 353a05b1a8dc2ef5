"""How long a run of a model takes."""

from __future__ import annotations

import math
import random
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_flux.protocol.catalogue import MODELS
from airflow_provider_flux.protocol.messages import Reply
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus
from airflow_provider_flux.protocol.run_times import (
    LONGEST_RUN,
    MEMORY,
    MODELS_LIMIT,
    OTHER_SEED,
    SEEDS,
    SPREAD_LIMITS,
    RunTimeProfile,
    RunTimes,
    run_time,
    seed_profile,
)
from tests.protocol.scripted import ID, SUCCEEDED, URL, Script, told

GATEWAY = "https://gateway.example"
DEV = "black-forest-labs/flux-dev"
SEED = SEEDS["flux-dev"]


def taught(*runs: float) -> RunTimeProfile:
    """Return the profile after some runs were seen."""
    run_times = RunTimes()
    for seconds in runs:
        run_times.learn(GATEWAY, DEV, seconds)
    return run_times.profile(GATEWAY, DEV)


def drawn(median: float, spread: float, count: int, seed: int = 1) -> list[float]:
    chance = random.Random(seed)
    return [chance.lognormvariate(math.log(median), spread) for _ in range(count)]


def ended(status: PredictionStatus = PredictionStatus.SUCCEEDED, **fields: object) -> Prediction:
    return Prediction(id="x", status=status, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", MODELS)
def test_every_model_of_the_catalogue_has_published_figures_of_its_own(model: str) -> None:
    assert seed_profile(model) is not OTHER_SEED


@pytest.mark.parametrize("model", ["", "someone/some-model", "black-forest-labs/flux-9"])
def test_another_model_is_taken_to_be_of_any_speed(model: str) -> None:
    assert seed_profile(model) is OTHER_SEED
    assert OTHER_SEED.spread > max(seed.spread for seed in SEEDS.values())


@given(median=st.floats(0.1, 1000), spread=st.floats(*SPREAD_LIMITS), times=st.lists(st.floats(-1, 1e5), max_size=8))
def test_the_share_of_ended_runs_grows_from_none_to_all(median: float, spread: float, times: list[float]) -> None:
    profile = RunTimeProfile(median, spread)
    shares = [profile.ended_by(seconds) for seconds in sorted(times)]
    assert shares == sorted(shares)
    assert profile.ended_by(0) == 0
    begin, end = profile.bounds
    assert profile.ended_by(begin) < 0.001
    assert profile.ended_by(end) > 0.999


def test_half_of_the_warm_runs_end_by_the_median_and_a_cold_one_long_after() -> None:
    profile = RunTimeProfile(2.0, 0.3)
    assert profile.warm_ended_by(2.0) == pytest.approx(0.5)
    assert 0.97 < profile.ended_by(10.0) < 0.99
    assert profile.ended_by(120.0) > 0.998


@given(median=st.floats(0.1, 1000), spread=st.floats(*SPREAD_LIMITS))
def test_rounding_moves_a_profile_by_two_hundredths_at_most(median: float, spread: float) -> None:
    rounded = RunTimeProfile(median, spread).rounded()
    assert rounded.median == pytest.approx(median, rel=0.021)
    assert rounded.spread == pytest.approx(spread, rel=0.021)
    assert rounded.rounded() == rounded


def test_what_no_run_has_shown_yet_is_taken_from_the_published_figures_with_more_doubt() -> None:
    assert taught().median == pytest.approx(SEED.median)
    assert SEED.spread < taught().spread < 2 * SEED.spread


@pytest.mark.parametrize("factor", [0.15, 0.5, 2.0, 7.0])
def test_twenty_runs_tell_more_than_the_published_figures(factor: float) -> None:
    seen = drawn(factor * SEED.median, 0.2, 20)
    assert taught(*seen).median == pytest.approx(factor * SEED.median, rel=0.2)


def test_a_spread_is_learned_too() -> None:
    narrow = taught(*drawn(SEED.median, 0.1, 100))
    wide = taught(*drawn(SEED.median, 0.7, 100))
    assert narrow.spread == pytest.approx(0.1, abs=0.07)
    assert wide.spread == pytest.approx(0.7, abs=0.15)


@pytest.mark.parametrize("outlier", [0.01, 100.0, 3000.0])
def test_one_odd_run_moves_little(outlier: float) -> None:
    usual = drawn(SEED.median, SEED.spread, 20)
    before, after = taught(*usual), taught(*usual, outlier)
    assert after.median == pytest.approx(before.median, rel=0.06)
    assert after.spread == pytest.approx(before.spread, rel=0.15)


def test_cold_starts_now_and_then_do_not_pass_for_the_usual() -> None:
    runs = drawn(SEED.median, SEED.spread, 300)
    with_cold_starts = taught(*(45.0 if number % 30 == 0 else seconds for number, seconds in enumerate(runs)))
    assert with_cold_starts.median == pytest.approx(SEED.median, rel=0.15)
    assert with_cold_starts.spread < 1.4 * SEED.spread


def test_a_model_that_has_become_faster_is_known_as_such_after_a_hundred_runs() -> None:
    before, after = drawn(12.0, 0.3, 2000), drawn(4.0, 0.3, 150)
    assert taught(*before, *after).median == pytest.approx(4.0, rel=0.35)
    assert MEMORY == 100


@pytest.mark.parametrize("seconds", [0.0, -5.0, math.nan, math.inf, LONGEST_RUN + 1, -28_800.0, 28_800.0])
def test_what_no_run_can_take_is_ignored(seconds: float) -> None:
    assert taught(seconds) == taught()


@given(runs=st.lists(st.floats(1e-6, LONGEST_RUN), max_size=60))
def test_whatever_is_seen_a_profile_stays_one(runs: list[float]) -> None:
    profile = taught(*runs)
    least, most = SPREAD_LIMITS
    assert least <= profile.spread <= most
    assert min([SEED.median, *runs]) * 0.999 <= profile.median <= max([SEED.median, *runs]) * 1.001


def test_runs_that_all_take_the_same_time_leave_some_doubt() -> None:
    assert taught(*[5.0] * 1000).spread >= SPREAD_LIMITS[0]


def test_each_gateway_and_each_model_is_known_for_itself() -> None:
    run_times = RunTimes()
    for _ in range(20):
        run_times.learn(GATEWAY, DEV, 100.0)
    assert run_times.profile(GATEWAY, DEV).median > 60
    assert run_times.profile("https://other.example", DEV) == taught()
    assert run_times.profile(GATEWAY, "someone/flux-other") == RunTimes().profile(GATEWAY, "")


def test_only_so_many_models_are_remembered_and_the_one_seen_longest_ago_is_forgotten() -> None:
    run_times = RunTimes()
    run_times.learn(GATEWAY, "a/first", 300.0)
    run_times.learn(GATEWAY, "a/second", 300.0)
    for number in range(MODELS_LIMIT - 2):
        run_times.learn(GATEWAY, f"a/model-{number}", 300.0)
    run_times.learn(GATEWAY, "a/first", 300.0)
    run_times.learn(GATEWAY, "a/one-more", 300.0)
    unseen = run_times.profile(GATEWAY, "a/never-seen")
    assert run_times.profile(GATEWAY, "a/second") == unseen
    assert run_times.profile(GATEWAY, "a/first") != unseen
    assert run_times.profile(GATEWAY, "a/one-more") != unseen


def test_threads_may_learn_and_look_at_the_same_time() -> None:
    run_times = RunTimes()
    began = threading.Barrier(8)
    seen: list[RunTimeProfile] = []

    def work(number: int) -> None:
        began.wait()
        for turn in range(400):
            run_times.learn(GATEWAY, f"a/model-{turn % (2 * MODELS_LIMIT)}", 50.0)
            run_times.learn(GATEWAY, DEV, 8.0)
            seen.append(run_times.profile(GATEWAY, DEV))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8 * 400
    assert run_times.profile(GATEWAY, DEV).median == pytest.approx(8.0, rel=0.05)


def test_a_run_time_is_told_by_the_gateways_own_clock_however_wrong_it_is() -> None:
    prediction = ended(created_at=1000.0, completed_at=1012.5, metrics={"predict_time": 9.0})
    assert run_time(prediction, at_least=0, at_most=5) == 12.5


@pytest.mark.parametrize(
    ("times", "seconds"),
    [({}, 9.0), ({"created_at": 1000.0}, 9.0), ({"completed_at": 1000.0}, 9.0)],
)
def test_without_both_times_the_time_of_the_prediction_itself_stands_for_it(
    times: dict[str, float], seconds: float
) -> None:
    assert run_time(ended(metrics={"predict_time": 9.0}, **times), at_least=0, at_most=60) == seconds


@pytest.mark.parametrize(("at_least", "at_most", "seconds"), [(12, 15, 12), (2, 15, 9), (2, 8, 8)])
def test_a_time_without_the_queue_is_moved_to_where_the_end_was_seen(
    at_least: float, at_most: float, seconds: float
) -> None:
    assert run_time(ended(metrics={"predict_time": 9}), at_least=at_least, at_most=at_most) == seconds


@pytest.mark.parametrize("metrics", [{}, {"predict_time": None}, {"predict_time": "9"}, {"predict_time": 0}])
def test_a_run_of_which_nothing_is_told_tells_nothing(metrics: dict[str, object]) -> None:
    assert run_time(ended(metrics=metrics), at_least=3, at_most=9) is None


@pytest.mark.parametrize("status", [status for status in PredictionStatus if status is not PredictionStatus.SUCCEEDED])
def test_only_a_success_tells_how_long_a_picture_takes(status: PredictionStatus) -> None:
    assert run_time(ended(status, created_at=1000.0, completed_at=1000.1), at_least=0, at_most=1) is None


def watched(*replies: Reply, model: str = DEV, interval: float | None = None) -> tuple[RunTimes, Script]:
    """Watch one prediction to its end, and return what was learned from it."""
    script, run_times = Script(*replies), RunTimes()
    talk = replace(script.talk, run_times=run_times)
    schedule = talk.schedule(model, interval=interval)
    deadline = script.now + 600
    script.run(
        talk.watch(ID, schedule, model=model, submitted_at=script.now, deadline=deadline, at_once=False),
    )
    return run_times, script


TIMES = {"created_at": "2026-03-12T11:00:00Z", "completed_at": "2026-03-12T11:00:30.5Z"}


def test_a_prediction_that_is_watched_to_its_success_teaches_how_long_its_model_takes() -> None:
    run_times, script = watched(told("succeeded", output=[URL], **TIMES))
    expected = RunTimes()
    expected.learn(script.gateway.origin, DEV, 30.5)
    assert run_times.profile(script.gateway.origin, DEV) == expected.profile(script.gateway.origin, DEV) != taught()


@pytest.mark.parametrize(
    ("reply", "model"),
    [
        (told("failed", error="flagged (E005)", **TIMES), DEV),
        (told("canceled", **TIMES), DEV),
        (told("aborted", **TIMES), DEV),
        (told("succeeded", output=[URL], **TIMES), ""),
        (SUCCEEDED, DEV),
    ],
)
def test_another_end_and_one_without_a_model_or_times_teach_nothing(reply: Reply, model: str) -> None:
    run_times, script = watched(told("processing"), reply, model=model)
    assert run_times.profile(script.gateway.origin, model) == RunTimes().profile(script.gateway.origin, model)


@pytest.mark.parametrize(("predict_time", "seconds"), [(3.0, 14.0), (17.0, 17.0), (90.0, 21.0)])
def test_a_time_without_the_queue_is_held_between_the_last_two_polls(predict_time: float, seconds: float) -> None:
    done = told("succeeded", output=[URL], metrics={"predict_time": predict_time})
    run_times, script = watched(told("starting"), told("processing"), done, interval=7)
    expected = RunTimes()
    expected.learn(script.gateway.origin, DEV, seconds)
    assert run_times.profile(script.gateway.origin, DEV) == expected.profile(script.gateway.origin, DEV)


def test_what_was_learned_moves_the_first_poll() -> None:
    script, run_times = Script(), RunTimes()
    talk = replace(script.talk, run_times=run_times)
    before = talk.schedule(DEV).first_wait(0)
    for _ in range(20):
        run_times.learn(talk.gateway.origin, DEV, 20.0)
    assert talk.schedule(DEV).first_wait(0) > 3 * before
    assert talk.schedule(DEV, interval=9).first_wait(0) == 9
