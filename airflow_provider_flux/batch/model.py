"""What is known of a row: as it would be submitted, as the ledger has it, and how it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from airflow_provider_flux.outputs.naming import safe_part
from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.pricing import Cost
from airflow_provider_flux.protocol.storable import dumps, loads


class RowStatus(str, Enum):
    """How a row stands; the words of the manifest."""

    NOT_STARTED = "not_started"
    UNSETTLED = "unsettled"
    """A create may have made its prediction, which is to be found out. In no manifest."""
    IN_FLIGHT = "in_flight"
    SUCCEEDED = "succeeded"
    KEPT = "kept"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """A create may have made its prediction, and nobody can tell."""
    OVER_BUDGET = "over_budget"

    @property
    def has_pictures(self) -> bool:
        """Whether the row's pictures are stored."""
        return self in (RowStatus.SUCCEEDED, RowStatus.KEPT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the ledger knows of a row. The one with the highest revision counts.

    :param key: the row's identity.
    :param revision: counts the entries of a row.
    :param run: the task instance that wrote it.
    :param generation: changes when a person clears the task.
    :param try_number: the try that sent the create.
    :param fingerprint: of what was submitted.
    :param sent_at: when a create was about to be sent; 0 if none can have made a prediction.
    :param prediction_id: None as long as nobody knows whether there is a prediction.
    :param told: whether an error has said so.
    :param attempts: how many creates the run has sent for the row.
    :param committed_usd: what they cost: estimates at first, corrected once a prediction has ended.
    :param outcome: how it ended, as the manifest says it; None while it has not.
    :param sent_as: what was sent in the place of its pictures, as a submission's record has it.
    :param is_at_most: whether no more is known of what they cost than that it is no more.
    :param billed: what the answer to the create has told of its price.
    :param attempt: which of the ways to make the row was submitted.
    :param passed: why the ways before it have made no picture, as a submission's record has it.
    """

    key: str
    revision: int
    run: str
    generation: int
    try_number: int
    fingerprint: str
    sent_at: float = 0.0
    prediction_id: str | None = None
    told: bool = False
    attempts: int = 0
    committed_usd: float = 0.0
    outcome: dict[str, JSON] | None = None
    sent_as: str = ""
    is_at_most: bool = False
    billed: Mapping[str, JSON] = field(default_factory=dict)
    attempt: int = 0
    passed: Sequence[Mapping[str, JSON]] = field(default_factory=list)

    @property
    def made(self) -> dict[str, JSON] | None:
        """What a manifest says of the row, if it has pictures."""
        if self.outcome is None or self.outcome["status"] != RowStatus.SUCCEEDED.value:
            return None
        return {**self.outcome, "key": self.key, "fingerprint": self.fingerprint}

    def as_line(self) -> str:
        """Return it as one line of JSON."""
        return dumps({name: getattr(self, name) for name in self.__slots__}, separators=(",", ":"))

    @classmethod
    def from_line(cls, line: str | bytes) -> Entry:
        """Read one line of JSON."""
        return cls.from_stored(loads(line))

    @classmethod
    def from_stored(cls, stored: Mapping[str, JSON]) -> Entry:
        """Read what a line holds. Fields that a later version has added are left out.

        :raises TypeError: if a field is missing, or is no entry's.
        """
        entry = cls(**{name: stored[name] for name in cls.__slots__ if name in stored})
        if not (isinstance(entry.key, str) and isinstance(entry.revision, int) and isinstance(entry.fingerprint, str)):
            raise TypeError("it is no entry of a ledger")
        if not isinstance(entry.prediction_id, (str, type(None))) or not isinstance(entry.outcome, (dict, type(None))):
            raise TypeError("it is no entry of a ledger")
        if entry.outcome is not None and "status" not in entry.outcome:
            raise TypeError("its outcome has no status")
        return entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One way to make a row.

    :param fingerprint: stands for gateway, model and input.
    :param estimate: what it will cost; None if that is not known.
    """

    model: str
    input: dict[str, JSON]
    fingerprint: str
    estimate: Cost | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRow:
    """A row as it would be submitted.

    :param position: its place in the table, from 0.
    :param attempts: the ways to make it, of which each is taken if the one before costs nothing more: the first, and
        the fallbacks.
    :param at: which of them is meant.
    :param entry: what the ledger knew of it when the task began; the engine keeps the latest.
    """

    position: int
    key: str
    attempts: Sequence[Attempt]
    at: int = 0
    entry: Entry | None = field(default=None, compare=False)

    @property
    def model(self) -> str:
        """The model that is asked for."""
        return self.attempts[self.at].model

    @property
    def input(self) -> dict[str, JSON]:
        """What is asked for."""
        return self.attempts[self.at].input

    @property
    def fingerprint(self) -> str:
        """Stands for gateway, model and input."""
        return self.attempts[self.at].fingerprint

    @property
    def estimate(self) -> float:
        """USD that it will cost, as far as that is known."""
        estimate = self.attempts[self.at].estimate
        return 0.0 if estimate is None else estimate.usd

    @property
    def is_at_most(self) -> bool:
        """Whether no more is known of what it will cost than that it is no more."""
        estimate = self.attempts[self.at].estimate
        return estimate is not None and estimate.is_at_most

    @property
    def picture_stem(self) -> str:
        """How the names of its pictures begin.

        What is submitted is part of it: pictures of a changed prompt never take the place of those that were there.
        """
        return f"{safe_part(self.key)}-{self.fingerprint[:10]}"

    def with_entry(self, entry: Entry | None) -> PlannedRow:
        """Return the row with what the ledger knows of it, in the way in which that was submitted."""
        at = None if entry is None else attempt_of(entry, [attempt.fingerprint for attempt in self.attempts])
        return replace(self, entry=entry, at=self.at if at is None else at)


def attempt_of(entry: Entry, fingerprints: Sequence[str]) -> int | None:
    """Return which of the ways to make a row an entry is of; None if of none, since the row has changed.

    Two connections with one gateway, of two accounts, have fingerprints that are the same.
    """
    if entry.attempt < len(fingerprints) and fingerprints[entry.attempt] == entry.fingerprint:
        return entry.attempt
    return fingerprints.index(entry.fingerprint) if entry.fingerprint in fingerprints else None
