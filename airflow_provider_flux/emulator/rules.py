"""Rules that pick a request or a prediction for special treatment, and the book that counts their use."""

from __future__ import annotations

import random
import threading
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar


@dataclass(frozen=True)
class Subject:
    """What a rule is matched against.

    :param on: the request's kind, such as ``create`` or ``get``.
    :param model: full model name, when known.
    :param prompt: the prompt, when known.
    """

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
        """Refuse numbers that make no sense."""
        if not 0 <= self.probability <= 1:
            raise ValueError("probability must lie between 0 and 1")
        if self.skip < 0 or (self.times is not None and self.times < 1):
            raise ValueError("skip must not be negative and times must be at least 1 (None: always)")

    def matches(self, subject: Subject) -> bool:
        """Tell whether the rule speaks about this subject.

        :param subject: the request or prediction at hand.
        """
        if self.prompt_contains is not None and self.prompt_contains.lower() not in subject.prompt.lower():
            return False
        if self.model is None:
            return True
        asked = subject.model or ""
        return self.model in (asked, asked.rpartition("/")[2])


R = TypeVar("R", bound=Rule)


@dataclass
class _Entry(Generic[R]):
    rule: R
    seen: int = 0
    fired: int = 0


class RuleBook(Generic[R]):
    """An ordered list of rules; the first that takes a subject wins.

    :param chance: the source of chance for probabilities.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._entries: list[_Entry[R]] = []
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._entries)

    def add(self, rule: R) -> R:
        """Append a rule.

        :param rule: the rule to add.
        """
        with self._lock:
            self._entries.append(_Entry(rule))
        return rule

    def clear(self) -> None:
        """Forget all rules."""
        with self._lock:
            self._entries.clear()

    def pick(self, subject: Subject) -> R | None:
        """Return the rule that takes this subject, counting its use.

        :param subject: the request or prediction at hand.
        """
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
        if entry.seen <= entry.rule.skip:
            return False
        if entry.rule.times is not None and entry.fired >= entry.rule.times:
            return False
        if self._chance.random() >= entry.rule.probability:
            return False
        entry.fired += 1
        return True
