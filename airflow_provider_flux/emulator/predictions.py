"""Predictions and their lifecycle, derived from the clock whenever someone looks."""

from __future__ import annotations

import copy
import secrets
import string
import uuid
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from airflow_provider_flux.emulator.file_storage import InputPicture
from airflow_provider_flux.emulator.rules import ABORTED, CANCELED, FAILED, PROCESSING, STARTING, SUCCEEDED, Outcome
from airflow_provider_flux.emulator.served_models import Model

ID_LENGTH = 26  # replicate.com: 26 lower-case letters and digits
LONGEST_TEXT = 500
BFL_LIFE = 600.0  # about ten minutes (CometAPI's FLUX page)


@dataclass(frozen=True)
class Moment:
    """Where a prediction stands at one point in time: its status word, when it began to run and when it ended."""

    status: str
    started: float | None
    ended: float | None


@dataclass(frozen=True)
class PredictionSnapshot:
    """A prediction at one moment, as tests and the ledger see it.

    :param id: the id given out.
    :param flavour: the kind of route that it came through: ``gateway``, ``replicate`` or ``bfl``.
    :param model: full model name.
    :param input: the input as a gateway shows it: a picture inside it has become an address.
    :param created: when it was made, in seconds of the emulator's clock.
    :param status: the status word at that moment.
    :param started: when it began to run, if it did.
    :param ended: when it ended, if it did.
    :param outcome: the name of the outcome decided for it; a cancel or a deadline may come first.
    :param error: the text that its end carries.
    :param canceled_by: the route that cancelled it: ``gateway`` or ``replicate``.
    :param gets: how often it was queried.
    :param seed: the seed that its pictures are drawn from.
    :param webhook: where to report, if asked.
    :param pictures: the pictures in its input.
    """

    id: str
    flavour: str
    model: str
    input: dict[str, Any]
    created: float
    status: str
    started: float | None
    ended: float | None
    outcome: str
    error: str | None
    canceled_by: str | None
    gets: int
    seed: int
    webhook: str | None
    pictures: tuple[InputPicture, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Write it for the ledger, long texts cut."""
        pictures = [{**asdict(each), "preview": len(each.preview)} for each in self.pictures]
        return {
            **asdict(self),
            "pictures": pictures,
            "input": {name: _cut(value) for name, value in self.input.items()},
        }


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return f"{value[:LONGEST_TEXT]}... ({len(value)} characters)"
    return [_cut(item) for item in value] if isinstance(value, list) else value


@dataclass
class Prediction:
    """One prediction; times are seconds of the emulator's clock.

    :param number: position in order of creation, from 0.
    :param starts: when it begins to run.
    :param ends: when its run is over.
    :param outcome: what becomes of it.
    :param deadline: when ``Cancel-After`` ends it.
    :param canceled: when a cancel was accepted.
    :param version: the version that was asked for by its digits.
    :param deployment: the deployment that it was asked of.
    :param webhook_secret: what BFL's webhook calls are signed with.
    :param billed: what BFL itself has told of its price.
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
    webhook_secret: str | None = None
    version: str | None = None
    deployment: str | None = None
    billed: dict[str, float] = field(default_factory=dict)
    canceled: float | None = None
    canceled_by: str | None = None
    gets: int = 0
    pictures: tuple[InputPicture, ...] = ()

    @property
    def prompt(self) -> str:
        return str(self.input.get("prompt", ""))

    @property
    def picture_count(self) -> int:
        """How many pictures it makes when it succeeds; only models that give a list make more than one."""
        if self.outcome.output in {"none", "empty"}:
            return 0
        count = self.input.get("num_outputs", 1)
        asked = count if self.model.gives_list and isinstance(count, int) else 1
        return max(1, asked - 1) if self.outcome.output == "short" else asked

    @property
    def file_format(self) -> str:
        """The format of its files, as their addresses end."""
        fallback = "jpg" if self.flavour == "bfl" else self.model.default_format
        asked = str(self.input.get("output_format", fallback))
        name = "jpg" if asked == "jpeg" else asked
        if self.outcome.picture == "other_format":
            return "png" if name == "jpg" else "jpg"
        return name if name in {"webp", "jpg", "png"} else fallback

    def at(self, now: float) -> Moment:
        end, status = self._end()
        if now >= end:
            started = self.starts if self.starts <= end and status != ABORTED else None
            return Moment(status, started, end)
        if now >= self.starts:
            return Moment(PROCESSING, self.starts, None)
        return Moment(STARTING, None, None)

    def is_removed(self, now: float, output_life: float) -> bool:
        """Tell whether input, output, logs and files are gone, some seconds after the end."""
        ended = self.at(now).ended
        life = min(output_life, BFL_LIFE) if self.flavour == "bfl" else output_life
        return ended is not None and (self.outcome.removed or now >= ended + life)

    def has_files(self, now: float, output_life: float) -> bool:
        """Tell whether its files can be had now."""
        status = self.at(now).status
        ready = status == SUCCEEDED or (status == PROCESSING and self.outcome.early)
        return ready and not self.is_removed(now, output_life)

    def error(self, status: str) -> str | None:
        """Return the text that the end carries, when this is the status of an end with one."""
        if status != FAILED or self.outcome.error is None:
            return None
        return self.outcome.error.format(reference=self.id[:10])

    def snapshot(self, now: float) -> PredictionSnapshot:
        known: dict[str, Any] = {**vars(self), **vars(self.at(now))}
        known.update(
            model=self.model.full_name,
            input=copy.deepcopy(self.input),
            outcome=self.outcome.name,
            error=self.error(known["status"]),
        )
        return PredictionSnapshot(**{field.name: known[field.name] for field in fields(PredictionSnapshot)})

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
    """Make an id in ``replicate``'s, ``task`` or ``bfl`` style that no other run of the emulator has given out."""
    if style == "bfl":
        return str(uuid.uuid4())
    text = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(ID_LENGTH))
    return f"task_{text}" if style == "task" else text
