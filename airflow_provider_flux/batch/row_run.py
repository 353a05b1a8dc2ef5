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
from airflow_provider_flux.batch.model import Entry, PlannedRow, RowStatus
from airflow_provider_flux.batch.resources import Resources
from airflow_provider_flux.batch.row_policy import ended_prediction
from airflow_provider_flux.client import aio
from airflow_provider_flux.exceptions import (
    AirflowFailException,
    FluxDeadlineError,
    FluxError,
    FluxLeaseLostError,
    FluxLedgerError,
    FluxOutputNotStoredError,
    FluxSubmissionUnknownError,
    call_error,
)
from airflow_provider_flux.outputs.sidecar import describe
from airflow_provider_flux.outputs.storing import PictureStore, StoredPicture
from airflow_provider_flux.protocol.cancellation import CANCEL_AFTER_MARGIN, KILL_PATIENCE, NotInTime, cancel, give_up
from airflow_provider_flux.protocol.flows import CallFailed, DeadlinePassed, Send
from airflow_provider_flux.protocol.messages import JSON, Request
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus
from airflow_provider_flux.protocol.resume import SubmissionRecord, can_be_handed_on, was_canceled_under
from airflow_provider_flux.protocol.submission import LookUp, NotSubmitted, Prepare, Save, Submission
from airflow_provider_flux.protocol.times import expires_at
from airflow_provider_flux.tasks.results import check_outputs, cost_of, ending_error
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
        self._row = row
        self._entry = row.entry
        self._is_creating = False

    async def make(self) -> Result:
        """Make the row, or go on with what an earlier try has begun.

        :return: how it ended.
        :raises NotStartedError: if nothing was submitted, because the batch stops.
        :raises LeftError: if it goes on, but the batch does not.
        """
        resources = self._resources
        try:
            async with resources.places:
                if resources.control.is_stopped:
                    raise NotStartedError
                resources.progress.begin()
                try:
                    prediction = await self._ended_prediction()
                finally:
                    resources.progress.leave()
            return await self._store_outputs(prediction)
        except FluxError as error:
            is_unknown = isinstance(error, FluxSubmissionUnknownError)
            resources.control.note_failure(self._row.key, self._row.position, error)
            return RowStatus.UNKNOWN if is_unknown else RowStatus.FAILED, self._failure(error)

    async def _ended_prediction(self) -> Prediction:
        """Return the row's prediction once it has ended: the one of an earlier try, or a new one."""
        policy = self._resources.policy
        seen = ended_prediction(policy.known(self._entry))
        while True:
            record = policy.record(self._entry)
            prediction = await self._attach_or_submit(record, seen)
            is_attached = record is not None and prediction.id == record.prediction_id
            if not can_be_handed_on(prediction):
                prediction = await self._watch(is_attached=is_attached)
            if not (is_attached and was_canceled_under(prediction, record, policy.resume)):
                return prediction
            seen = prediction

    async def _attach_or_submit(self, record: SubmissionRecord | None, seen: Prediction | None) -> Prediction:
        submission = self._submission()
        held = AsyncExitStack()

        async def carry_out(effect: Send | Prepare | Save | LookUp) -> Prediction | Mapping[str, JSON] | None:
            if isinstance(effect, Send):
                await self._check_going_on()
            elif isinstance(effect, Prepare):
                return await self._resources.input_to_send(effect.input, held, deadline=submission.deadline)
            elif isinstance(effect, Save):
                await self._save(effect)
            else:
                self._leave_creates()
                return await self._look_up(effect, submission.deadline)
            return None

        try:
            async with held:
                flow = submission.attach_or_submit(record, seen)
                return await aio.run(flow, self._resources.access, carry_out=carry_out)
        except NotSubmitted as nothing:
            if self._resources.control.is_stopped:
                raise NotStartedError from None
            raise FluxDeadlineError(str(nothing), "", canceled=False) from None
        except CallFailed as failed:
            await self._fail(failed)
        finally:
            self._leave_creates()

    def _submission(self) -> Submission:
        resources, row = self._resources, self._row

        def request(sent: Mapping[str, JSON]) -> Request:
            cancel_after = resources.options.timeout + CANCEL_AFTER_MARGIN
            return resources.access.gateway.create(row.model, sent, cancel_after=cancel_after)

        return Submission(
            conversation=resources.conversation,
            model=row.model,
            input=row.input,
            request=request,
            policy=resources.policy.resume,
            deadline=time.time() + resources.options.timeout,
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
        looking = asyncio.create_task(self._resources.lookups.settle(self._row, effect, deadline=deadline))
        found: Prediction | None = await self._while_waited_for(looking)
        return found

    async def _save(self, effect: Save) -> None:
        """Write what the submission saves into the ledger, and count what it costs."""
        record, own = effect.record, self._own()
        if effect.is_intent and record is not None:
            await self._intend(record, own)
            return
        self._leave_creates()
        if record is None:
            own = replace(own, sent_at=0.0)
            # What another run has sent was never counted for this one.
            if own.attempts:
                estimate = self._row.estimate or 0.0
                self._resources.commit(-estimate)
                own = replace(own, attempts=own.attempts - 1, committed_usd=own.committed_usd - estimate)
        else:
            own = replace(own, prediction_id=record.prediction_id, told=record.told)
        await self._add(own)

    async def _intend(self, record: SubmissionRecord, own: Entry) -> None:
        """Let the ledger know that a create is about to be sent.

        :raises NotSubmitted: if none is, because the batch stops, or the ledger cannot be written.
        """
        resources, estimate = self._resources, self._row.estimate or 0.0
        if not self._is_creating:
            await resources.creates.acquire()
            self._is_creating = True
            resources.being_created[self._row.fingerprint] += 1
        if resources.control.is_stopped:
            raise NotSubmitted("the batch stops")
        resources.check_budget(self._row)
        resources.commit(estimate)
        intent = replace(
            own,
            generation=record.generation,
            try_number=record.try_number,
            fingerprint=record.fingerprint,
            sent_at=record.sent_at,
            sent_as=record.sent_as,
            prediction_id=None,
            told=False,
            attempts=own.attempts + 1,
            committed_usd=own.committed_usd + estimate,
            outcome=None,
        )
        try:
            await self._add(intent, is_intent=True)
        except FluxLeaseLostError as lost:
            resources.commit(-estimate)
            resources.control.stop(lost)
            # Whoever has taken over need not wonder what this one has sent.
            await self._write(replace(intent, sent_at=0.0, attempts=own.attempts, committed_usd=own.committed_usd))
            raise NotSubmitted("the lease is lost") from lost
        except Exception as error:
            resources.commit(-estimate)
            # It may be there all the same, if only the storage's response was lost.
            await self._write(replace(intent, sent_at=0.0, attempts=own.attempts, committed_usd=own.committed_usd))
            resources.control.stop(
                FluxLedgerError(
                    f"The ledger could not be written ({type(error).__name__}: {error}), so nothing more is submitted, "
                    f"from row {self._row.key!r} on. Once the storage works again, another try goes on from there."
                )
            )
            raise NotSubmitted("the ledger could not be written") from error

    def _leave_creates(self) -> None:
        """Let another row send its create: the outcome of this one's is known, or is to be found in the list."""
        if self._is_creating:
            self._is_creating = False
            self._resources.being_created[self._row.fingerprint] -= 1
            self._resources.creates.release()

    async def _fail(self, failed: CallFailed) -> NoReturn:
        entry = self._own()
        about = f"prediction {self._id}" if self._id else f"model {self._row.model}"
        error = call_error(self._resources.access.gateway, failed, about=about, model=self._row.model)
        if isinstance(error, FluxSubmissionUnknownError):
            raise error
        is_submitted = bool(entry.prediction_id or entry.sent_at)
        consequence = consequence_of(failed, is_submitted=is_submitted)
        if consequence is not Consequence.ROW_FAILS:
            self._resources.control.stop(error)
            raise LeftError if consequence is Consequence.STOP_IN_FLIGHT else NotStartedError
        if not is_submitted:
            await self._write(replace(entry, outcome=self._failure(error)))
        raise error

    async def _watch(self, *, is_attached: bool) -> Prediction:
        """Poll the prediction to its end, or to its deadline."""
        resources, entry = self._resources, self._own()
        deadline = entry.sent_at + resources.options.timeout
        conversation = resources.conversation
        flow = conversation.watch(
            self._id,
            conversation.schedule(self._row.model, interval=resources.options.poll_interval),
            model=self._row.model,
            submitted_at=entry.sent_at,
            deadline=max(deadline, time.time() + ATTACH_PATIENCE) if is_attached else deadline,
            at_once=is_attached,
        )
        try:
            with waiting_for(self._id, self._row.model):
                prediction: Prediction = await self._while_waited_for(asyncio.create_task(resources.run(flow)))
        except DeadlinePassed:
            return await self._give_up()
        except CallFailed as failed:
            await self._fail(failed)
        if not is_attached:
            note_seen(resources.access.gateway, prediction, self._row.model, waited=time.time() - entry.sent_at)
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
        if self._resources.options.cancel_on_kill and self._id:
            await self._resources.run(cancel(self._resources.conversation, self._id, patience=KILL_PATIENCE))
        raise LeftError

    async def _give_up(self) -> Prediction:
        try:
            return await self._resources.run(give_up(self._resources.conversation, self._id, cancels=True))
        except NotInTime as late:
            raise FluxDeadlineError(str(late), self._id, canceled=late.canceled) from None

    async def _store_outputs(self, prediction: Prediction) -> Result:
        """Store the pictures of a prediction that has ended."""
        resources, row = self._resources, self._row
        note_end(resources.access.gateway, prediction, row.model)
        try:
            if prediction.status is not PredictionStatus.SUCCEEDED:
                raise ending_error(prediction)
            check_outputs(prediction, may_be_inline=True)
            pictures = await resources.picture_threads.lend(lambda store: self._store(store, prediction))
        except FluxOutputNotStoredError:
            # Another try fetches the pictures of the same prediction.
            raise
        except FluxError as error:
            await self._write(replace(self._own(), outcome=self._failure(error, prediction)))
            raise
        actual = cost_of(prediction, resources.access, model=row.model, input=row.input, pictures=pictures)
        entry = self._own()
        if actual is not None and entry.attempts:
            resources.commit(actual - (row.estimate or 0.0))
            entry = replace(entry, committed_usd=entry.committed_usd + actual - (row.estimate or 0.0))
        outcome = success(prediction, pictures, cost_usd=actual, attempts=entry.attempts, made_at=time.time())
        await self._write(replace(entry, outcome=outcome))
        return RowStatus.SUCCEEDED, outcome

    def _store(self, store: PictureStore, prediction: Prediction) -> list[StoredPicture]:
        resources, row = self._resources, self._row
        facts = None
        if resources.options.write_sidecars:
            gateway = resources.access.gateway.preset.name
            facts = describe(prediction, gateway=gateway, model=row.model, input=row.input)
        now, deadline = time.time(), self._own().sent_at + resources.options.timeout
        patience = min(STORE_PATIENCE, deadline - now if deadline > now else ATTACH_PATIENCE)
        return store.store(
            prediction.outputs,
            join(resources.options.output_path, row.picture_stem),
            prediction_id=prediction.id,
            expires_at=min(expires_at(prediction) or math.inf, now + patience),
            give_up_at=now + patience,
            sidecar=facts,
        )

    def _own(self) -> Entry:
        """Return the row's entry as one of this run: what another run has spent is not counted again."""
        identity = self._resources.policy.identity
        entry = self._entry
        if entry is not None and entry.run == identity.run:
            return entry
        blank = Entry(
            key=self._row.key,
            revision=0,
            run=identity.run,
            generation=identity.generation,
            try_number=identity.try_number,
            fingerprint=self._row.fingerprint,
        )
        if entry is None:
            return blank
        return replace(entry, run=identity.run, generation=identity.generation, attempts=0, committed_usd=0.0)

    @property
    def _id(self) -> str:
        return (self._entry.prediction_id if self._entry is not None else None) or ""

    async def _add(self, entry: Entry, *, is_intent: bool = False) -> None:
        """Make an entry durable."""
        entry = replace(entry, revision=(self._entry.revision if self._entry is not None else 0) + 1)
        self._entry = entry
        await self._resources.ledger.add(entry, is_intent=is_intent)

    async def _write(self, entry: Entry) -> None:
        """Make an entry durable if that is possible; whatever it tells of has happened anyway."""
        try:
            await self._add(entry)
        except Exception as error:  # noqa: BLE001 (the prediction is paid for: whatever is wrong, go on with it)
            self._resources.log.warning(
                "The ledger could not take note of row %r, prediction %s (%s). This try goes on with it; if it dies, "
                "the next one may not know of it",
                entry.key,
                entry.prediction_id,
                error,
            )

    def _failure(self, error: FluxError, prediction: Prediction | None = None) -> dict[str, JSON]:
        entry = self._own()
        return {
            "status": RowStatus.FAILED.value,
            "prediction_status": prediction.status.value if prediction is not None else None,
            "is_lasting": isinstance(error, AirflowFailException),
            "prediction_id": entry.prediction_id,
            "attempts": entry.attempts,
            "error": str(error),
        }
