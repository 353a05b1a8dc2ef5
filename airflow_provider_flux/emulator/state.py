"""Everything that one emulator knows while it runs."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hmac
import random
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airflow_provider_flux.emulator.file_storage import FileStorage
from airflow_provider_flux.emulator.predictions import Prediction, PredictionSnapshot, new_id
from airflow_provider_flux.emulator.request_log import Ledger
from airflow_provider_flux.emulator.rules import FAILED, OUTCOMES, STARTING, FaultRule, OutcomeRule, RuleBook, Subject
from airflow_provider_flux.emulator.served_models import Model
from airflow_provider_flux.emulator.settings import Settings

SEED_BITS = 16  # cog-flux draws a 16-bit seed where none is asked for, and takes 0 for none


@dataclass
class TokenBucket:
    """A rate limit that refills with the clock and lets some calls through at once."""

    tokens: float | None = None
    at: float = 0.0

    def take(self, now: float, per_minute: float, burst: int | None) -> float:
        """Take a token; return 0, or the seconds until the next one comes."""
        size = float(burst or max(1, per_minute // 10))
        rate = per_minute / 60
        tokens = size if self.tokens is None else min(size, self.tokens + max(0.0, now - self.at) * rate)
        self.at = now
        self.tokens = tokens if tokens < 1 else tokens - 1
        return (1 - tokens) / rate if tokens < 1 else 0.0


class State:
    """Settings, rules, predictions and the ledger of one emulator."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.initial = settings
        self.settings = settings
        self.gateway_url = ""
        self.foreign_url = ""
        self.closing = asyncio.Event()
        self.webhook_secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
        self._predictions: dict[str, Prediction] = {}
        self.ledger = Ledger(settings.keep_requests)
        self._chance = random.Random(settings.seed)
        self.faults: RuleBook[FaultRule] = RuleBook(self._chance)
        self.outcomes: RuleBook[OutcomeRule] = RuleBook(self._chance)
        self._creates, self._reads = TokenBucket(), TokenBucket()
        self.files = FileStorage()
        self._lock = threading.Lock()

    @property
    def now(self) -> float:
        return self.clock()

    @property
    def output_origin(self) -> str:
        """The origin that file addresses name."""
        return self.settings.output_origin or self.foreign_url

    def is_key(self, token: str) -> bool:
        key = self.settings.key
        return bool(token) if key is None else hmac.compare_digest(token.encode(), key.encode())

    def change(self, **changes: Any) -> Settings:
        with self._lock:
            self.settings = dataclasses.replace(self.settings, **changes)
            return self.settings

    def reset(self) -> None:
        """Forget predictions, requests and rules, and go back to the first settings."""
        with self._lock:
            self.settings = self.initial
            self._chance.seed(self.initial.seed)
            self._creates, self._reads = TokenBucket(), TokenBucket()
            self._predictions.clear()
        self.files.clear()
        self.faults.clear()
        self.outcomes.clear()
        self.ledger.clear()

    def wait_for_token(self, kind: str) -> float:
        """Take from the rate limit of a kind of request; return 0 or the seconds to wait."""
        settings = self.settings
        bucket, rate = self._reads, settings.reads_per_minute
        if kind == "create":
            bucket, rate = self._creates, settings.creates_per_minute
        return 0.0 if rate is None else bucket.take(self.now, rate, settings.burst)

    def make_prediction(
        self, flavour: str, model: Model, given: dict[str, Any], *, error: str | None = None, **more: Any
    ) -> Prediction:
        """Make a prediction of an input, with further fields, and decide how it will end.

        :param error: what it fails with, if its input cannot be used.
        """
        settings, now = self.settings, self.now
        rule = self.outcomes.pick(Subject("create", model.full_name, str(given.get("prompt", ""))))
        outcome = OUTCOMES[rule.outcome if rule else "succeeded"]
        if error is not None:
            outcome = dataclasses.replace(OUTCOMES["succeeded"], name="unusable_picture", status=FAILED, error=error)
        drawn = model.draw_run_time(self._chance) / settings.speed
        run_time = drawn if settings.run_time is None else settings.run_time
        asked_seed, drawn_seed = given.get("seed"), self._chance.getrandbits(SEED_BITS)
        with self._lock:
            made = Prediction(
                id=new_id("bfl" if flavour == "bfl" else settings.id_style),
                number=len(self._predictions),
                flavour=flavour,
                model=model,
                input=given,
                created=now,
                starts=float("inf") if outcome.stays == STARTING else now + run_time * settings.start_share,
                ends=float("inf") if outcome.stays else now + run_time,
                outcome=outcome,
                seed=asked_seed if isinstance(asked_seed, int) and asked_seed else drawn_seed,
                **more,
            )
            self._predictions[made.id] = made
        return made

    def known(self, prediction_id: str) -> Prediction | None:
        """Find a prediction that queries may see."""
        prediction = self._predictions.get(prediction_id)
        return None if prediction is None or prediction.outcome.forgotten else prediction

    def predictions(self) -> list[Prediction]:
        """Return all predictions, oldest first."""
        with self._lock:
            return list(self._predictions.values())

    def snapshot(self, prediction_id: str) -> PredictionSnapshot:
        """Show one prediction as it stands now."""
        return self._predictions[prediction_id].snapshot(self.now)

    def cancel(self, prediction: Prediction, by: str) -> None:
        """End a prediction, if it still runs."""
        with self._lock:
            now = self.now
            if prediction.at(now).ended is None:
                prediction.canceled, prediction.canceled_by = now, by

    def finish(self, prediction_id: str, outcome: str | None = None) -> PredictionSnapshot:
        """Let a run be over now, with another outcome if one is named; what would have stayed for ever succeeds."""
        with self._lock:
            prediction, now = self._predictions[prediction_id], self.now
            if prediction.at(now).ended is None:
                if outcome is not None or prediction.outcome.stays is not None:
                    prediction.outcome = OUTCOMES[outcome or "succeeded"]
                prediction.starts = min(prediction.starts, now)
                prediction.ends = now
            return prediction.snapshot(now)
