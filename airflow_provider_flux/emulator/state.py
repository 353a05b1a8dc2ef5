"""Everything that one emulator knows while it runs."""

from __future__ import annotations

import asyncio
import base64
import random
import secrets
import threading
from collections.abc import Callable
from typing import Any

from airflow_provider_flux.emulator.faults import FaultRule
from airflow_provider_flux.emulator.limits import TokenBucket
from airflow_provider_flux.emulator.outcomes import OUTCOMES, OutcomeRule
from airflow_provider_flux.emulator.predictions import Prediction, PredictionStore, new_id, picture_seed
from airflow_provider_flux.emulator.request_log import Ledger
from airflow_provider_flux.emulator.rules import RuleBook, Subject
from airflow_provider_flux.emulator.served_models import Model
from airflow_provider_flux.emulator.settings import Settings

_SECRET_BYTES = 24


class State:
    """Settings, rules, predictions and the ledger of one emulator.

    :param settings: the settings to start with.
    :param clock: returns the time in seconds since the epoch.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.initial = settings
        self.settings = settings
        self.gateway_url = ""
        self.foreign_url = ""
        self.closing = asyncio.Event()
        self.webhook_secret = "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
        self.store = PredictionStore()
        self.ledger = Ledger(settings.keep_requests)
        self._chance = random.Random(settings.seed)
        self.faults: RuleBook[FaultRule] = RuleBook(self._chance)
        self.outcomes: RuleBook[OutcomeRule] = RuleBook(self._chance)
        self._buckets = {"creates": TokenBucket(), "reads": TokenBucket()}
        self._lock = threading.Lock()
        self.on_created: Callable[[Prediction], None] | None = None

    @property
    def now(self) -> float:
        """The emulator's clock."""
        return self.clock()

    @property
    def output_origin(self) -> str:
        """The origin that file addresses name."""
        return self.settings.output_origin or self.foreign_url

    def change(self, **changes: Any) -> Settings:
        """Replace some settings.

        :param changes: the settings to replace.
        """
        with self._lock:
            self.settings = self.settings.changed(**changes)
            return self.settings

    def reset(self) -> None:
        """Forget predictions, requests and rules, and go back to the first settings."""
        with self._lock:
            self.settings = self.initial
            self._chance.seed(self.initial.seed)
            self._buckets = {"creates": TokenBucket(), "reads": TokenBucket()}
        self.faults.clear()
        self.outcomes.clear()
        self.store.clear()
        self.ledger.clear()

    def wait_for_token(self, kind: str) -> float:
        """Take from the rate limit of a kind of request; return 0 or the seconds to wait.

        :param kind: the kind of request.
        """
        settings = self.settings
        name, rate = (
            ("creates", settings.creates_per_minute) if kind == "create" else ("reads", settings.reads_per_minute)
        )
        return 0.0 if rate is None else self._buckets[name].take(self.now, rate, settings.burst)

    def make_prediction(self, flavour: str, model: Model, given: dict[str, Any], **more: Any) -> Prediction:
        """Make a prediction and decide how it will end.

        :param flavour: the kind of route that it came through.
        :param model: the model.
        :param given: the input.
        :param more: further fields of the prediction.
        """
        settings, now = self.settings, self.now
        prompt = str(given.get("prompt", ""))
        rule = self.outcomes.pick(Subject("create", model.full_name, prompt))
        outcome = OUTCOMES[rule.outcome if rule else "succeeded"]
        drawn = model.draw_run_time(self._chance) / settings.speed
        run_time = drawn if settings.run_time is None else settings.run_time
        starts = float("inf") if outcome.stays == "starting" else now + run_time * settings.start_share
        return self.store.add(
            id=new_id("bfl" if flavour == "bfl" else settings.id_style),
            flavour=flavour,
            model=model,
            input=given,
            created=now,
            starts=starts,
            ends=float("inf") if outcome.stays else now + run_time,
            outcome=outcome,
            seed=picture_seed(given.get("seed"), self._chance),
            **more,
        )

    def created(self, prediction: Prediction) -> None:
        """Tell the listener, if there is one, about a new prediction.

        :param prediction: the prediction made.
        """
        if self.on_created is not None:
            self.on_created(prediction)

    def known(self, prediction_id: str) -> Prediction | None:
        """Find a prediction that queries may see.

        :param prediction_id: the id.
        """
        prediction = self.store.find(prediction_id)
        if prediction is None or prediction.outcome.forgotten:
            return None
        return prediction
