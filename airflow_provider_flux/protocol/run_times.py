"""How long a run of a model takes: known at first from published figures, then from the runs that end."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from airflow_provider_flux.protocol.dialects import unversioned
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus

COLD_START_SHARE = 0.02
"""The share of runs that wait until a machine has loaded the model, or for long in a queue. It is not learned: a model
that never starts cold loses nothing by it, while a run that does would else be polled as if it were due any moment."""
COLD_START_TIME = 40.0
COLD_START_SPREAD = 0.6
"""Seconds on top of the median, and their spread: 9 of 10 cold starts take 15 to 110 s."""

SEED_DOUBT = 0.35
"""How far, in the logarithm, a published median may be from what a gateway's users see: a factor of 1.4 is usual."""
SPREAD_RUNS = 3.0
"""How many runs a published spread weighs as much as."""
MEMORY = 100.0
"""How many runs are remembered; older ones fade, so that a model that became faster is soon polled as such."""
OUTLIER = 2.5
"""A run counts as being at most this many spreads away: one odd run moves little, while a real change is followed."""
SPREAD_LIMITS = (0.05, 1.2)

LONGEST_RUN = 3600.0
"""Seconds. What seems to have taken longer was timed by two clocks, in different zones maybe."""

MODELS_LIMIT = 256
"""How many models are remembered: a DAG may make up their names."""


@dataclass(frozen=True, slots=True)
class RunTimeProfile:
    """How the run times of a model are distributed: lognormal, but for the cold starts.

    :param median: seconds from submission to end that half of the warm runs stay under.
    :param spread: standard deviation of the logarithm of a warm run's seconds.
    """

    median: float
    spread: float

    def ended_by(self, seconds: float) -> float:
        """Return the share of the runs that have ended so many seconds after their submission."""
        cold = _lognormal(seconds - self.median, COLD_START_TIME, COLD_START_SPREAD)
        return (1.0 - COLD_START_SHARE) * self.warm_ended_by(seconds) + COLD_START_SHARE * cold

    def warm_ended_by(self, seconds: float) -> float:
        """Return the same share of the runs that did not start cold."""
        return _lognormal(seconds, self.median, self.spread)

    @property
    def bounds(self) -> tuple[float, float]:
        """The seconds between which all but a few runs in a thousand end."""
        cold = self.median + COLD_START_TIME * math.exp(3.0 * COLD_START_SPREAD)
        return self.median * math.exp(-3.5 * self.spread), max(self.median * math.exp(3.5 * self.spread), cold)

    def rounded(self) -> RunTimeProfile:
        """Return a profile that differs by 2 % at most, so that what is computed for one serves many."""
        return RunTimeProfile(
            math.exp(round(math.log(self.median) / 0.04) * 0.04),
            math.exp(round(math.log(self.spread) / 0.04) * 0.04),
        )


def _lognormal(seconds: float, median: float, spread: float) -> float:
    return 0.5 * math.erfc(math.log(median / seconds) / (spread * math.sqrt(2.0))) if seconds > 0 else 0.0


SEEDS: Mapping[str, RunTimeProfile] = {
    "flux-schnell": RunTimeProfile(1.5, 0.35),
    "flux-dev": RunTimeProfile(3.5, 0.35),
    "flux-pro": RunTimeProfile(14.0, 0.35),
    "flux-1.1-pro": RunTimeProfile(8.7, 0.35),
    "flux-1.1-pro-ultra": RunTimeProfile(12.0, 0.35),
    "flux-kontext-pro": RunTimeProfile(8.7, 0.35),
    "flux-kontext-max": RunTimeProfile(15.0, 0.35),
    "flux-2-pro": RunTimeProfile(15.0, 0.45),
    "flux-2-flex": RunTimeProfile(16.0, 0.22),
    "flux-2-dev": RunTimeProfile(8.0, 0.23),
    "flux-2-max": RunTimeProfile(38.0, 0.45),
}
"""Medians as observed by replicate/comfyui-replicate (2024), lumenfall.ai and cloudernative.com; 1.1-pro-ultra and
kontext-pro are taken to be like their nearest kin. The spreads of FLUX.2 follow from lumenfall.ai's 95th percentiles;
for the others none is published, and 0.35 puts 95 of 100 runs under 1.8 times the median."""

OTHER_SEED = RunTimeProfile(10.0, 0.8)
"""For a model that is not in the catalogue: half of them between 6 and 17 s."""


AT_REPLICATE = {"flux-pro-1.1": "flux-1.1-pro", "flux-pro-1.1-ultra": "flux-1.1-pro-ultra"}
"""What Replicate calls the models that BFL calls otherwise."""


def seed_profile(model: str) -> RunTimeProfile:
    """Return what is known of a model's run times before any was seen.

    :param model: ``owner/name``.
    """
    name = unversioned(model).rpartition("/")[2]
    return SEEDS.get(AT_REPLICATE.get(name, name), OTHER_SEED)


class _LearnedProfile:
    """A normal distribution of the logarithm, refined run by run (a normal-inverse-gamma prior, with forgetting)."""

    def __init__(self, seed: RunTimeProfile) -> None:
        self._mean = math.log(seed.median)
        self._mean_runs = (seed.spread / SEED_DOUBT) ** 2
        self._spread_runs = SPREAD_RUNS
        self._squares = SPREAD_RUNS * seed.spread**2

    @property
    def profile(self) -> RunTimeProfile:
        """What is to be expected of the next run: its spread covers what is not known of the median."""
        spread = math.sqrt(self._squares / self._spread_runs * (1.0 + 1.0 / self._mean_runs))
        least, most = SPREAD_LIMITS
        return RunTimeProfile(math.exp(self._mean), min(max(spread, least), most))

    def learn(self, seconds: float) -> None:
        limit = OUTLIER * self.profile.spread
        surprise = min(max(math.log(seconds) - self._mean, -limit), limit)
        self._mean += surprise / (self._mean_runs + 1.0)
        self._squares += surprise**2 * self._mean_runs / (self._mean_runs + 1.0)
        self._mean_runs += 1.0
        self._spread_runs += 1.0
        fading = min(1.0, MEMORY / self._mean_runs)
        self._mean_runs *= fading
        self._spread_runs *= fading
        self._squares *= fading


class RunTimes:
    """The run times of the models as far as this process has seen them. Threads may share it.

    They are kept per gateway and model, because the same model takes 15 s through one gateway and 100 s through
    another: what is waited for includes the gateway's own queue.
    """

    def __init__(self) -> None:
        self._learned: dict[tuple[str, str], _LearnedProfile] = {}
        self._lock = threading.Lock()

    def profile(self, origin: str, model: str) -> RunTimeProfile:
        """Return what is to be expected of the next run.

        :param origin: the gateway's scheme, host and port.
        :param model: ``owner/name``; empty if not known.
        """
        with self._lock:
            learned = self._learned.get((origin, model))
            return (learned or _LearnedProfile(seed_profile(model))).profile

    def learn(self, origin: str, model: str, seconds: float) -> None:
        """Take note of one run.

        :param seconds: from its submission to its end; what no run can take is ignored.
        """
        if not 0 < seconds <= LONGEST_RUN:
            return
        with self._lock:
            # The one seen last goes to the end, so that the first is the one to forget.
            learned = self._learned.pop((origin, model), None) or _LearnedProfile(seed_profile(model))
            learned.learn(seconds)
            self._learned[origin, model] = learned
            if len(self._learned) > MODELS_LIMIT:
                del self._learned[next(iter(self._learned))]


RUN_TIMES = RunTimes()
"""What this process has seen."""


def run_time(prediction: Prediction, *, at_least: float, at_most: float) -> float | None:
    """Return how many seconds a run took from its submission to its end; None if that cannot be told.

    The times of one answer come from one clock, so their difference is exact however wrong that clock is. Where they
    are missing, the time spent on the prediction itself stands for it, moved to where this side saw the end: it
    leaves out the queue.

    :param prediction: as it ended. Only a success counts: a refusal says nothing of how long a picture takes.
    :param at_least: seconds after its submission at which it was last seen running.
    :param at_most: seconds after its submission at which it was first seen to have ended.
    """
    if prediction.status is not PredictionStatus.SUCCEEDED:
        return None
    if prediction.created_at is not None and prediction.completed_at is not None:
        return prediction.completed_at - prediction.created_at
    predict_time = prediction.metrics.get("predict_time")
    if isinstance(predict_time, (int, float)) and predict_time > 0:
        return min(max(predict_time, at_least), at_most)
    return None
