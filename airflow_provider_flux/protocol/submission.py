"""One prediction for one task or row, whatever dies in between: everything that spends money, written once.

Before a create is sent, an intent is saved; the prediction's id is added the moment it is known. What is saved outlives
retries, clears, workers and triggerers, so that the next try finds what the last one has paid for.

Airflow's own ``ResumableJobMixin`` is not used: it saves nothing before the job is submitted, so that a worker that
dies in between pays again, and it does not cover a task that defers.

The flows yield three effects besides those of :mod:`airflow_provider_flux.protocol.flows`: :class:`Prepare`,
:class:`Save` and :class:`LookUp`. Hook, operator and batch differ only in how they carry these out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from airflow_provider_flux.protocol import lookup
from airflow_provider_flux.protocol.cancellation import cancel
from airflow_provider_flux.protocol.classify import Failure, Reason, Verdict
from airflow_provider_flux.protocol.fallbacks import NotAccepted
from airflow_provider_flux.protocol.fingerprint import fingerprint_of, is_fingerprint_of
from airflow_provider_flux.protocol.flows import CallFailed, Conversation, Flow
from airflow_provider_flux.protocol.lookup import OutcomeUnknown
from airflow_provider_flux.protocol.messages import JSON, Request
from airflow_provider_flux.protocol.picture_inputs import pictures_of, sent_as
from airflow_provider_flux.protocol.prediction import BILLED, Prediction
from airflow_provider_flux.protocol.resume import ResumePolicy, Step, SubmissionRecord, decide


@dataclass(frozen=True, slots=True)
class Save:
    """Keep a record in place of the one before; None forgets it. If an intent cannot be saved, nothing is sent.

    :param prediction: the prediction of the record, once there is one.
    """

    record: SubmissionRecord | None
    prediction: Prediction | None = None

    @property
    def is_intent(self) -> bool:
        """Whether a create follows."""
        return self.record is not None and self.record.prediction_id is None and not self.record.told


@dataclass(frozen=True, slots=True)
class Prepare:
    """Return the input as it is to be sent, with something that the gateway can read in the place of each picture.

    What is raised goes to the caller: nothing has been sent then.
    """

    input: Mapping[str, JSON]


@dataclass(frozen=True, slots=True)
class LookUp:
    """Find out from the gateway's list what a create has made, as :func:`.lookup.settle` does.

    :param failure: how the answer to it was lost.
    """

    record: SubmissionRecord
    failure: Failure


class NotSubmitted(Exception):
    """Nothing was sent, and nothing will be: the deadline has come, or the driver wants no more.

    A driver may raise it in place of an intent's :class:`Save` or of the create's
    :class:`~airflow_provider_flux.protocol.flows.Send`, from the error that its own caller is to see.
    """


def made_nothing(failed: CallFailed) -> bool:
    """Tell whether a create that failed has certainly made nothing.

    Of an answer that does not come from a gateway at all, such as a redirect, one cannot be quite sure.
    """
    return not failed.may_exist and failed.failure.reason is not Reason.WRONG_URL


@dataclass(frozen=True, kw_only=True)
class Submission:
    """The flows by which one prediction is had, at most once paid for.

    :param input: what is asked for; pictures in it as :mod:`.picture_inputs` describes them.
    :param request: builds the create from the input as it is sent. Called right before that, since some of its headers
        count from then.
    :param deadline: until when transient problems are retried and creates are sent, in seconds since the epoch.
    :param patience: seconds for which a create is tried to be sent, where there is another way to make the picture.
    :param attempt: which of the ways to make the picture this is.
    :param passed: the ways before it, as :class:`~airflow_provider_flux.protocol.resume.SubmissionRecord` has them.
    :param unrecorded_since: where no record is kept but an earlier try may have made a prediction: when that can have
        been, in seconds since the epoch.
    """

    conversation: Conversation
    model: str
    input: Mapping[str, JSON]
    request: Callable[[Mapping[str, JSON]], Request]
    policy: ResumePolicy
    deadline: float
    patience: float | None = None
    attempt: int = 0
    passed: Sequence[Mapping[str, JSON]] = field(default_factory=list)
    unrecorded_since: float | None = None
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fingerprint", fingerprint_of(self.conversation.gateway, self.model, self.input))

    def attach_or_submit(
        self, record: SubmissionRecord | None = None, seen: Prediction | None = None
    ) -> Flow[Prediction]:
        """Return the prediction of an earlier try where there is one to go on with, else make one.

        :param record: what earlier tries have saved.
        :param seen: the recorded prediction, if it is known how it has ended.
        :raises OutcomeUnknown: if an earlier create, or this one, may have made a prediction that cannot be found.
        :raises NotSubmitted: if nothing was sent.
        :raises NotAccepted: if the gateway refuses the create, or cannot be reached.
        :raises CallFailed: if it refuses otherwise, or does not say what became of the recorded prediction.
        """
        if record is not None and self._is_same(record.fingerprint):
            record = replace(record, fingerprint=self.fingerprint)
        step = self._decide(record, seen)
        if step is Step.ASK and record is not None:
            seen = yield from self._ask(record)
            step = self._decide(record, seen, gone=seen is None)
        if record is None or step is Step.SUBMIT:
            return (yield from self._found_without_record()) or (yield from self._submit(record, seen))
        if step is Step.REFUSE:
            raise (yield from self._unknown(record, OutcomeUnknown(_worker_ended(), record.sent_at)))
        if step is Step.LOOK_UP:
            return (yield from self._look_up(record, _worker_ended())) or (yield from self._submit(None, None))
        if step is Step.CANCEL_AND_SUBMIT:
            canceled = yield from cancel(self.conversation, record.prediction_id or "")
            self.conversation.log.info("The input has changed. %s", canceled.report)
            return (yield from self._submit(record, seen))
        if seen is None:
            raise CallFailed(_gone(record))
        self.conversation.log.info(
            "Prediction %s of an earlier try is %s; going on with it", seen.id, seen.status.value
        )
        return seen

    def settle_by_list(self, effect: LookUp) -> Flow[Prediction | None]:
        """Carry out a :class:`LookUp` for this submission alone."""
        return lookup.settle(
            self.conversation,
            self.model,
            self.input,
            sent_at=effect.record.sent_at,
            sent_as=effect.record.sent_as,
            failure=effect.failure,
            deadline=self.deadline,
        )

    def _is_same(self, fingerprint: str) -> bool:
        return is_fingerprint_of(fingerprint, self.conversation.gateway, self.model, self.input)

    def _decide(self, record: SubmissionRecord | None, seen: Prediction | None, *, gone: bool = False) -> Step:
        return decide(record, fingerprint=self.fingerprint, policy=self.policy, seen=seen, gone=gone)

    def _ask(self, record: SubmissionRecord) -> Flow[Prediction | None]:
        """Ask for the recorded prediction. None means that the gateway knows none."""
        try:
            return (yield from self.conversation.get(record.prediction_id or "", deadline=self.deadline))
        except CallFailed as failed:
            if failed.failure.reason is not Reason.NOT_FOUND:
                raise
            return None

    def _found_without_record(self) -> Flow[Prediction | None]:
        if self.unrecorded_since is None or not self.policy.can_list:
            return None
        found: Prediction | None = yield from lookup.find_alive(
            self.conversation, self.model, self.input, since=self.unrecorded_since, deadline=self.deadline
        )
        if found is not None:
            self.conversation.log.info("Prediction %s has the same input; going on with it", found.id)
        return found

    def _submit(self, earlier: SubmissionRecord | None, seen: Prediction | None) -> Flow[Prediction]:
        """Make a new prediction. The only place from which a create is sent."""
        self._tell_why(earlier, seen)
        may_resend = self.policy.resubmits and not self.policy.can_list
        doubtful = earlier if self._is_in_doubt(earlier) else None
        sent = (yield Prepare(self.input)) if any(pictures_of(self.input)) else self.input
        while True:
            intent = yield from self._intend(sent)
            try:
                prediction: Prediction = yield from self.conversation.submit(
                    self.request(sent), deadline=self._accepted_by()
                )
            except NotSubmitted:
                yield from self._keep(None if doubtful is None else replace(doubtful, told=True))
                raise
            except CallFailed as failed:
                if not failed.may_exist:
                    if doubtful is not None:
                        # This one has made nothing, but what the one before has made is as unknown as it was.
                        unknown = OutcomeUnknown(failed.failure, doubtful.sent_at, resent=True)
                        raise (yield from self._unknown(doubtful, unknown)) from failed
                    if made_nothing(failed):
                        yield from self._keep(None)
                        raise NotAccepted(failed.failure, failed.verdict) from failed
                    raise
                found = yield from self._resolve(intent, failed.failure, may_resend=may_resend)
                if found is not None:
                    return found
                if self.policy.can_list and self.patience is not None:
                    # The list shows that it has made nothing, and another way is better than the same once more.
                    raise NotAccepted(failed.failure, Verdict.RETRY) from failed
                may_resend, doubtful = False, None if self.policy.can_list else intent
                continue
            billed = {name: prediction.metrics[name] for name in BILLED if name in prediction.metrics}
            yield from self._keep(replace(intent, prediction_id=prediction.id, billed=billed), prediction)
            return prediction

    def _is_in_doubt(self, earlier: SubmissionRecord | None) -> bool:
        """Tell whether an earlier create may have made a prediction, and nobody has taken the risk of another one."""
        return (
            earlier is not None
            and earlier.prediction_id is None
            and self._is_same(earlier.fingerprint)
            and not self.policy.takes_the_risk(earlier)
        )

    def _accepted_by(self) -> float:
        return self.deadline if self.patience is None else min(self.deadline, self.conversation.clock() + self.patience)

    def _intend(self, sent: Mapping[str, JSON]) -> Flow[SubmissionRecord]:
        now = self.conversation.clock()
        if now >= self.deadline:
            raise NotSubmitted("The deadline passed before the prediction was asked for; nothing was sent.")
        intent = SubmissionRecord(
            fingerprint=self.fingerprint,
            generation=self.policy.generation,
            try_number=self.policy.try_number,
            sent_at=now,
            sent_as=sent_as(self.input, sent),
            attempt=self.attempt,
            passed=self.passed,
        )
        yield Save(intent)
        return intent

    def _resolve(self, intent: SubmissionRecord, failure: Failure, *, may_resend: bool) -> Flow[Prediction | None]:
        """Find out what a create with a lost answer has made. None means that another one may be sent."""
        log = self.conversation.log
        if self.policy.can_list:
            log.warning("%s; looking for the prediction in the gateway's list", failure)
            return (yield from self._look_up(intent, failure))
        if may_resend:
            log.warning("%s; sending it once more, as on_unknown_submission says", failure)
            return None
        raise (yield from self._unknown(intent, OutcomeUnknown(failure, intent.sent_at, resent=self.policy.resubmits)))

    def _look_up(self, record: SubmissionRecord, failure: Failure) -> Flow[Prediction | None]:
        try:
            found: Prediction | None = yield LookUp(record, failure)
        except OutcomeUnknown as unknown:
            if not self.policy.takes_the_risk(record):
                raise (yield from self._unknown(record, unknown)) from unknown
            self.conversation.log.warning(
                "The list of predictions does not tell what an earlier create has made; making one all the same, since "
                "the task was cleared after its error had told of it"
            )
            return None
        if found is None:
            yield from self._keep(None)
            return None
        self.conversation.log.info("Prediction %s is the one that was asked for", found.id)
        yield from self._keep(replace(record, prediction_id=found.id), found)
        return found

    def _unknown(self, record: SubmissionRecord, unknown: OutcomeUnknown) -> Flow[OutcomeUnknown]:
        yield from self._keep(replace(record, told=True))
        return unknown

    def _keep(self, record: SubmissionRecord | None, prediction: Prediction | None = None) -> Flow[None]:
        """Save what has happened already, if that is possible: whatever is wrong, a prediction is gone on with."""
        try:
            yield Save(record, prediction)
        except Exception as error:  # noqa: BLE001 (whatever the driver's storage raises)
            self.conversation.log.warning(
                "What became of the create of %s could not be saved (%s: %s), prediction %s. This try goes on; if it "
                "dies, the next one may not know of the prediction",
                self.model,
                type(error).__name__,
                error,
                "none" if record is None else record.prediction_id or "unknown",
            )

    def _tell_why(self, earlier: SubmissionRecord | None, seen: Prediction | None) -> None:
        log = self.conversation.log
        if earlier is None:
            return
        if earlier.prediction_id is None:
            log.warning("An earlier create may have made a prediction that is not known; making one all the same")
            return
        what = seen.status.value if seen is not None else "not known to the gateway any more"
        log.info("Prediction %s of an earlier try is %s; making a new one", earlier.prediction_id, what)


def _worker_ended() -> Failure:
    return Failure(Reason.NETWORK, "the worker ended before the answer came", "an earlier create")


def _gone(record: SubmissionRecord) -> Failure:
    return Failure(Reason.NOT_FOUND, "the gateway knows no such prediction", f"prediction {record.prediction_id}")
