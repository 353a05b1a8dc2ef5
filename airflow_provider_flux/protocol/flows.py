"""The conversations with a gateway, written once.

A flow is a generator that yields effects (:class:`Send` a request, :class:`Sleep` for a while) and is given what came
of them. It does no I/O, so the worker drives it with ``requests`` and the triggerer with ``aiohttp``
(:mod:`airflow_provider_flux.client`), and a test drives it with a list of replies and a clock of its own. The flows
that spend money are in :mod:`airflow_provider_flux.protocol.submission`, with two effects more.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

from airflow_provider_flux.protocol.catalogue import expected_outputs
from airflow_provider_flux.protocol.classify import Failure, Problem, Reason, Success, Verdict, absent, classify
from airflow_provider_flux.protocol.gateways import Gateway
from airflow_provider_flux.protocol.messages import JSON, Log, Request, Response
from airflow_provider_flux.protocol.prediction import (
    Absent,
    Prediction,
    PredictionStatus,
    read_created,
    read_prediction,
)
from airflow_provider_flux.protocol.run_times import RUN_TIMES, RunTimes, run_time
from airflow_provider_flux.protocol.schedule import Chance, PollSchedule, backoff

DOUBTFUL_LIMIT = 8
"""How many doubtful responses in a row are accepted before a call fails."""

LONGEST_SILENCE = 60.0
"""Seconds. A poll is free, so no gateway's word keeps a prediction unwatched for longer: its picture could expire."""

EMPTY_LIMIT = 3
"""How often a success without output is looked at: an envelope can be ahead of the prediction inside it."""

SETTLED_AFTER = 3
"""How often in a row the same output must be seen beside a running status to be taken for the end."""

SHORTEST_LIMIT = 1.0
"""Seconds that even the last request before a deadline is given."""

_NOTHING: Mapping[str, JSON] = {}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request; the reply is a Response or a TransportFailure.

    :param limit: seconds after which the answer is given up however much of it has come.
    """

    request: Request
    limit: float


@dataclass(frozen=True, slots=True)
class Sleep:
    """Do nothing for some seconds."""

    seconds: float


Flow: TypeAlias = Generator[Any, Any, T]
"""A conversation: it yields effects, and is sent what came of each; what an effect raises is thrown into it."""


def drive(flow: Flow[T], carry_out: Callable[[Any], Any]) -> T:
    """Run a flow to its end and return its result.

    :param carry_out: carries out one effect and returns what came of it.
    """
    try:
        effect = next(flow)
        while True:
            try:
                outcome = carry_out(effect)
            except Exception as error:  # noqa: BLE001 (the flow decides what it means)
                effect = flow.throw(error)
            else:
                effect = flow.send(outcome)
    except StopIteration as end:
        result: T = end.value
        return result


class CallFailed(Exception):
    """A call ended without what it was made for.

    :param failure: the last thing that went wrong.
    :param verdict: what it means: RETRY or DOUBTFUL if only time has run out, REFUSED if asking again is no use,
        UNKNOWN if a prediction may have been made, and billed, all the same.
    """

    def __init__(self, failure: Failure, verdict: Verdict = Verdict.REFUSED) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.verdict = verdict

    @property
    def may_exist(self) -> bool:
        """Whether a prediction may have been made, and billed, all the same."""
        return self.verdict is Verdict.UNKNOWN


class DeadlinePassed(Exception):
    """The deadline came before the prediction ended.

    :param last: the prediction as last seen; None if it was never seen.
    :param failure: what went wrong with the last poll; None if it went well.
    """

    def __init__(self, last: Prediction | None, failure: Failure | None) -> None:
        super().__init__("the deadline passed")
        self.last = last
        self.failure = failure


@dataclass(frozen=True)
class Conversation:
    """The flows with one gateway, and what they share.

    :param gateway: whom to talk to.
    :param log: where changes are told: one line for each change, not for each poll.
    :param clock: the time in seconds since the epoch; deadlines are absolute so that they outlive a restart.
    :param chance: source of the jitter.
    :param run_times: fits the poll times, and learns from the predictions that are watched.
    """

    gateway: Gateway
    log: Log
    clock: Callable[[], float] = time.time
    chance: Chance = random.random
    run_times: RunTimes = RUN_TIMES

    def submit(self, request: Request, *, deadline: float) -> Flow[Prediction]:
        """Make one prediction.

        The request is repeated only where the gateway cannot have made one: no connection, or a 429.

        :raises CallFailed: if it was refused or nobody can know whether it was made.
        """
        created: Prediction = yield from self._until_clear(request, self._prediction_in(request), deadline)
        located = self.gateway.located(request, created)
        if located.polling_url:
            self.log.warning("Prediction %s: %s is none of BFL's hosts, and not asked", created.id, created.polling_url)
        return located

    def get(self, prediction_id: str, *, deadline: float) -> Flow[Prediction]:
        """Ask for one prediction once, retrying transient problems until the deadline.

        :raises CallFailed: if the gateway refuses or stays unclear.
        """
        request = self.gateway.get(prediction_id)
        return (yield from self._until_clear(request, self._prediction_in(request, prediction_id), deadline))

    def read(self, request: Request, *, deadline: float) -> Flow[JSON]:
        """Ask a free question and return its JSON.

        :raises CallFailed: if the gateway refuses or stays unclear.
        """
        return (yield from self._until_clear(request, lambda payload: payload, deadline))

    def schedule(self, model: str, *, interval: float | None = None) -> PollSchedule:
        """Return when to poll one prediction.

        :param model: ``owner/name``; empty if not known.
        :param interval: exactly this many seconds between polls, instead of the fitted times.
        """
        profile = self.run_times.profile(self.gateway.origin, model)
        return PollSchedule(profile, interval=interval, chance=self.chance)

    def watch(
        self,
        prediction_id: str,
        schedule: PollSchedule,
        *,
        model: str,
        submitted_at: float,
        deadline: float,
        at_once: bool,
        keeps_echo: bool = True,
    ) -> Flow[Prediction]:
        """Poll one prediction to its end.

        Transient problems are retried until the deadline, doubtful answers a few times in a row.

        :param model: ``owner/name`` if it is known; tells how many outputs make it complete, and whose run time it is.
        :param submitted_at: when the prediction was made, for the schedule.
        :param at_once: poll before the first wait. A prediction that was seen a moment ago need not be.
        :param keeps_echo: keep what the gateway repeats of the input while the prediction runs, which takes memory.
        :return: the prediction in a terminal state.
        :raises CallFailed: if the gateway refuses to tell.
        :raises DeadlinePassed: if the prediction has not ended by then.
        """
        request = self.gateway.get(prediction_id)
        watched = _Watched(prediction_id, self.log, None if self.gateway.preset.status_is_exact else model)
        read = self._prediction_in(request, prediction_id)
        seen: Prediction | Problem | None = None
        seen_in = 0
        now = self.clock()
        ran_for = 0.0
        if not at_once:
            yield Sleep(max(0.0, min(schedule.first_wait(now - submitted_at), deadline - now)))
        while True:
            reply = yield self._send(request, deadline)
            # Most polls find what the one before has found, and reading that takes as long as asking for it.
            shown_in = hash(reply.body) if isinstance(reply, Response) and reply.status == 200 else 0
            if seen is None or shown_in == 0 or shown_in != seen_in:
                seen, seen_in = self._read(classify(request, reply), read), shown_in
                if not keeps_echo and isinstance(seen, Prediction) and not (seen.status.is_terminal or seen.outputs):
                    seen = replace(seen, input=_NOTHING, metrics=_NOTHING)
            # Thousands of flows sleep here, each with all that it still names.
            del reply
            finished = watched.observe(seen)
            now = self.clock()
            if finished is not None:
                self._learn(model, run_time(finished, at_least=ran_for, at_most=now - submitted_at))
                return finished
            problem = seen if isinstance(seen, Problem) else None
            if now >= deadline:
                raise DeadlinePassed(watched.last, problem.failure if problem else None)
            wait = schedule.next_wait(now - submitted_at)
            if problem is None:
                ran_for = now - submitted_at
            else:
                wait = max(wait, min(self._pause(problem, watched.failures), LONGEST_SILENCE))
            yield Sleep(max(0.0, min(wait, deadline - now)))

    def _learn(self, model: str, seconds: float | None) -> None:
        if model and seconds is not None:
            self.run_times.learn(self.gateway.origin, model, seconds)

    def cancel(self, prediction_id: str, *, deadline: float) -> Flow[Prediction | None]:
        """Ask the gateway to cancel, and return the prediction as it then is; None if the gateway does not say.

        :raises CallFailed: if the gateway cannot or will not cancel. Neither DeerAPI nor CometAPI documents a
            cancel route, so this is to be expected there.
        """
        request = self.gateway.cancel(prediction_id)
        if request is None:
            nothing = f"{self.gateway.preset.label} has no way to cancel it"
            raise CallFailed(Failure(Reason.NOT_FOUND, nothing, f"prediction {prediction_id}"))
        payload = yield from self._until_clear(request, lambda answer: answer, deadline, doubtful_limit=1)
        prediction = read_prediction(payload, asked_for=prediction_id)
        return prediction if isinstance(prediction, Prediction) else None

    def list(self, *, deadline: float) -> Iterator[Flow[Sequence[Prediction]]]:
        """Yield one flow per page of past predictions, newest first."""
        request = self.gateway.list()
        asked: set[str] = set()
        # A next page that was already asked for would lead in a circle.
        while request.path not in asked:
            asked.add(request.path)
            page = _Page()
            yield self._list_page(request, page, deadline)
            if page.next is None:
                return
            request = self.gateway.list(page.next)

    def _list_page(self, request: Request, page: _Page, deadline: float) -> Flow[Sequence[Prediction]]:
        payload = yield from self.read(request, deadline=deadline)
        results = payload.get("results") if isinstance(payload, dict) else None
        if not isinstance(results, list):
            raise CallFailed(absent(request, Absent.NOT_A_PREDICTION, payload).failure)
        following = payload.get("next")
        page.next = following if isinstance(following, str) and following else None
        found = (read_prediction(item) for item in results)
        return [item for item in found if isinstance(item, Prediction)]

    def _until_clear(
        self,
        request: Request,
        read: Callable[[JSON], T | Problem],
        deadline: float,
        *,
        doubtful_limit: int = DOUBTFUL_LIMIT,
    ) -> Flow[T]:
        """Send a request until its answer is clear or the deadline has come."""
        doubtful = attempt = 0
        while True:
            reply = yield self._send(request, deadline)
            result = self._read(classify(request, reply), read)
            if not isinstance(result, Problem):
                return result
            doubtful = doubtful + 1 if result.verdict is Verdict.DOUBTFUL else 0
            _raise_if_final(result, doubtful, doubtful_limit)
            attempt += 1
            pause = self._pause(result, attempt)
            if self.clock() + pause >= deadline:
                raise CallFailed(result.failure, result.verdict)
            self.log.warning("%s; asking again in %.1f s (attempt %d)", result.failure, pause, attempt)
            yield Sleep(pause)

    @staticmethod
    def _read(classified: Success | Problem, read: Callable[[JSON], T | Problem]) -> T | Problem:
        return classified if isinstance(classified, Problem) else read(classified.payload)

    @staticmethod
    def _prediction_in(request: Request, prediction_id: str | None = None) -> Callable[[JSON], Prediction | Problem]:
        def read(payload: JSON) -> Prediction | Problem:
            prediction = (
                read_created(payload) if prediction_id is None else read_prediction(payload, asked_for=prediction_id)
            )
            return absent(request, prediction, payload) if isinstance(prediction, Absent) else prediction

        return read

    def _pause(self, problem: Problem, attempt: int) -> float:
        """Return how long to wait after problem: as the gateway asked, with a little jitter, else backoff."""
        pause = backoff(attempt, self.chance)
        # Never less than backoff: a gateway that always asks for no pause at all would be asked without end.
        return pause if problem.retry_after is None else max(problem.retry_after + self.chance(), pause)

    def _send(self, request: Request, deadline: float) -> Send:
        return Send(request, max(SHORTEST_LIMIT, deadline - self.clock()))


@dataclass
class _Page:
    next: str | None = None


class _Watched:
    """What has been seen of one prediction, and what is worth a line in the log.

    :param model: tells when an output is complete; None if the status alone decides.
    """

    __slots__ = ("_doubtful", "_empty", "_id", "_log", "_model", "_settled", "failures", "last")

    def __init__(self, prediction_id: str, log: Log, model: str | None) -> None:
        self.last: Prediction | None = None
        self.failures = 0
        self._doubtful = 0
        self._empty = 0
        self._settled = 0
        self._id = prediction_id
        self._log = log
        self._model = model

    def observe(self, seen: Prediction | Problem) -> Prediction | None:
        """Take note of one poll. Return the prediction if it has ended."""
        if isinstance(seen, Problem):
            self._note_problem(seen)
            return None
        self._note_change(seen)
        ended = self._end_of(seen)
        # A success without output is not believed yet, so nobody may take it for the end.
        unclear = seen.status.is_terminal and ended is None
        self.last = replace(seen, status=PredictionStatus.PROCESSING) if unclear else seen
        return ended

    def _end_of(self, seen: Prediction) -> Prediction | None:
        if seen.status is PredictionStatus.SUCCEEDED and not seen.outputs and not seen.data_removed:
            self._empty += 1
            return seen if self._empty >= EMPTY_LIMIT else None
        if seen.status.is_terminal:
            return seen
        # Samples show "processing" beside a filled output, and CometAPI's query page says to poll until the output is
        # filled. A picture is not given up because a status word lags behind.
        unchanged = self.last is not None and self.last.outputs == seen.outputs
        self._settled = (self._settled + 1 if unchanged else 1) if self._is_complete(seen) else 0
        return replace(seen, status=PredictionStatus.SUCCEEDED) if self._settled >= SETTLED_AFTER else None

    def _is_complete(self, seen: Prediction) -> bool:
        expected = expected_outputs(self._model, seen.input) if self._model is not None else None
        return expected is not None and len(seen.outputs) >= max(1, expected)

    def _note_problem(self, problem: Problem) -> None:
        self._doubtful = self._doubtful + 1 if problem.verdict is Verdict.DOUBTFUL else 0
        _raise_if_final(problem, self._doubtful, DOUBTFUL_LIMIT)
        if self.failures == 0:
            self._log.warning("Prediction %s: %s; polling goes on", self._id, problem.failure)
        self.failures += 1

    def _note_change(self, prediction: Prediction) -> None:
        if self.failures:
            self._log.info("Prediction %s: the gateway answers again", self._id)
        self.failures = self._doubtful = 0
        if self.last is not None and self.last.status_word == prediction.status_word:
            return
        if prediction.status is PredictionStatus.UNKNOWN:
            self._log.warning(
                "Prediction %s: status %r is not known; taken to be running", self._id, prediction.status_word
            )
        else:
            self._log.info("Prediction %s: %s", self._id, prediction.status.value)


def _raise_if_final(problem: Problem, doubtful: int, doubtful_limit: int) -> None:
    if problem.verdict is Verdict.UNKNOWN:
        raise CallFailed(problem.failure, Verdict.UNKNOWN)
    if problem.verdict is Verdict.REFUSED or doubtful >= doubtful_limit:
        raise CallFailed(problem.failure, Verdict.REFUSED)
