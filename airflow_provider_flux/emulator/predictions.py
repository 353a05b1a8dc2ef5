"""Predictions and their lifecycle, derived from the clock whenever someone looks."""

from __future__ import annotations

import bisect
import random
import secrets
import string
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from airflow_provider_flux.emulator.outcomes import ABORTED, CANCELED, OUTCOMES, PROCESSING, STARTING, Outcome
from airflow_provider_flux.emulator.served_models import Model

ID_LENGTH = 26  # replicate.com: 26 lower-case letters and digits
_ID_ALPHABET = string.ascii_lowercase + string.digits
_DRAWN_SEED_BITS = 16  # cog-flux draws a 16-bit seed where none is asked for


@dataclass(frozen=True)
class Moment:
    """Where a prediction stands at one point in time.

    :param status: the status word.
    :param started: when it began to run, if it did.
    :param ended: when it ended, if it did.
    """

    status: str
    started: float | None
    ended: float | None


@dataclass
class Prediction:
    """One prediction; times are seconds of the emulator's clock.

    :param id: the id given out.
    :param number: position in order of creation, from 0.
    :param flavour: the kind of route it came through: ``gateway``, ``replicate`` or ``bfl``.
    :param model: the model that was asked for.
    :param input: the input as it was sent.
    :param created: when it was made.
    :param starts: when it begins to run.
    :param ends: when its run is over.
    :param outcome: what becomes of it.
    :param seed: the seed that its pictures are drawn from.
    :param deadline: when ``Cancel-After`` ends it.
    :param webhook: where to report, if asked.
    :param webhook_events: the events to report.
    :param canceled: when a cancel was accepted.
    :param canceled_by: which route cancelled it: ``gateway`` or ``replicate``.
    :param gets: how often it was queried.
    """

    id: str
    number: int
    flavour: str
    model: Model
    input: dict[str, Any]
    created: float
    starts: float
    ends: float
    outcome: Outcome
    seed: int
    deadline: float | None = None
    webhook: str | None = None
    webhook_events: tuple[str, ...] = ()
    canceled: float | None = None
    canceled_by: str | None = None
    gets: int = 0

    @property
    def prompt(self) -> str:
        """The prompt as text."""
        return str(self.input.get("prompt", ""))

    @property
    def asked_pictures(self) -> int:
        """How many pictures were asked for; only models that answer with a list make more than one."""
        count = self.input.get("num_outputs", 1)
        return count if self.model.gives_list and isinstance(count, int) else 1

    @property
    def picture_count(self) -> int:
        """How many pictures it makes when it succeeds."""
        if self.outcome.output in {"none", "empty"}:
            return 0
        return max(1, self.asked_pictures - 1) if self.outcome.output == "short" else self.asked_pictures

    def at(self, now: float) -> Moment:
        """Tell where the prediction stands.

        :param now: the emulator's clock.
        """
        end, status = self._end()
        if now >= end:
            started = self.starts if self.starts <= end and status != ABORTED else None
            return Moment(status, started, end)
        if now >= self.starts:
            return Moment(PROCESSING, self.starts, None)
        return Moment(STARTING, None, None)

    def is_removed(self, now: float, output_life: float) -> bool:
        """Tell whether input, output, logs and files are gone.

        :param now: the emulator's clock.
        :param output_life: seconds that they are kept after the end.
        """
        ended = self.at(now).ended
        return ended is not None and (self.outcome.removed or now >= ended + output_life)

    def _end(self) -> tuple[float, str]:
        ends = [(self.ends, self.outcome.status)]
        if self.outcome.status == ABORTED:
            ends = [(self.starts, ABORTED)]
        if self.deadline is not None:
            # replicate.com, changelog 2025-10-16: aborted when the deadline passes before the run began
            ends.append((self.deadline, ABORTED if self.deadline <= self.starts else CANCELED))
        if self.canceled is not None:
            ends.append((self.canceled, CANCELED))
        return min(ends)


def new_id(style: str) -> str:
    """Make an id that no other run of the emulator has given out.

    :param style: ``replicate``, ``task`` or ``bfl``.
    """
    if style == "bfl":
        return str(uuid.uuid4())
    text = "".join(secrets.choice(_ID_ALPHABET) for _ in range(ID_LENGTH))
    return f"task_{text}" if style == "task" else text


def picture_seed(asked: object, chance: random.Random) -> int:
    """Return the seed used: the one asked for, or a drawn one.

    :param asked: the input's ``seed``; 0 counts as none, as cog-flux has it.
    :param chance: the source of chance.
    """
    drawn = chance.getrandbits(_DRAWN_SEED_BITS)
    return asked if isinstance(asked, int) and asked else drawn


class PredictionStore:
    """All predictions in order of creation."""

    def __init__(self) -> None:
        self._all: list[Prediction] = []
        self._by_id: dict[str, Prediction] = {}
        self._lock = threading.RLock()

    def add(self, **fields: Any) -> Prediction:
        """Store a new prediction.

        :param fields: the fields of :class:`Prediction` but ``number``.
        """
        with self._lock:
            prediction = Prediction(number=len(self._all), **fields)
            self._all.append(prediction)
            self._by_id[prediction.id] = prediction
        return prediction

    def find(self, prediction_id: str) -> Prediction | None:
        """Return a prediction by its id.

        :param prediction_id: the id.
        """
        return self._by_id.get(prediction_id)

    def all(self) -> list[Prediction]:
        """Return all predictions, oldest first."""
        with self._lock:
            return list(self._all)

    def clear(self) -> None:
        """Forget all predictions."""
        with self._lock:
            self._all.clear()
            self._by_id.clear()

    def newest_before(self, number: int) -> Iterator[Prediction]:
        """Yield the predictions made before a position, newest first.

        :param number: the position, see :attr:`Prediction.number`.
        """
        with self._lock:
            older = self._all[: max(number, 0)]
        return reversed(older)

    def first_since(self, moment: float) -> int:
        """Return the position of the first prediction made at or after a time.

        :param moment: seconds of the emulator's clock.
        """
        with self._lock:
            return bisect.bisect_left(self._all, moment, key=lambda prediction: prediction.created)

    def cancel(self, prediction: Prediction, now: float, by: str) -> bool:
        """End a prediction that still runs; tell whether it did.

        :param prediction: the prediction.
        :param now: the emulator's clock.
        :param by: the route that cancels.
        """
        with self._lock:
            if prediction.at(now).ended is not None:
                return False
            prediction.canceled, prediction.canceled_by = now, by
            return True

    def finish(self, prediction_id: str, now: float, outcome: str | None = None) -> Prediction:
        """Let a prediction's run be over now, whatever time it had left.

        :param prediction_id: the id.
        :param now: the emulator's clock.
        :param outcome: how it ends, when not as decided at its creation; a prediction that would have stayed
            for ever succeeds.
        """
        with self._lock:
            prediction = self._by_id[prediction_id]
            if prediction.at(now).ended is None:
                if outcome is not None or prediction.outcome.stays is not None:
                    prediction.outcome = OUTCOMES[outcome or "succeeded"]
                prediction.starts = min(prediction.starts, now)
                prediction.ends = now
        return prediction
