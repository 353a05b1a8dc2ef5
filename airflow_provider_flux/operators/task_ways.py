"""The ways in which a task can make its picture: as it says itself, and its fallbacks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_flux.client.cancel import cancel_prediction
from airflow_provider_flux.exceptions import FluxError
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.protocol.classify import shorten
from airflow_provider_flux.protocol.fallbacks import PASSED_LIMIT, may_follow_unavailable, next_way, passed_over
from airflow_provider_flux.protocol.fingerprint import is_fingerprint_of
from airflow_provider_flux.protocol.messages import JSON, Log
from airflow_provider_flux.protocol.resume import SubmissionRecord
from airflow_provider_flux.tasks.arguments import AUTO, text_argument, whole_input


@dataclass(frozen=True, slots=True)
class TaskWay:
    """One way.

    :param input: as the DAG's author gives it, with the paths of pictures.
    """

    flux_conn_id: str
    model: str
    input: Mapping[str, JSON]

    def other(self, said: Mapping[str, Any]) -> TaskWay:
        """Return this way, but for what a fallback says. An input of its own has the prompt of this one.

        :raises FluxInputError: if it says what cannot be.
        """
        model = text_argument("model of a fallback", said.get("model", self.model), "a model such as flux-2-pro")
        given = self.input
        if "input" in said:
            prompt = {name: value for name, value in self.input.items() if name == "prompt"}
            given = {**prompt, **whole_input(None, said["input"], prompt_is_given=False)}
        return TaskWay(said.get("flux_conn_id", self.flux_conn_id), model, given)


class TaskWays:
    """The ways, and which one is taken.

    :param fallbacks: what the DAG's author says of them, rendered.
    :param fallback_on: for what the next one is taken.
    :ivar passed: those before it, and why they have made no picture.
    """

    def __init__(self, first: TaskWay, fallbacks: Sequence[Mapping[str, Any]], fallback_on: Collection[str]) -> None:
        self._ways = [first, *(first.other(said) for said in fallbacks)]
        self._on = fallback_on
        self._hooks: dict[str, FluxHook] = {}
        self._inputs: list[dict[str, JSON]] = []
        self.at = 0
        self.passed: list[Mapping[str, JSON]] = []

    @property
    def way(self) -> TaskWay:
        """The way that is taken."""
        return self._ways[self.at]

    @property
    def hook(self) -> FluxHook:
        """Its hook."""
        return self._hook_of(self.way)

    @property
    def has_another(self) -> bool:
        """Whether another one is taken, should this one not be had."""
        return may_follow_unavailable(self.at, count=len(self._ways), on=self._on)

    @property
    def input_read(self) -> dict[str, JSON]:
        """Its input, with its pictures read."""
        return self._inputs[self.at]

    def check(
        self, *, validate_input: bool, input_files: Mapping[str, JSON] | None, webhook: str | None = None
    ) -> None:
        """Check all ways, and read the pictures of their inputs, before anything is sent.

        :raises FluxInputError: if an input cannot be sent, or has a field that a fallback does not know.
        :raises FluxConnectionError: if a connection cannot be used.
        """
        self._inputs.clear()
        for at, way in enumerate(self._ways):
            hook = self._hook_of(way)
            hook.check_input(way.model, way.input, against_schema=validate_input, known_fields_only=at > 0)
            hook.check_model(way.model)
            if webhook == AUTO:
                hook.webhook_url()
            self._inputs.append(hook.read_input(way.model, way.input, input_files))

    def take_up(self, record: SubmissionRecord | None, log: Log) -> SubmissionRecord | None:
        """Take the way that an earlier try has taken, and return what it has saved; None if that is of none of them.

        What was asked of a fallback, and is of none of them any more, is canceled.
        """
        if record is None:
            return None
        order = sorted(range(len(self._ways)), key=lambda at: at != record.attempt)
        found = next((at for at in order if self._is_of(record, at)), None)
        if found is None and record.attempt == 0:
            # It is asked for, and canceled, at the gateway where it was made.
            return record
        if found is None:
            if record.prediction_id is not None and record.attempt < len(self._ways):
                access = self._hook_of(self._ways[record.attempt]).access
                log.info("The input has changed. %s", cancel_prediction(access, record.prediction_id, log).report)
            return None
        self.at, self.passed = found, list(record.passed)
        return record

    def resume(self, record: SubmissionRecord | None, waited_for: tuple[str, str] | None = None) -> None:
        """Take the way of a prediction that has been waited for in the triggerer.

        :param waited_for: its connection and its model, where they are known: they say it, should a template give
            something else by now, or nothing have been recorded.
        """
        named = [(way.flux_conn_id, way.model) for way in self._ways]
        at = 0 if record is None else min(record.attempt, len(named) - 1)
        if waited_for is not None and named[at] != waited_for and waited_for in named:
            at = named.index(waited_for)
        self.at, self.passed = at, [] if record is None else list(record.passed)

    def pass_over(self, error: FluxError, log: Log) -> bool:
        """Go on with the next way, and tell whether there is one that may be taken after this error."""
        following = next_way(self.at, error.cause, count=len(self._ways), on=self._on)
        if following is None:
            return False
        gateway = self.hook.access.gateway
        self.passed.append(passed_over(self.way.model, gateway, error.cause, shorten(str(error), PASSED_LIMIT)))
        self.at = following
        log.warning("%s Going on with fallback %d: %s at %s", error, following, self.way.model, self.hook.gateway_name)
        return True

    def _hook_of(self, way: TaskWay) -> FluxHook:
        return self._hooks.setdefault(way.flux_conn_id, FluxHook(way.flux_conn_id))

    def _is_of(self, record: SubmissionRecord, at: int) -> bool:
        way = self._ways[at]
        return is_fingerprint_of(record.fingerprint, self._hook_of(way).access.gateway, way.model, self._inputs[at])
