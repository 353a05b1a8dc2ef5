"""One row of a batch on its way: a driver of :class:`airflow_provider_flux.protocol.submission.Submission`.

What the submission saves goes into the ledger, and is durable there before a create is sent. What follows from a
failure for the other rows is decided here.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, NoReturn

from airflow_provider_flux.batch.consequences import Consequence, LeftError, NotStartedError, consequence_of
from airflow_provider_flux.batch.line_files import join
from airflow_provider_flux.batch.manifest import success
from airflow_provider_flux.batch.model import PlannedRow, RowStatus
from airflow_provider_flux.batch.resources import Resources, WayResources
from airflow_provider_flux.batch.row_entry import RowEntry
from airflow_provider_flux.batch.row_policy import ended_prediction
from airflow_provider_flux.client import aio
from airflow_provider_flux.exceptions import (
    AirflowFailException,
    FluxDeadlineError,
    FluxError,
    FluxLeaseLostError,
    FluxOutputNotStoredError,
    FluxSubmissionUnknownError,
    call_error,
)
from airflow_provider_flux.outputs.sidecar import describe
from airflow_provider_flux.outputs.storing import PictureStore, StoredPicture
from airflow_provider_flux.protocol.cancellation import CANCEL_AFTER_MARGIN, KILL_PATIENCE, NotInTime, cancel, give_up
from airflow_provider_flux.protocol.classify import shorten
from airflow_provider_flux.protocol.fallbacks import (
    PASSED_LIMIT,
    Cause,
    cause_of_refusal,
    may_follow_unavailable,
    next_way,
    passed_over,
)
from airflow_provider_flux.protocol.flows import CallFailed, DeadlinePassed, Send
from airflow_provider_flux.protocol.messages import JSON, Request
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus
from airflow_provider_flux.protocol.resume import SubmissionRecord, can_be_handed_on, was_canceled_under
from airflow_provider_flux.protocol.storable import dumps
from airflow_provider_flux.protocol.submission import LookUp, NotSubmitted, Prepare, Save, Submission
from airflow_provider_flux.protocol.times import expires_at
from airflow_provider_flux.tasks.results import check_outputs, cost_of, ending_error, told
from airflow_provider_flux.telemetry import note_end, note_seen, waiting_for

STORE_PATIENCE = 120.0
"""Seconds for which a row's pictures are tried to be fetched. Another try goes on while they live; within this one,
the rows behind it are waiting for the thread."""

ATTACH_PATIENCE = 60.0
"""Seconds that a prediction of an earlier try is given at least, to be seen as it is now."""

LEASE_FRESHNESS = 5.0
"""Seconds for which a look at the lease counts. A worker that stood still for longer looks again before it sends."""

Result = tuple[RowStatus, dict[str, JSON]]


class RowRun:
    """One row on its way.

    :param row: as it is to be submitted, with what the ledger knows of it.
    """

    def __init__(self, resources: Resources, row: PlannedRow) -> None:
        self._resources = resources
        record = resources.policy.record(row.entry)
        # Where nothing was submitted, each way gets its chance again.
        self._kept = RowEntry(resources, row if record is not None else replace(row, at=0))
        self._passed = [] if record is None else list(record.passed)
        self._is_begun = False

    @property
    def row(self) -> PlannedRow:
        """The row, in the way in which it is being made."""
        return self._kept.row

    async def make(self) -> Result:
        """Make the row, or go on with what an earlier try has begun, in one way after the other.

        :return: how it ended.
        :raises NotStartedError: if nothing was submitted, because the batch stops.
        :raises LeftError: if it goes on, but the batch does not.
        """
        resources = self._resources
        while True:
            try:
                return await self._make()
            except FluxError as error:
                if (following := self._next_way(error)) is not None:
                    self._pass_over(error, following)
                    continue
                is_unknown = isinstance(error, FluxSubmissionUnknownError)
                resources.control.note_failure(self.row.key, self.row.position, error)
                return RowStatus.UNKNOWN if is_unknown else RowStatus.FAILED, self._failure(error)

    async def _make(self) -> Result:
        resources = self._resources
        async with resources.places:
            if resources.control.is_stopped:
                raise NotStartedError
            resources.progress.begin()
            try:
                prediction = await self._ended_prediction()
            finally:
                resources.progress.leave()
        return await self._store_outputs(prediction)

    @property
    def _way(self) -> WayResources:
        return self._resources.ways[self.row.at]

    def _next_way(self, error: FluxError) -> int | None:
        resources = self._resources
        if resources.control.is_stopped:
            return None
        return next_way(self.row.at, error.cause, count=len(resources.ways), on=resources.options.fallback_on)

    def _pass_over(self, error: FluxError | str, following: int) -> None:
        """Go on with the next way to make the row."""
        cause = Cause.UNAVAILABLE if isinstance(error, str) else error.cause
        self._passed.append(
            passed_over(self.row.model, self._way.access.gateway, cause, shorten(str(error), PASSED_LIMIT))
        )
        self._kept.row = replace(self.row, at=following)
        self._is_begun = True

    async def _ended_prediction(self) -> Prediction:
        """Return the row's prediction once it has ended: the one of an earlier try, or a new one."""
        policy = self._resources.policy
        # What is known of the row is of the way before, where that has been passed over.
        record = None if self._is_begun else policy.record(self._kept.entry)
        seen = None if record is None else ended_prediction(policy.known(self._kept.entry))
        while True:
            if record is None:
                self._leave_out_what_is_refused()
            prediction = await self._attach_or_submit(record, seen)
            is_attached = record is not None and prediction.id == record.prediction_id
            if not can_be_handed_on(prediction):
                prediction = await self._watch(is_attached=is_attached)
            if not (is_attached and was_canceled_under(prediction, record, policy.resume(self.row.at))):
                return prediction
            seen = prediction
            record = policy.record(self._kept.entry)

    def _leave_out_what_is_refused(self) -> None:
        if not self._has_another():
            return
        first = self._resources.breaker.first(self.row.at)
        while self.row.at < first:
            self._pass_over("left out: it was refused many times running", self.row.at + 1)

    def _has_another(self) -> bool:
        """Tell whether another way is taken, should this one not be had."""
        resources = self._resources
        return may_follow_unavailable(self.row.at, count=len(resources.ways), on=resources.options.fallback_on)

    async def _attach_or_submit(self, record: SubmissionRecord | None, seen: Prediction | None) -> Prediction:
        at, breaker = self.row.at, self._resources.breaker
        try:
            prediction = await self._submit(self._submission(), record, seen)
        except NotSubmitted as nothing:
            if self._resources.control.is_stopped:
                raise NotStartedError from None
            raise FluxDeadlineError(str(nothing), "", canceled=False) from None
        except CallFailed as failed:
            if (cause := cause_of_refusal(failed)) is not None:
                breaker.note(at, cause)
            await self._fail(failed)
        finally:
            breaker.leave(at)
            self._kept.leave_creates()
        if record is None or prediction.id != record.prediction_id:
            breaker.note(at, None)
        return prediction

    async def _submit(
        self, submission: Submission, record: SubmissionRecord | None, seen: Prediction | None
    ) -> Prediction:
        way, held = self._way, AsyncExitStack()

        async def carry_out(effect: Send | Prepare | Save | LookUp) -> Prediction | Mapping[str, JSON] | None:
            if isinstance(effect, Send):
                await self._check_going_on()
            elif isinstance(effect, Prepare):
                return await self._resources.input_to_send(way, effect.input, held, deadline=submission.deadline)
            elif isinstance(effect, Save):
                await self._kept.save(effect)
            else:
                self._kept.leave_creates()
                return await self._look_up(effect, submission.deadline)
            return None

        async with held:
            return await aio.run(submission.attach_or_submit(record, seen), way.access, carry_out=carry_out)

    def _submission(self) -> Submission:
        resources, row, gateway = self._resources, self.row, self._way.access.gateway

        def request(sent: Mapping[str, JSON]) -> Request:
            cancel_after = resources.options.timeout + CANCEL_AFTER_MARGIN
            return gateway.create(row.model, sent, cancel_after=cancel_after)

        return Submission(
            conversation=self._way.conversation,
            model=row.model,
            input=row.input,
            request=request,
            policy=resources.policy.resume(row.at),
            deadline=time.time() + resources.options.timeout,
            patience=resources.options.patience if self._has_another() else None,
            attempt=row.at,
            passed=list(self._passed),
        )

    async def _check_going_on(self) -> None:
        """Let a create be sent, or repeated, only while the batch goes on and the manifest is its own."""
        resources = self._resources
        if resources.control.forbids_creates:
            raise NotSubmitted("the batch stops")
        if not resources.lease.was_verified_within(LEASE_FRESHNESS):
            try:
                await asyncio.to_thread(resources.lease.verify)
            except FluxLeaseLostError as lost:
                resources.control.stop(lost)
                raise NotSubmitted("the lease is lost") from lost

    async def _look_up(self, effect: LookUp, deadline: float) -> Prediction | None:
        looking = asyncio.create_task(self._way.lookups.settle(self.row, effect, deadline=deadline))
        found: Prediction | None = await self._while_waited_for(looking)
        return found

    async def _fail(self, failed: CallFailed) -> NoReturn:
        entry = self._kept.own()
        about = f"prediction {self._kept.prediction_id}" if self._kept.prediction_id else f"model {self.row.model}"
        error = call_error(self._way.access.gateway, failed, about=about, model=self.row.model)
        if isinstance(error, FluxSubmissionUnknownError):
            raise error
        if self._next_way(error) is not None:
            raise error
        is_submitted = bool(entry.prediction_id or entry.sent_at)
        consequence = consequence_of(failed, is_submitted=is_submitted)
        if consequence is not Consequence.ROW_FAILS:
            self._resources.control.stop(error)
            raise LeftError if consequence is Consequence.STOP_IN_FLIGHT else NotStartedError
        if not is_submitted:
            await self._kept.write(replace(entry, outcome=self._failure(error)))
        raise error

    async def _watch(self, *, is_attached: bool) -> Prediction:
        """Poll the prediction to its end, or to its deadline."""
        resources, entry = self._resources, self._kept.own()
        deadline = entry.sent_at + resources.options.timeout
        conversation = self._way.conversation
        flow = conversation.watch(
            self._kept.prediction_id,
            conversation.schedule(self.row.model, interval=resources.options.poll_interval),
            model=self.row.model,
            submitted_at=entry.sent_at,
            deadline=max(deadline, time.time() + ATTACH_PATIENCE) if is_attached else deadline,
            at_once=is_attached,
        )
        try:
            with waiting_for(self._kept.prediction_id, self.row.model):
                prediction: Prediction = await self._while_waited_for(asyncio.create_task(self._way.run(flow)))
        except DeadlinePassed:
            return await self._give_up()
        except CallFailed as failed:
            await self._fail(failed)
        if not is_attached:
            note_seen(self._way.access.gateway, prediction, self.row.model, waited=time.time() - entry.sent_at)
        return prediction

    async def _while_waited_for(self, task: asyncio.Task[Any]) -> Any:
        """Wait for something, as long as the batch waits for anything."""
        control = self._resources.control
        control.waits.add(task)
        try:
            if control.is_killed:
                task.cancel()
            return await task
        except asyncio.CancelledError:
            if not control.is_killed:
                raise
        finally:
            control.waits.discard(task)
        await self._leave()

    async def _leave(self) -> NoReturn:
        """Cancel the prediction, since the task is being ended."""
        if self._resources.options.cancel_on_kill and self._kept.prediction_id:
            await self._way.run(cancel(self._way.conversation, self._kept.prediction_id, patience=KILL_PATIENCE))
        raise LeftError

    async def _give_up(self) -> Prediction:
        try:
            return await self._way.run(give_up(self._way.conversation, self._kept.prediction_id, cancels=True))
        except NotInTime as late:
            raise FluxDeadlineError(str(late), self._kept.prediction_id, canceled=late.canceled) from None

    async def _store_outputs(self, prediction: Prediction) -> Result:
        """Store the pictures of a prediction that has ended."""
        row, access, entry = self.row, self._way.access, self._kept.own()
        prediction = replace(prediction, metrics={**entry.billed, **prediction.metrics})
        note_end(access.gateway, prediction, row.model)
        try:
            if prediction.status is not PredictionStatus.SUCCEEDED:
                raise ending_error(prediction)
            check_outputs(prediction, may_be_inline=True)
            pictures = await self._way.picture_threads.lend(lambda store: self._store(store, prediction))
        except FluxOutputNotStoredError:
            # Another try fetches the pictures of the same prediction.
            raise
        except FluxError as error:
            if self._next_way(error) is None:
                await self._kept.write(replace(self._kept.own(), outcome=self._failure(error, prediction)))
            raise
        actual = cost_of(prediction, access, model=row.model, input=row.input, pictures=pictures)
        if actual is not None and entry.attempts:
            corrected = replace(
                entry,
                committed_usd=entry.committed_usd + actual.usd - row.estimate,
                is_at_most=actual.is_at_most or (entry.is_at_most and entry.attempts > 1),
            )
            self._resources.commit(entry, corrected)
            entry = corrected
        outcome = {
            **success(prediction, pictures, attempts=entry.attempts, made_at=time.time()),
            **told(actual),
            "model": row.model,
            "gateway": access.gateway.preset.name,
            "passed_over": dumps(self._passed) if self._passed else None,
        }
        await self._kept.write(replace(entry, outcome=outcome))
        return RowStatus.SUCCEEDED, outcome

    def _store(self, store: PictureStore, prediction: Prediction) -> list[StoredPicture]:
        resources, row = self._resources, self.row
        facts = None
        if resources.options.write_sidecars:
            gateway = self._way.access.gateway.preset.name
            facts = describe(prediction, gateway=gateway, model=row.model, input=row.input)
        now, deadline = time.time(), self._kept.own().sent_at + resources.options.timeout
        patience = min(STORE_PATIENCE, deadline - now if deadline > now else ATTACH_PATIENCE)
        return store.store(
            prediction.outputs,
            join(resources.options.output_path, row.picture_stem),
            prediction_id=prediction.id,
            expires_at=min(expires_at(prediction) or math.inf, now + patience),
            give_up_at=now + patience,
            sidecar=facts,
        )

    def _failure(self, error: FluxError, prediction: Prediction | None = None) -> dict[str, JSON]:
        entry = self._kept.own()
        return {
            "status": RowStatus.FAILED.value,
            "prediction_status": prediction.status.value if prediction is not None else None,
            "is_lasting": isinstance(error, AirflowFailException),
            "prediction_id": entry.prediction_id,
            "attempts": entry.attempts,
            "error": str(error),
            "model": self.row.model,
            "gateway": self._way.access.gateway.preset.name,
            "passed_over": dumps(self._passed) if self._passed else None,
        }
