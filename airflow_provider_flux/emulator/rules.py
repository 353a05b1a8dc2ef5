"""The faults that requests can meet, the ends of predictions, and the rules that decide about both."""

from __future__ import annotations

import random
import threading
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from airflow_provider_flux.emulator.responses import STATUS_FAULTS

SUCCEEDED = "succeeded"
FAILED = "failed"
CANCELED = "canceled"
ABORTED = "aborted"
STARTING = "starting"
PROCESSING = "processing"
TERMINAL = frozenset({SUCCEEDED, FAILED, CANCELED, ABORTED})
AFTER_ACCEPT = "_after_accept"
_PAGE_FAULTS = ("html", "redirect", "redirect_302", "redirect_307")
_BODY_FAULTS = ("wrong_shape", "not_an_object", "null_body", "empty", "failure_in_200", "empty_envelope", "huge_body")
_WIRE_FAULTS = ("hang", "reset_before_accept", "truncated_json", "cut_body", "slow")
# Carried out first, then the response is lost: a create made its prediction.
_LOST_ON_THE_WIRE = ("hang", "reset", "truncated", "cut_body")
_LOST_TO_AN_ERROR = ("500", "502", "503", "504", "524")
_LOST_TO_A_BODY = ("html", "redirect", "wrong_shape", "empty", "failure_in_200", "huge_body")
_LOST = (*_LOST_ON_THE_WIRE, *_LOST_TO_AN_ERROR, *_LOST_TO_A_BODY)
FAULTS = (*STATUS_FAULTS, *_PAGE_FAULTS, *_BODY_FAULTS, *_WIRE_FAULTS, *(name + AFTER_ACCEPT for name in _LOST))
_PRIVATE_REDIRECTS = ("redirect_metadata", "redirect_private")
# Only files meet these. They are no part of FAULTS, from which seeded plans are drawn: a new entry would change them.
FILE_FAULTS = ("gone", "svg", "wrong_type", "cut_unannounced", "endless", "trickle", *_PRIVATE_REDIRECTS)
FAULT_KINDS = ("create", "get", "cancel", "list", "file", "models", "balance", "upload", "other", "any")


@dataclass(frozen=True)
class Outcome:
    """What becomes of a prediction.

    :param name: the outcome's name in rules and in the ledger.
    :param error: text in ``error``; ``{reference}`` is filled in per prediction.
    :param log: a line added to ``logs`` at the end.
    :param output: what ``output`` holds after success: ``url``, ``data``, ``none``, ``empty``, ``short`` (one
        picture less), ``other_kind`` (a list in place of a string and the other way round).
    :param picture: what the file holds: ``normal``, ``black`` or ``other_format``.
    :param stays: the status in which it remains for ever.
    :param early: whether ``output`` is filled while the status is still ``processing``.
    :param forgotten: whether every query says that the id is unknown.
    :param removed: whether the data are gone as soon as it ends.
    """

    name: str
    status: str = SUCCEEDED
    error: str | None = None
    log: str = ""
    output: str = "url"
    picture: str = "normal"
    stays: str | None = None
    early: bool = False
    forgotten: bool = False
    removed: bool = False


_SENSITIVE = "The input or output was flagged as sensitive. Please try again with different inputs."
_DIRECTOR = "Director: unexpected error handling prediction"
# Codes and texts: replicate.com/docs/reference/error-codes, replicate/cog-flux predict.py and replicate-python
# issue 453. The pages give a text for E005, PA, E9828 and the NSFW refusal; the others are worded alike.
_FAILURES = {
    "E005": _SENSITIVE + " (E005) ({reference})",
    "NSFW": "All generated images contained NSFW content. Try running it again with a different prompt.",
    "PA": "Prediction interrupted; please retry (code: PA)",
    "E1000": f"{_DIRECTOR} (E1000)",
    "E1001": "Out of memory. (E1001)",
    **{code: f"{_DIRECTOR} ({code})" for code in ("E6716", "E8367", "E8765", "E9243", "E9825", "E9828")},
    "E001": "ModelError: the model could not make a prediction. (E001) ({reference})",
    "E003": "Service is in high demand. Please try again later. (E003) ({reference})",
    "E004": "Service is temporarily unavailable. Please try again later. (E004) ({reference})",
    "KeyError": "KeyError: 'sample'",
}
_OUTCOMES = (
    Outcome("succeeded"),
    *(Outcome(name, FAILED, error) for name, error in _FAILURES.items()),
    Outcome("code_in_logs", FAILED, "Prediction failed.", log=f"{_DIRECTOR} (E9828)"),
    Outcome("failed_without_error", FAILED),
    Outcome("aborted", ABORTED),
    Outcome("canceled", CANCELED),
    Outcome("stuck", stays=PROCESSING),
    Outcome("stuck_starting", stays=STARTING),
    Outcome("unknown_status", "hibernating", output="none"),
    Outcome("forgotten", forgotten=True),
    Outcome("data_removed", removed=True),
    Outcome("data_uri", output="data"),
    Outcome("null_output", output="none"),
    Outcome("empty_list", output="empty"),
    Outcome("short_list", output="short"),
    Outcome("other_kind", output="other_kind"),
    Outcome("other_format", picture="other_format"),
    Outcome("black_image", picture="black"),
    Outcome("early_output", early=True),
)
OUTCOMES: dict[str, Outcome] = {outcome.name: outcome for outcome in _OUTCOMES}


@dataclass(frozen=True)
class Subject:
    """What a rule is matched against: a request's kind, such as ``create``, and what is known of its prediction."""

    on: str
    model: str | None = None
    prompt: str = ""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The part that fault and outcome rules share.

    :param times: how often the rule takes effect; ``None`` for always.
    :param skip: how many matching cases pass untouched first.
    :param probability: chance that a matching case is taken.
    :param prompt_contains: only prompts with this text in them, whatever the case.
    :param model: only this model, as ``owner/name`` or just ``name``.
    """

    times: int | None = 1
    skip: int = 0
    probability: float = 1.0
    prompt_contains: str | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError("probability must lie between 0 and 1")
        if self.skip < 0 or (self.times is not None and self.times < 1):
            raise ValueError("skip must not be negative and times must be at least 1 (None: always)")

    def matches(self, subject: Subject) -> bool:
        if self.prompt_contains is not None and self.prompt_contains.lower() not in subject.prompt.lower():
            return False
        asked = subject.model or ""
        return self.model is None or self.model in (asked, asked.rpartition("/")[2])


@dataclass(frozen=True)
class FaultRule(Rule):
    """Plays a fault on matching requests.

    :param fault: a name from :data:`FAULTS`, or from :data:`FILE_FAULTS` on ``file``.
    :param on: the kind of request, one of :data:`FAULT_KINDS`.
    :param retry_after: seconds named by the hint of a 429, where ``None`` stands for 1; a 503 hints only when set.
    :param delay: seconds that the ``slow`` fault adds.
    """

    fault: str
    on: str = "create"
    retry_after: float | None = None
    delay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fault not in (*FAULTS, *FILE_FAULTS):
            raise ValueError(f"unknown fault {self.fault!r}; known are {', '.join((*FAULTS, *FILE_FAULTS))}")
        if self.fault in FILE_FAULTS and self.on != "file":
            raise ValueError(f"only a file can meet the fault {self.fault!r}")
        if self.on not in FAULT_KINDS:
            raise ValueError(f"unknown kind of request {self.on!r}; known are {', '.join(FAULT_KINDS)}")

    def matches(self, subject: Subject) -> bool:
        return self.on in ("any", subject.on) and super().matches(subject)

    @property
    def base(self) -> str:
        """The fault without the moment at which it strikes."""
        return self.fault.removesuffix(AFTER_ACCEPT).removesuffix("_before_accept").removesuffix("_json")


@dataclass(frozen=True)
class OutcomeRule(Rule):
    """Decides how matching predictions end.

    :param outcome: a name from :data:`OUTCOMES`.
    """

    outcome: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.outcome not in OUTCOMES:
            raise ValueError(f"unknown outcome {self.outcome!r}; known are {', '.join(OUTCOMES)}")


R = TypeVar("R", bound=Rule)


@dataclass
class _Entry(Generic[R]):
    rule: R
    seen: int = 0
    fired: int = 0


class RuleBook(Generic[R]):
    """An ordered list of rules; the first that takes a subject wins."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._entries: list[_Entry[R]] = []
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._entries)

    def add(self, rule: R) -> R:
        with self._lock:
            self._entries.append(_Entry(rule))
        return rule

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()

    def pick(self, subject: Subject) -> R | None:
        """Return the rule that takes this subject, counting its use."""
        with self._lock:
            for entry in self._entries:
                if entry.rule.matches(subject) and self._takes(entry):
                    return entry.rule
        return None

    def as_json(self) -> list[dict[str, Any]]:
        """Return the rules with how often each was seen and took effect."""
        with self._lock:
            return [{**asdict(e.rule), "seen": e.seen, "fired": e.fired} for e in self._entries]

    def _takes(self, entry: _Entry[R]) -> bool:
        entry.seen += 1
        rule = entry.rule
        if entry.seen <= rule.skip or entry.fired == rule.times or self._chance.random() >= rule.probability:
            return False
        entry.fired += 1
        return True
