"""Compare poll schedules: how many polls does a prediction cost, and how late is its end noticed?

    PYTHONPATH=. .venvs/benchmarks/bin/python benchmarks/polling.py

Run times are taken from each model's profile, cold starts included, and the package's own ``PollSchedule`` and
``RunTimes`` are asked for every poll. The optimum is found by dynamic programming with the distribution known; its
price of a poll is varied, and it is read off at the number of polls that a schedule made. Nothing is sent anywhere.
"""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from airflow_provider_flux.protocol.run_times import OTHER_SEED, SEEDS, RunTimeProfile, RunTimes
from airflow_provider_flux.protocol.schedule import LONGEST_INTERVAL, POLL_PRICE, SHORTEST_INTERVAL, PollSchedule

Numbers = npt.NDArray[np.float64]

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "polling.json"
PICTURE = HERE.parent / "docs" / "polling.png"

SEED = 20261122
RUNS = 6000
"""Run times, at even quantiles, that a schedule with a known profile is measured with."""
REPETITIONS = 40
"""How often a profile is learned anew."""
RUNS_PER_REPETITION = 200
PRICES = np.geomspace(0.005, 40.0, 24)
"""Seconds of latency that a poll is worth, from dense polling to hardly any."""
SEEN = (0, 5, 20)
"""How many runs are learned from."""
MIX = "equal mix"
SLOWER = "twice as slow as seed"
FASTER = "twice as fast as seed"
ORIGIN = "https://gateway.example"


class Schedule(Protocol):
    """What is compared."""

    def first_wait(self, waited: float) -> float: ...

    def next_wait(self, waited: float) -> float: ...


class Backoff:
    """CometAPI's own sample: 1 s, doubled up to 30 s."""

    def __init__(self) -> None:
        self._wait = 1.0

    def first_wait(self, waited: float) -> float:
        return self._wait

    def next_wait(self, waited: float) -> float:
        self._wait = min(2.0 * self._wait, 30.0)
        return self._wait


@dataclass(frozen=True)
class Cost:
    """What a schedule costs on average.

    :param polls: per prediction.
    :param latency: seconds from the end of a prediction to the poll that sees it.
    """

    polls: float
    latency: float


class Truth:
    """How long runs really take.

    :param ended_by: the share of runs that have ended after so many seconds.
    :param longest: seconds after which hardly a run goes on.
    """

    def __init__(self, ended_by: Callable[[float], float], longest: float) -> None:
        times = np.concatenate([[0.0], np.geomspace(longest / 20_000, longest, 1600)])
        self.ended = np.array([ended_by(time) for time in times])
        self.times = times
        self.area = np.concatenate([[0.0], np.cumsum(np.diff(times) * (self.ended[1:] + self.ended[:-1]) / 2)])

    @classmethod
    def of(cls, profile: RunTimeProfile) -> Truth:
        return cls(profile.ended_by, 2.0 * profile.bounds[1])

    def runs(self, count: int) -> list[float]:
        """Return run times at even quantiles."""
        return self.at((np.arange(count) + 0.5) / count)

    def drawn(self, count: int, chance: random.Random) -> list[float]:
        """Return run times drawn at random."""
        return self.at(np.array([chance.random() for _ in range(count)]))

    def at(self, shares: Numbers) -> list[float]:
        return [float(time) for time in np.interp(shares, self.ended, self.times)]

    def optimum(self, price: float, shortest: float, longest: float) -> Cost:
        """Return the cost of the cheapest schedule at a price, by dynamic programming from the end."""
        times, ended, area = self.times, self.ended, self.area
        last = len(times) - 1
        soonest = np.minimum(np.searchsorted(times, times + shortest), last)
        latest = np.searchsorted(times, times + longest, side="right")
        ahead = np.append(np.zeros(last), area[last] + price * (1 - ended[last]))
        following = np.full(last + 1, last)
        for now in range(last - 1, -1, -1):
            begin = max(now + 1, int(soonest[now]))
            window = slice(begin, max(begin + 1, int(latest[now])))
            rated = ahead[window] - ended[now] * times[window]
            best = begin + int(np.argmin(rated))
            following[now] = best
            ahead[now] = price * (1 - ended[now]) + rated[best - begin] + ended[now] * times[now]
        return self._cost_of(following)

    def _cost_of(self, following: npt.NDArray[np.int64]) -> Cost:
        polls = latency = 0.0
        now, last = 0, len(self.times) - 1
        while now < last:
            then = int(following[now])
            polls += 1 - self.ended[now]
            passed = self.times[then] - self.times[now]
            latency += self.area[then] - self.area[now] - self.ended[now] * passed
            now = then
        return Cost(float(polls), float(latency))


@dataclass(frozen=True)
class Frontier:
    """The least latency for each number of polls."""

    costs: tuple[Cost, ...]

    @classmethod
    def of(cls, truth: Truth, shortest: float, longest: float) -> Frontier:
        return cls(tuple(truth.optimum(price, shortest, longest) for price in PRICES))

    @classmethod
    def mean(cls, frontiers: Iterable[Frontier]) -> Frontier:
        """Return the frontier of an equal mix: the price of a poll is the same for all."""
        return cls(tuple(mean(costs) for costs in zip(*(frontier.costs for frontier in frontiers), strict=True)))

    def latency_at(self, polls: float) -> float:
        known = sorted(self.costs, key=lambda cost: cost.polls)
        logs = np.interp(
            np.log(polls), [np.log(cost.polls) for cost in known], [np.log(cost.latency) for cost in known]
        )
        return float(np.exp(logs))


def mean(costs: Iterable[Cost]) -> Cost:
    every = list(costs)
    return Cost(statistics.fmean(cost.polls for cost in every), statistics.fmean(cost.latency for cost in every))


def cost_of(make: Callable[[], Schedule], runs: Sequence[float]) -> Cost:
    """Let a schedule poll predictions, each to its end."""
    polls, latency = 0, 0.0
    for run in runs:
        schedule = make()
        now = schedule.first_wait(0.0)
        polls += 1
        while now < run:
            now += schedule.next_wait(now)
            polls += 1
        latency += now - run
    return Cost(polls / len(runs), latency / len(runs))


def fitted(profile: RunTimeProfile, chance: random.Random) -> Callable[[], Schedule]:
    return lambda: PollSchedule(profile, chance=chance.random)


def learned(model: str, truth: Truth, seen: int, chance: random.Random) -> Cost:
    """Begin with the package's own profile, see some runs, then poll; again and again."""
    costs = []
    runs = truth.runs(RUNS_PER_REPETITION)
    for _ in range(REPETITIONS):
        run_times = RunTimes()
        for seconds in truth.drawn(seen, chance):
            run_times.learn(ORIGIN, model, seconds)
        costs.append(cost_of(fitted(run_times.profile(ORIGIN, model), chance), runs))
    return mean(costs)


@dataclass(frozen=True)
class Row:
    """One schedule on one model.

    :param optimum: the least latency with as many polls, under the package's shortest and longest interval.
    :param unbounded_optimum: the same with no limits on the interval.
    """

    model: str
    schedule: str
    polls: float
    latency: float
    optimum: float
    unbounded_optimum: float

    @property
    def ratio(self) -> float:
        return self.latency / self.optimum


class Study:
    """Everything that is measured on one set of true run times."""

    def __init__(self, truths: dict[str, Truth]) -> None:
        self.truths = truths
        self.bounded = _frontiers(truths, SHORTEST_INTERVAL, LONGEST_INTERVAL)
        self.unbounded = _frontiers(truths, 0.0, 1e9)

    def rows(self, schedule: str, costs: dict[str, Cost]) -> list[Row]:
        return [self._row(schedule, model, cost) for model, cost in {**costs, MIX: mean(costs.values())}.items()]

    def _row(self, schedule: str, model: str, cost: Cost) -> Row:
        optima = (frontiers[model].latency_at(cost.polls) for frontiers in (self.bounded, self.unbounded))
        return Row(model, schedule, cost.polls, cost.latency, *optima)


def _frontiers(truths: dict[str, Truth], shortest: float, longest: float) -> dict[str, Frontier]:
    frontiers = {model: Frontier.of(truth, shortest, longest) for model, truth in truths.items()}
    return {**frontiers, MIX: Frontier.mean(frontiers.values())}


PROFILES = {**SEEDS, "other": OTHER_SEED}


def study_of_known_profiles() -> tuple[Study, list[Row]]:
    study = Study({model: Truth.of(profile) for model, profile in PROFILES.items()})
    chance = random.Random(SEED)
    makers: dict[str, Callable[[RunTimeProfile], Callable[[], Schedule]]] = {
        "fitted": lambda profile: fitted(profile, chance),
        "fixed 1 s": lambda profile: lambda: PollSchedule(profile, interval=1.0),
        "fixed 5 s": lambda profile: lambda: PollSchedule(profile, interval=5.0),
        "backoff": lambda profile: Backoff,
    }
    rows = []
    for name, make in makers.items():
        costs = {m: cost_of(make(PROFILES[m]), truth.runs(RUNS)) for m, truth in study.truths.items()}
        rows += study.rows(name, costs)
    return study, rows + rows_of_learning("seed right", study, chance)


def rows_of_learning(said: str, study: Study, chance: random.Random) -> list[Row]:
    rows = []
    for seen in SEEN:
        costs = {m: learned(m, truth, seen, chance) for m, truth in study.truths.items()}
        rows += study.rows(f"{said}, {seen} runs seen", costs)
    return rows


def rows_of_wrong_profiles() -> list[Row]:
    rows = []
    chance = random.Random(SEED)
    for factor, said in ((2.0, SLOWER), (0.5, FASTER)):
        truths = {m: Truth.of(RunTimeProfile(factor * p.median, p.spread)) for m, p in PROFILES.items()}
        rows += rows_of_learning(said, Study(truths), chance)
    return rows


def rows_of_other_tails() -> list[Row]:
    """The cold starts are not as the package takes them to be: none at all, or 3 of 100, evenly from 20 to 90 s."""
    rows = []
    chance = random.Random(SEED)
    for said, share in (("no cold starts", 0.0), ("3 % cold, 20-90 s", 0.03)):
        study = Study({m: Truth(_with_cold_starts(p, share), 2.0 * p.bounds[1]) for m, p in PROFILES.items()})
        costs = {m: cost_of(fitted(PROFILES[m], chance), truth.runs(RUNS)) for m, truth in study.truths.items()}
        rows += study.rows(f"fitted, {said}", costs)
    return rows


def _with_cold_starts(profile: RunTimeProfile, share: float) -> Callable[[float], float]:
    def ended_by(seconds: float) -> float:
        return (1 - share) * profile.warm_ended_by(seconds) + share * min(max((seconds - 20) / 70, 0), 1)

    return ended_by


def print_table(rows: Sequence[Row]) -> None:
    print("polls per prediction / mean added latency in s / times the optimum's latency with as many polls")
    models = list(dict.fromkeys(row.model for row in rows))
    cells = {(row.schedule, row.model): f"{row.polls:.2f}/{row.latency:.2f}/{row.ratio:.2f}" for row in rows}
    print(" " * 36, *(f"{model.removeprefix('flux-'):>15}" for model in models))
    for schedule in dict.fromkeys(row.schedule for row in rows):
        print(f"{schedule:36}", *(f"{cells[schedule, model]:>15}" for model in models))


def write_results(study: Study, rows: Sequence[Row]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    results = {
        "poll_price": POLL_PRICE,
        "shortest_interval": SHORTEST_INTERVAL,
        "longest_interval": LONGEST_INTERVAL,
        "rows": [{**asdict(row), "ratio": row.ratio} for row in rows],
        "frontiers": {model: [asdict(cost) for cost in frontier.costs] for model, frontier in study.bounded.items()},
    }
    RESULTS.write_text(json.dumps(results, indent=1, default=float) + "\n")


MARKS = {
    "fitted": ("o", "#c1272d", "fitted, run times known"),
    "seed right, 5 runs seen": ("^", "#e8890c", "fitted, learned from 5 runs"),
    "fixed 1 s": ("s", "#3b6ea5", "every 1 s"),
    "fixed 5 s": ("D", "#3b6ea5", "every 5 s"),
    "backoff": ("P", "#5b5b5b", "1 s, doubled up to 30 s"),
}


def draw(study: Study, rows: Sequence[Row]) -> None:
    """Draw polls against latency, one small picture per model, and what learning does to the equal mix."""
    figure, grid = plt.subplots(3, 5, figsize=(15, 9), layout="constrained")
    *panels, learning, legend = grid.flat
    for axes, (model, frontier) in zip(panels, study.bounded.items(), strict=True):
        _draw_model(axes, model, frontier, rows)
    _draw_learning(learning, rows)
    legend.set_axis_off()
    legend.legend(*panels[0].get_legend_handles_labels(), loc="center", frameon=False)
    figure.supxlabel("polls per prediction")
    figure.supylabel("mean seconds from the end of a prediction to the poll that sees it")
    figure.savefig(PICTURE, dpi=100)
    plt.close(figure)


def _draw_model(axes: Axes, model: str, frontier: Frontier, rows: Sequence[Row]) -> None:
    polls, latencies = zip(*((cost.polls, cost.latency) for cost in frontier.costs), strict=True)
    axes.loglog(polls, latencies, color="#222222", label="optimum")
    for row in rows:
        if row.model == model and row.schedule in MARKS:
            mark, colour, label = MARKS[row.schedule]
            axes.loglog(row.polls, row.latency, mark, color=colour, markersize=8, label=label)
    axes.set_title(model.removeprefix("flux-"))
    axes.set(xlim=(0.9, 60), ylim=(0.1, 40))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(visible=True, color="#dddddd", linewidth=0.5)


def _draw_learning(axes: Axes, rows: Sequence[Row]) -> None:
    for said, colour in (("seed right", "#c1272d"), (SLOWER, "#e8890c"), (FASTER, "#3b6ea5")):
        ratios = [row.ratio for row in rows if row.model == MIX and row.schedule.startswith(said)]
        axes.plot([f"{seen} runs" for seen in SEEN], ratios, "o-", color=colour, label=said)
    axes.set_title("learning (equal mix): times the optimum")
    axes.title.set_fontsize("medium")
    axes.set_ylim(bottom=1.0)
    axes.legend(frameon=False, fontsize="small")
    axes.grid(visible=True, color="#dddddd", linewidth=0.5)


def main() -> None:
    mpl.use("Agg")
    study, rows = study_of_known_profiles()
    rows += rows_of_wrong_profiles() + rows_of_other_tails()
    print_table(rows)
    write_results(study, rows)
    draw(study, rows)


if __name__ == "__main__":
    main()
