"""Makes one row of a batch: the part that spends money.

Before a create is sent, the intent is durable in the ledger; the prediction's id follows at once. What a try finds in
the ledger is decided on by :func:`airflow_provider_flux.durable.decide`, as for a task with a single prediction.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn, TypeVar

from airflow_provider_flux.access import GatewayAccess
from airflow_provider_flux.batch.control import Control
from airflow_provider_flux.batch.ledger import Ledger
from airflow_provider_flux.batch.manifest import success
from airflow_provider_flux.batch.planning import Deciding, prediction_of
from airflow_provider_flux.batch.progress import Progress
from airflow_provider_flux.batch.state import Entry, PlannedRow, RowStatus, RowStore
from airflow_provider_flux.batch.storage import join
from airflow_provider_flux.batch.storing import STORES_AT_ONCE, StoreRoom
from airflow_provider_flux.cancellation import CANCEL_AFTER_MARGIN, KILL_PATIENCE
from airflow_provider_flux.durable import Step
from airflow_provider_flux.exceptions import (
    AirflowFailException,
    FluxBudgetError,
    FluxDeadlineError,
    FluxError,
    FluxGatewayError,
    FluxOutputNotStoredError,
    FluxSubmissionUnknownError,
    gateway_error,
)
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.outputs.fetching import FetchRules
from airflow_provider_flux.outputs.naming import safe_part
from airflow_provider_flux.outputs.sidecar import describe
from airflow_provider_flux.outputs.storing import PictureStore, StoredPicture
from airflow_provider_flux.protocol.flows import CallFailed, Conversation, DeadlinePassed, Flow, Send
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus
from airflow_provider_flux.protocol.verdicts import Failure, Reason, Verdict
from airflow_provider_flux.protocol.wire import JSON, Log
from airflow_provider_flux.results import check_outputs, cost_of, ending_error, expires_at
from airflow_provider_flux.telemetry import note_end, note_seen, waiting_for

T = TypeVar("T")

CREATES_AT_ONCE = 32
"""How many creates may be on their way: of so many at most nobody knows the outcome when the worker dies."""

STORE_PATIENCE = 120.0
"""Seconds for which a row's pictures are tried to be fetched. Another try goes on while they live; within this one,
the rows behind it are waiting for the thread."""

CANCEL_PATIENCE = 30.0
"""Seconds for which a cancel at the deadline is tried."""

ATTACH_PATIENCE = 60.0
"""Seconds that a prediction of an earlier try is given at least, to be seen as it is now."""

CONNECTION_AT_FAULT = frozenset({Reason.KEY, Reason.CREDIT, Reason.FORBIDDEN, Reason.WRONG_URL, Reason.CERTIFICATE})
"""Reasons that every other row would meet as well."""

Result = tuple[RowStatus, dict[str, JSON]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MakingOptions:
    """How rows are made; see :class:`airflow_provider_flux.operators.batch.FluxBatchOperator`.

    :param timeout: seconds from a prediction's submission to its deadline.
    """

    output_path: str
    max_in_flight: int
    budget_usd: float | None
    timeout: float
    poll_interval: float | None
    cancel_on_kill: bool
    write_sidecars: bool


class NotStartedError(Exception):
    """The row is left as it was, because the batch stops."""


class LeftError(Exception):
    """The row is left in flight, for another try."""


class LookUpError(Exception):
    """Whether there is a prediction is to be found in the gateway's list."""


class Workshop:
    """What the rows of a batch share."""

    def __init__(
        self,
        *,
        hook: FluxHook,
        store: RowStore,
        ledger: Ledger,
        deciding: Deciding,
        control: Control,
        progress: Progress,
        options: MakingOptions,
        log: Log,
    ) -> None:
        self.hook = hook
        self.access: GatewayAccess = hook.access
        self.store = store
        self.ledger = ledger
        self.deciding = deciding
        self.control = control
        self.progress = progress
        self.options = options
        self.log = log
        self.conversation = Conversation(self.access.gateway, QuietLog(log))
        self.workers = options.max_in_flight + STORES_AT_ONCE
        self.places = asyncio.Semaphore(options.max_in_flight)
        self.creates = asyncio.Semaphore(CREATES_AT_ONCE)
        self.canceled = 0
        self.store_room = StoreRoom(FetchRules(allow_private=self.access.allow_private_outputs))
        self._committed_usd = store.committed_usd(deciding.identity.run)

    async def run(self, flow: Flow[T]) -> T:
        """Run a flow over the shared session."""
        from airflow_provider_flux.client import aio

        return await aio.run(flow, self.access)

    def commit(self, usd: float) -> None:
        """Take note of money that is spent, or not spent after all."""
        self._committed_usd += usd
        self.progress.commit(usd)

    def check_budget(self, row: PlannedRow) -> None:
        """Stop the batch before its budget is crossed.

        :raises NotStartedError: if the row would cross it.
        """
        budget = self.options.budget_usd
        # Binary fractions of a cent add up to a little more than they should.
        if budget is None or self._committed_usd + (row.estimate or 0.0) <= budget + 1e-9:
            return
        self.control.stop(
            FluxBudgetError(
                f"{self._committed_usd:.4f} of {budget:g} USD are spent, and row {row.key!r} would cost "
                f"{row.estimate:.4f} more. What was in flight is made and stored; the rest is over_budget in the "
                "manifest. Raise budget_usd and clear this task to go on with it."
            )
        )
        raise NotStartedError


class Making:
    """One row on its way.

    :param row: as it is to be submitted, with what the ledger knows of it.
    """

    def __init__(self, workshop: Workshop, row: PlannedRow) -> None:
        self._shop = workshop
        self._row = row
        self._entry = row.entry

    async def make(self) -> Result:
        """Make the row, or go on with what an earlier try has begun.

        :return: how it ended.
        :raises NotStartedError: if nothing was submitted, because the batch stops.
        :raises LeftError: if it goes on, but the batch does not.
        :raises LookUpError: if a create's outcome is unknown, but the gateway lists predictions.
        """
        try:
            async with self._shop.places:
                if self._shop.control.is_stopped:
                    raise NotStartedError
                self._shop.progress.begin()
                try:
                    prediction = await self._prediction()
                finally:
                    self._shop.progress.leave()
            return await self._settle(prediction)
        except FluxSubmissionUnknownError as error:
            await self._write(replace(self._own(), told=True))
            return self._failed(RowStatus.UNKNOWN, error)
        except FluxError as error:
            return self._failed(RowStatus.FAILED, error)

    async def tell_unknown(self, candidates: Sequence[str] = (), failure: Failure | None = None) -> dict[str, JSON]:
        """Note that nobody can know whether a create made the row's prediction, and return what is told of it.

        :param candidates: predictions that it may have made.
        :param failure: why the gateway's list cannot tell.
        """
        entry = self._own()
        await self._write(replace(entry, told=True))
        hook = self._shop.hook
        error = hook.submission_unknown(self._row.model, entry.sent_at, failure, candidates=candidates)
        return self._failed(RowStatus.UNKNOWN, error)[1]

    async def note_found(self, prediction_id: str | None) -> PlannedRow:
        """Note what a create has made, as the gateway's list tells it, and return the row as it can go on.

        :param prediction_id: None if it has made nothing, for certain.
        """
        if prediction_id is None:
            await self._void()
        else:
            self._shop.log.info("Prediction %s is the one of row %r", prediction_id, self._row.key)
            await self._write(replace(self._own(), prediction_id=prediction_id))
        return replace(self._row, entry=self._entry)

    async def _prediction(self) -> Prediction:
        """Return the row's prediction once it has ended: the one of an earlier try, or a new one."""
        entry = self._shop.deciding.known(self._entry)
        seen = prediction_of(entry)
        step = self._step(seen)
        if step is Step.ASK:
            seen = await self._ask()
            step = self._step(seen, gone=seen is None)
        if step is Step.LOOK_UP:
            raise LookUpError
        if step is Step.REFUSE:
            raise self._shop.hook.submission_unknown(self._row.model, self._own().sent_at)
        if step is Step.ATTACH:
            prediction = await self._attach(seen)
            # Ending a task cancels its predictions, maybe just after the new try has gone on with one.
            if prediction.status not in (PredictionStatus.CANCELED, PredictionStatus.ABORTED):
                return prediction
        if step is Step.CANCEL_AND_SUBMIT:
            await self._cancel(time.time() + CANCEL_PATIENCE)
        await self._submit()
        return await self._watch(at_once=False)

    def _step(self, seen: Prediction | None, *, gone: bool = False) -> Step:
        return self._shop.deciding.step(self._entry, self._row.fingerprint, seen, gone=gone)

    async def _ask(self) -> Prediction | None:
        """Ask for the prediction of an earlier try. None means that the gateway knows none."""
        flow = self._shop.conversation.get(self._id, deadline=time.time() + ATTACH_PATIENCE)
        try:
            return await self._shop.run(flow)
        except CallFailed as failed:
            if failed.failure.reason is not Reason.NOT_FOUND:
                self._raise(failed)
            return None

    async def _attach(self, seen: Prediction | None) -> Prediction:
        if seen is None:
            failure = Failure(Reason.NOT_FOUND, "the gateway knows no such prediction", f"prediction {self._id}")
            raise gateway_error(self._shop.hook.gateway_name, failure, Verdict.REFUSED)
        return seen if seen.status.is_terminal else await self._watch(at_once=True)

    async def _submit(self) -> None:
        """Make a new prediction. Once this returns, it is known to the ledger."""
        shop = self._shop
        resubmits = shop.deciding.on_unknown_submission == "resubmit" and not shop.deciding.can_list
        async with shop.creates:
            try:
                await self._create()
            except FluxSubmissionUnknownError as error:
                if not resubmits:
                    raise
                shop.log.warning("Row %r: %s Sending it once more, as on_unknown_submission says", self._row.key, error)
                await self._create()

    async def _create(self) -> None:
        shop = self._shop
        await self._intend()
        deadline = time.time() + shop.options.timeout
        request = shop.access.gateway.create(
            self._row.model, self._row.input, cancel_after=shop.options.timeout + CANCEL_AFTER_MARGIN
        )
        try:
            submission = shop.conversation.submit(request, deadline=deadline)
            prediction = await shop.run(_while_going_on(submission, shop.control))
        except NotStartedError:
            await self._void()
            raise
        except CallFailed as failed:
            await self._fail_to_create(failed)
        await self._write(replace(self._own(), prediction_id=prediction.id))

    async def _intend(self) -> None:
        """Let the ledger know that a create is about to be sent."""
        shop = self._shop
        if shop.control.is_stopped:
            raise NotStartedError
        shop.check_budget(self._row)
        earlier = self._own()
        estimate = self._row.estimate or 0.0
        shop.commit(estimate)
        intent = replace(
            earlier,
            generation=shop.deciding.identity.generation,
            try_number=shop.deciding.identity.try_number,
            fingerprint=self._row.fingerprint,
            sent_at=time.time(),
            prediction_id=None,
            told=False,
            attempts=earlier.attempts + 1,
            committed_usd=earlier.committed_usd + estimate,
            outcome=None,
        )
        try:
            await self._add(intent)
        except Exception as error:
            shop.commit(-estimate)
            shop.control.stop(
                FluxError(
                    f"The ledger could not be written ({type(error).__name__}: {error}), so nothing more is submitted, "
                    f"from row {self._row.key!r} on. Put the storage right; another try goes on from there."
                )
            )
            raise NotStartedError from error
        if shop.control.forbids_creates:
            await self._void()
            raise NotStartedError

    async def _void(self) -> None:
        """Let the ledger know that a create has made nothing."""
        entry = self._own()
        estimate = self._row.estimate or 0.0
        self._shop.commit(-estimate)
        await self._write(
            replace(entry, sent_at=0.0, attempts=entry.attempts - 1, committed_usd=entry.committed_usd - estimate)
        )

    async def _fail_to_create(self, failed: CallFailed) -> NoReturn:
        shop, failure = self._shop, failed.failure
        if failed.may_exist:
            if shop.deciding.can_list:
                raise LookUpError
            raise shop.hook.submission_unknown(self._row.model, self._own().sent_at, failure)
        if failure.reason is Reason.WRONG_URL:
            # Of an answer that does not come from a gateway at all one cannot be quite sure.
            self._raise(failed)
        await self._void()
        error = self._error(failed)
        if failure.reason in CONNECTION_AT_FAULT or failed.verdict is not Verdict.REFUSED:
            shop.control.stop(error)
            raise NotStartedError
        await self._write(replace(self._own(), outcome=self._outcome(error)))
        raise error

    async def _watch(self, *, at_once: bool) -> Prediction:
        """Poll the prediction to its end, or to its deadline."""
        shop, entry = self._shop, self._own()
        if shop.control.is_killed:
            await self._leave()
        now = time.time()
        deadline = entry.sent_at + shop.options.timeout
        conversation = shop.conversation
        flow = conversation.watch(
            self._id,
            conversation.schedule(self._row.model, interval=shop.options.poll_interval),
            model=self._row.model,
            submitted_at=entry.sent_at,
            deadline=max(deadline, now + ATTACH_PATIENCE) if at_once else deadline,
            at_once=at_once,
        )
        watch = asyncio.create_task(shop.run(flow))
        shop.control.watches.add(watch)
        try:
            with waiting_for(self._id, self._row.model):
                prediction = await watch
        except asyncio.CancelledError:
            if not shop.control.is_killed:
                raise
        except DeadlinePassed:
            return await self._give_up()
        except CallFailed as failed:
            self._raise(failed)
        else:
            if not at_once:
                waited = time.time() - entry.sent_at
                note_seen(shop.access.gateway, prediction, self._row.model, waited=waited)
            return prediction
        finally:
            shop.control.watches.discard(watch)
        await self._leave()

    async def _leave(self) -> NoReturn:
        """Cancel the prediction, since the task is being ended."""
        if self._shop.options.cancel_on_kill:
            report = await self._cancel(time.time() + KILL_PATIENCE)
            self._shop.canceled += report is not None and report.status is PredictionStatus.CANCELED
        raise LeftError

    async def _give_up(self) -> Prediction:
        """End the wait at the deadline. Return the prediction only if it has succeeded meanwhile."""
        last = await self._cancel(time.time() + CANCEL_PATIENCE)
        if last is not None and last.status is PredictionStatus.SUCCEEDED:
            return last
        canceled = last is not None and last.status in (PredictionStatus.CANCELED, PredictionStatus.ABORTED)
        report = "It is canceled." if canceled else "It could not be canceled, and may go on and be billed."
        raise FluxDeadlineError(f"Prediction {self._id} did not end in time. {report}", self._id, canceled=canceled)

    async def _cancel(self, deadline: float) -> Prediction | None:
        """Cancel the prediction, and return it as it then is; None if the gateway does not say."""
        try:
            return await self._shop.run(self._shop.conversation.cancel(self._id, deadline=deadline))
        except CallFailed as failed:
            self._shop.log.warning("Prediction %s could not be canceled: %s", self._id, failed.failure)
            return None

    async def _settle(self, prediction: Prediction) -> Result:
        """Store the pictures of a prediction that has ended."""
        shop = self._shop
        note_end(shop.access.gateway, prediction, self._row.model)
        try:
            if prediction.status is not PredictionStatus.SUCCEEDED:
                raise ending_error(prediction)
            check_outputs(prediction, may_be_inline=True)
            pictures = await shop.store_room.lend(lambda store: self._store(store, prediction))
        except FluxOutputNotStoredError:
            # Another try fetches the pictures of the same prediction.
            raise
        except FluxError as error:
            await self._write(replace(self._own(), outcome=self._outcome(error, prediction)))
            raise
        actual = cost_of(prediction, shop.access, model=self._row.model, input=self._row.input, pictures=pictures)
        entry = self._own()
        if actual is not None and entry.attempts:
            shop.commit(actual - (self._row.estimate or 0.0))
            entry = replace(entry, committed_usd=entry.committed_usd + actual - (self._row.estimate or 0.0))
        outcome = success(prediction, pictures, cost_usd=actual, attempts=entry.attempts, made_at=time.time())
        await self._write(replace(entry, outcome=outcome))
        return RowStatus.SUCCEEDED, outcome

    def _store(self, store: PictureStore, prediction: Prediction) -> list[StoredPicture]:
        shop, row = self._shop, self._row
        facts = None
        if shop.options.write_sidecars:
            gateway = shop.access.gateway.preset.name
            facts = describe(prediction, gateway=gateway, model=row.model, input=row.input)
        return store.store(
            prediction.outputs,
            picture_stem(shop.options.output_path, row),
            prediction_id=prediction.id,
            expires_at=min(expires_at(prediction) or math.inf, time.time() + STORE_PATIENCE),
            sidecar=facts,
        )

    def _own(self) -> Entry:
        """Return the row's entry as one of this run: what another run has spent is not counted again."""
        identity = self._shop.deciding.identity
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

    async def _add(self, entry: Entry) -> None:
        """Make an entry durable."""
        entry = replace(entry, revision=entry.revision + 1)
        self._entry = entry
        await self._shop.ledger.add(entry)

    async def _write(self, entry: Entry) -> None:
        """Make an entry durable if that is possible; whatever it tells of has happened anyway."""
        try:
            await self._add(entry)
        except Exception as error:  # noqa: BLE001 (the prediction is paid for: whatever is wrong, go on with it)
            self._shop.log.warning(
                "The ledger could not take note of row %r, prediction %s (%s). This try goes on with it; if it dies, "
                "the next one may not know of it",
                entry.key,
                entry.prediction_id,
                error,
            )

    def _failed(self, status: RowStatus, error: FluxError) -> Result:
        self._shop.control.note_failure(self._row.key, self._row.position, error)
        return status, self._outcome(error)

    def _outcome(self, error: FluxError, prediction: Prediction | None = None) -> dict[str, JSON]:
        entry = self._own()
        return {
            "status": RowStatus.FAILED.value,
            "prediction_status": prediction.status.value if prediction is not None else None,
            "is_lasting": isinstance(error, AirflowFailException),
            "prediction_id": entry.prediction_id,
            "attempts": entry.attempts,
            "error": str(error),
        }

    def _error(self, failed: CallFailed) -> FluxGatewayError:
        about = f"prediction {self._id}" if self._id else f"model {self._row.model}"
        return gateway_error(self._shop.hook.gateway_name, failed.failure, failed.verdict, about=about)

    def _raise(self, failed: CallFailed) -> NoReturn:
        """Raise the error for a call about a prediction, which is left for another try if no prediction is at fault."""
        error = self._error(failed)
        if failed.failure.reason in CONNECTION_AT_FAULT:
            self._shop.control.stop(error)
            raise LeftError
        raise error


def picture_stem(output_path: str, row: PlannedRow) -> str:
    """Return the beginning of the paths of a row's pictures.

    What is submitted is part of it: pictures of a changed prompt never take the place of those that were there.
    """
    return join(output_path, f"{safe_part(row.key)}-{row.fingerprint[:10]}")


class QuietLog:
    """Tells of trouble with single predictions, but not of each when there are many.

    :param limit: how many warnings are told.
    """

    def __init__(self, log: Log, limit: int = 50) -> None:
        self._log = log
        self._left = limit

    def info(self, message: str, /, *args: object) -> None:
        """Say nothing: one line for each change of thousands of predictions is too much."""

    def warning(self, message: str, /, *args: object) -> None:
        """Tell, unless too much has been told already."""
        self._left -= 1
        if self._left >= 0:
            self._log.warning(message, *args)
        if self._left == 0:
            self._log.warning("More warnings about single predictions are not shown")


def _while_going_on(flow: Flow[T], control: Control) -> Flow[T]:
    """Let a create be repeated only while the batch goes on. What was sent is waited for in any case.

    :raises NotStartedError: if nothing was made and nothing more is sent.
    """
    effect = next(flow)
    while True:
        if isinstance(effect, Send) and control.forbids_creates:
            raise NotStartedError
        reply = yield effect
        try:
            effect = flow.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result
