"""The flow that spends money, with every effect scripted: what is saved when, and what is sent after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pytest

from airflow_provider_flux.protocol.classify import Failure, Reason
from airflow_provider_flux.protocol.flows import DOUBTFUL_LIMIT, CallFailed, Flow, Send
from airflow_provider_flux.protocol.gateways import choose_gateway
from airflow_provider_flux.protocol.lookup import OutcomeUnknown
from airflow_provider_flux.protocol.messages import Purpose, Reply, Request
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus
from airflow_provider_flux.protocol.resume import ResumePolicy, SubmissionRecord
from airflow_provider_flux.protocol.submission import LookUp, NotSubmitted, Prepare, Save, Submission
from tests.protocol.scripted import (
    ID,
    IN_DOUBT,
    START,
    SUCCEEDED,
    TASK_NOT_EXIST,
    Late,
    Script,
    answer,
    create_request,
    html,
    told,
)

T = TypeVar("T")

SCHNELL = "black-forest-labs/flux-schnell"
BOAT = {"prompt": "A paper boat"}
REPLICATE = choose_gateway("https://api.replicate.com")
LOST = Failure(Reason.NETWORK, "no answer", "POST /x")
REFUSED = answer(402, {"error": {"message": "no credit left"}})


@dataclass
class Driver:
    """Carries out what a script of replies does not: saves, look-ups, and the last word before a create.

    :param looked_up: what the look-ups tell, in this order; an error is raised.
    :param on_save: called before each save; may raise.
    :param on_prepare: returns an input as it is sent; may raise.
    :param on_create: called right before each create is sent; may raise.
    """

    script: Script
    looked_up: list[Prediction | Exception | None] = field(default_factory=list)
    on_save: Callable[[Save], object] = lambda _: None
    on_create: Callable[[], object] = lambda: None
    on_prepare: Callable[[Prepare], Mapping[str, Any]] = lambda effect: {**effect.input, "image": "https://signed"}
    saved: list[SubmissionRecord | None] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    look_ups: list[LookUp] = field(default_factory=list)

    def run(self, flow: Flow[T]) -> T:
        return self.script.run(self._carried_out(flow))

    def _carried_out(self, flow: Flow[T]) -> Flow[T]:
        try:
            effect = next(flow)
            while True:
                try:
                    is_own = isinstance(effect, (Prepare, Save, LookUp))
                    outcome = self._own(effect) if is_own else (yield self._seen(effect))
                except Exception as error:  # noqa: BLE001 (the flow decides what it means)
                    effect = flow.throw(error)
                else:
                    effect = flow.send(outcome)
        except StopIteration as end:
            result: T = end.value
            return result

    def _seen(self, effect: Any) -> Any:
        if isinstance(effect, Send):
            if effect.request.purpose is Purpose.CREATE:
                self.on_create()
            self.steps.append(effect.request.purpose.value)
        return effect

    def _own(self, effect: Prepare | Save | LookUp) -> Prediction | Mapping[str, Any] | None:
        if isinstance(effect, Prepare):
            self.steps.append("prepare")
            return self.on_prepare(effect)
        if isinstance(effect, LookUp):
            self.steps.append("look up")
            self.look_ups.append(effect)
            found = self.looked_up.pop(0)
            if isinstance(found, Exception):
                raise found
            return found
        self.on_save(effect)
        self.steps.append("save intent" if effect.is_intent else "save")
        self.saved.append(effect.record)
        return None

    @property
    def creates(self) -> int:
        return self.steps.count(Purpose.CREATE.value)


def scripted(*replies: Reply | Late, can_list: bool = False, then: Reply | None = None, **given: Any) -> Driver:
    return Driver(Script(*replies, then=then, gateway=REPLICATE if can_list else None), **given)


def submission(driver: Driver, *, resubmits: bool = False, generation: int = 3, **given: Any) -> Submission:
    talk = driver.script.talk
    can_list = talk.gateway.preset.lists_predictions
    policy = ResumePolicy(generation=generation, try_number=2, can_list=can_list, resubmits=resubmits)
    fields: dict[str, Any] = {
        "conversation": talk,
        "model": SCHNELL,
        "input": BOAT,
        "request": lambda _: create_request(talk.gateway),
        "policy": policy,
        "deadline": START + 600,
        **given,
    }
    return Submission(**fields)


def record_of(submitted: Submission, **fields: Any) -> SubmissionRecord:
    """What an earlier try of the same generation has saved."""
    known = {"fingerprint": submitted.fingerprint, "generation": 3, "try_number": 1, "sent_at": START - 100}
    return SubmissionRecord(**{**known, **fields})


def intent_of(submitted: Submission, sent_at: float = START) -> SubmissionRecord:
    return record_of(submitted, try_number=2, sent_at=sent_at)


def found(prediction_id: str = ID) -> Prediction:
    return Prediction(id=prediction_id, status=PredictionStatus.PROCESSING)


class TestANewPrediction:
    def test_its_intent_is_saved_before_the_create_and_its_id_after_it(self) -> None:
        driver = scripted(told())
        one = submission(driver)
        assert driver.run(one.attach_or_submit()).id == ID
        assert driver.steps == ["save intent", "create", "save"]
        assert driver.saved == [intent_of(one), replace(intent_of(one), prediction_id=ID)]

    def test_an_intent_that_cannot_be_saved_means_that_nothing_is_sent(self) -> None:
        def fail(_: Save) -> None:
            raise OSError("no database")

        driver = scripted(on_save=fail)
        with pytest.raises(OSError, match="no database"):
            driver.run(submission(driver).attach_or_submit())
        assert driver.steps == []

    def test_an_id_that_cannot_be_saved_is_logged_and_the_prediction_gone_on_with(self) -> None:
        def fail(save: Save) -> None:
            if not save.is_intent:
                raise OSError("no database")

        driver = scripted(told(), on_save=fail)
        assert driver.run(submission(driver).attach_or_submit()).id == ID
        (warning,) = driver.script.log.warnings
        assert ID in warning
        assert "no database" in warning
        assert driver.creates == 1

    def test_a_driver_that_wants_no_more_in_place_of_the_create_leaves_no_intent(self) -> None:
        def stop() -> None:
            raise NotSubmitted("the task is ended")

        driver = scripted(on_create=stop)
        with pytest.raises(NotSubmitted, match="the task is ended"):
            driver.run(submission(driver).attach_or_submit())
        assert driver.steps == ["save intent", "save"]
        assert driver.saved[-1] is None

    def test_a_driver_that_wants_no_more_in_place_of_the_intent_saves_and_sends_nothing(self) -> None:
        def stop(_: Save) -> None:
            raise NotSubmitted("the batch stops")

        driver = scripted(on_save=stop)
        with pytest.raises(NotSubmitted, match="the batch stops"):
            driver.run(submission(driver).attach_or_submit())
        assert driver.steps == []

    def test_nothing_is_saved_or_sent_after_the_deadline(self) -> None:
        driver = scripted()
        with pytest.raises(NotSubmitted, match="deadline"):
            driver.run(submission(driver, deadline=START).attach_or_submit())
        assert driver.steps == []

    def test_a_create_that_is_throttled_is_sent_again_under_one_intent(self) -> None:
        """POST: connection never made, or 429"""
        driver = scripted(answer(429, {}, retry_after="2"), told())
        driver.run(submission(driver).attach_or_submit())
        assert driver.steps == ["save intent", "create", "create", "save"]

    def test_a_driver_may_stop_a_create_that_is_about_to_be_sent_again(self) -> None:
        driver = scripted(answer(429, {}, retry_after="2"))

        def stop_the_second() -> None:
            if driver.creates:
                raise NotSubmitted("the task is ended")

        driver.on_create = stop_the_second
        with pytest.raises(NotSubmitted):
            driver.run(submission(driver).attach_or_submit())
        assert driver.saved[-1] is None

    def test_a_refusal_forgets_the_intent(self) -> None:
        driver = scripted(REFUSED)
        with pytest.raises(CallFailed) as failed:
            driver.run(submission(driver).attach_or_submit())
        assert not failed.value.may_exist
        assert driver.steps == ["save intent", "create", "save"]
        assert driver.saved[-1] is None

    def test_an_answer_of_no_gateway_keeps_the_intent(self) -> None:
        """redirect from the API, HTML where JSON is due"""
        driver = scripted(html())
        with pytest.raises(CallFailed) as failed:
            driver.run(submission(driver).attach_or_submit())
        assert failed.value.failure.reason is Reason.WRONG_URL
        assert driver.steps == ["save intent", "create"]


class TestALostAnswer:
    """POST: read timeout, reset, 5xx after sending"""

    def test_without_a_list_it_is_told_of_and_nothing_is_sent_again(self) -> None:
        driver = scripted(IN_DOUBT)
        one = submission(driver)
        with pytest.raises(OutcomeUnknown) as unknown:
            driver.run(one.attach_or_submit())
        assert not unknown.value.resent
        assert driver.steps == ["save intent", "create", "save"]
        assert driver.saved[-1] == replace(intent_of(one), told=True)

    def test_it_is_told_of_though_that_cannot_be_saved(self) -> None:
        def fail(save: Save) -> None:
            if not save.is_intent:
                raise OSError("no database")

        driver = scripted(IN_DOUBT, on_save=fail)
        with pytest.raises(OutcomeUnknown):
            driver.run(submission(driver).attach_or_submit())
        assert driver.creates == 1

    def test_on_request_it_is_sent_once_more_under_an_intent_of_its_own(self) -> None:
        driver = scripted(Late(5, IN_DOUBT), told())
        one = submission(driver, resubmits=True)
        assert driver.run(one.attach_or_submit()).id == ID
        assert driver.steps == ["save intent", "create", "save intent", "create", "save"]
        assert driver.saved[-1] == replace(intent_of(one, START + 5), prediction_id=ID)

    def test_on_request_it_is_not_sent_a_third_time(self) -> None:
        driver = scripted(IN_DOUBT, IN_DOUBT)
        with pytest.raises(OutcomeUnknown) as unknown:
            driver.run(submission(driver, resubmits=True).attach_or_submit())
        assert unknown.value.resent
        assert driver.creates == 2
        assert driver.saved[-1] is not None
        assert driver.saved[-1].told

    @pytest.mark.parametrize("resubmits", [False, True])
    def test_where_there_is_a_list_it_tells_what_was_made(self, resubmits: bool) -> None:
        driver = scripted(IN_DOUBT, can_list=True, looked_up=[found("made")])
        one = submission(driver, resubmits=resubmits)
        assert driver.run(one.attach_or_submit()).id == "made"
        assert driver.steps == ["save intent", "create", "look up", "save"]
        assert driver.look_ups[0].record == intent_of(one)
        assert driver.saved[-1] == replace(intent_of(one), prediction_id="made")

    @pytest.mark.parametrize("resubmits", [False, True])
    def test_where_the_list_tells_that_nothing_was_made_another_one_is_made(self, resubmits: bool) -> None:
        driver = scripted(IN_DOUBT, told(), can_list=True, looked_up=[None])
        assert driver.run(submission(driver, resubmits=resubmits).attach_or_submit()).id == ID
        assert driver.steps == ["save intent", "create", "look up", "save", "save intent", "create", "save"]
        assert driver.saved[1] is None

    @pytest.mark.parametrize("resubmits", [False, True])
    def test_where_the_list_does_not_tell_nothing_is_sent_again(self, resubmits: bool) -> None:
        driver = scripted(IN_DOUBT, can_list=True, looked_up=[OutcomeUnknown(LOST, START)])
        with pytest.raises(OutcomeUnknown):
            driver.run(submission(driver, resubmits=resubmits).attach_or_submit())
        assert driver.creates == 1
        assert driver.saved[-1] is not None
        assert driver.saved[-1].told

    def test_each_further_lost_answer_is_looked_up_as_well(self) -> None:
        driver = scripted(IN_DOUBT, IN_DOUBT, can_list=True, looked_up=[None, found("second")])
        assert driver.run(submission(driver, resubmits=True).attach_or_submit()).id == "second"
        assert driver.creates == len(driver.look_ups) == 2


class TestAnEarlierTry:
    """worker or triggerer dies at any point, retry, clear"""

    def test_an_intent_without_a_list_is_told_of_and_nothing_is_sent(self) -> None:
        driver = scripted()
        one = submission(driver)
        with pytest.raises(OutcomeUnknown):
            driver.run(one.attach_or_submit(record_of(one)))
        assert driver.steps == ["save"]
        assert driver.saved == [record_of(one, told=True)]

    @pytest.mark.parametrize(
        ("record", "resubmits"),
        [({"told": True, "generation": 2}, False), ({}, True), ({"fingerprint": "other"}, False)],
    )
    def test_an_intent_whose_risk_is_taken_or_that_is_of_another_input_is_sent_anew(
        self, record: dict[str, Any], resubmits: bool
    ) -> None:
        driver = scripted(told())
        one = submission(driver, resubmits=resubmits)
        assert driver.run(one.attach_or_submit(record_of(one, **record))).id == ID
        assert driver.steps == ["save intent", "create", "save"]
        assert "earlier create" in driver.script.log.warnings[0]

    def test_an_intent_that_was_told_of_is_not_sent_anew_by_a_retry(self) -> None:
        driver = scripted()
        one = submission(driver)
        with pytest.raises(OutcomeUnknown):
            driver.run(one.attach_or_submit(record_of(one, told=True)))
        assert driver.creates == 0

    def test_what_the_list_tells_of_an_intent_is_gone_on_with(self) -> None:
        driver = scripted(can_list=True, looked_up=[found("made")])
        one = submission(driver)
        assert driver.run(one.attach_or_submit(record_of(one))).id == "made"
        assert driver.steps == ["look up", "save"]
        assert driver.saved == [record_of(one, prediction_id="made")]

    def test_where_the_list_tells_that_an_intent_made_nothing_one_is_made(self) -> None:
        driver = scripted(told(), can_list=True, looked_up=[None])
        one = submission(driver)
        driver.run(one.attach_or_submit(record_of(one)))
        assert driver.steps == ["look up", "save", "save intent", "create", "save"]

    @pytest.mark.parametrize("record", [{}, {"told": True}, {"generation": 2}])
    def test_where_the_list_does_not_tell_of_an_intent_nothing_is_sent(self, record: dict[str, Any]) -> None:
        driver = scripted(can_list=True, looked_up=[OutcomeUnknown(LOST, START)])
        one = submission(driver, resubmits=True)
        with pytest.raises(OutcomeUnknown):
            driver.run(one.attach_or_submit(record_of(one, **record)))
        assert driver.creates == 0
        assert driver.saved == [record_of(one, **{**record, "told": True})]

    def test_a_person_who_was_told_and_cleared_the_task_is_asked_for_nothing_more(self) -> None:
        driver = scripted(told(), can_list=True, looked_up=[OutcomeUnknown(LOST, START)])
        one = submission(driver)
        assert driver.run(one.attach_or_submit(record_of(one, told=True, generation=2))).id == ID
        assert driver.steps == ["look up", "save intent", "create", "save"]
        assert "cleared" in driver.script.log.warnings[0]

    @pytest.mark.parametrize("answered", [told("processing"), SUCCEEDED])
    def test_its_prediction_is_gone_on_with(self, answered: Reply) -> None:
        driver = scripted(answered)
        one = submission(driver)
        assert driver.run(one.attach_or_submit(record_of(one, prediction_id=ID))).id == ID
        assert driver.creates == 0
        assert driver.saved == []

    def test_a_prediction_that_is_known_to_have_ended_is_not_asked_for(self) -> None:
        driver = scripted(told())
        one = submission(driver)
        ended = Prediction(id="old", status=PredictionStatus.CANCELED)
        assert driver.run(one.attach_or_submit(record_of(one, prediction_id="old"), ended)).id == ID
        assert driver.steps == ["save intent", "create", "save"]

    def test_its_prediction_of_another_input_is_canceled_before_a_new_one_is_made(self) -> None:
        driver = scripted(told("processing"), told("canceled"), told())
        one = submission(driver)
        driver.run(one.attach_or_submit(record_of(one, prediction_id=ID, fingerprint="other")))
        asked = [request.purpose for request in driver.script.requests]
        assert asked == [Purpose.GET, Purpose.CANCEL, Purpose.CREATE]

    def test_trouble_with_asking_for_its_prediction_sends_nothing(self) -> None:
        driver = scripted(answer(401, {"error": {"message": "wrong key"}}))
        one = submission(driver)
        with pytest.raises(CallFailed):
            driver.run(one.attach_or_submit(record_of(one, prediction_id=ID)))
        assert driver.creates == 0
        assert driver.saved == []

    def test_its_prediction_that_is_gone_is_made_anew_only_once_the_task_is_cleared(self) -> None:
        driver = scripted(then=TASK_NOT_EXIST)
        one = submission(driver)
        with pytest.raises(CallFailed) as failed:
            driver.run(one.attach_or_submit(record_of(one, prediction_id=ID)))
        assert failed.value.failure.reason is Reason.NOT_FOUND
        assert driver.creates == 0

        driver = scripted(*[TASK_NOT_EXIST] * DOUBTFUL_LIMIT, told())
        one = submission(driver, generation=4)
        assert driver.run(one.attach_or_submit(record_of(one, prediction_id=ID))).id == ID
        assert driver.creates == 1


class TestATryWithoutRecord:
    def test_a_gateway_without_a_list_is_not_searched(self) -> None:
        driver = scripted(told())
        driver.run(submission(driver, unrecorded_since=START - 50).attach_or_submit())
        assert driver.steps == ["save intent", "create", "save"]

    def test_a_list_that_cannot_be_read_sends_nothing(self) -> None:
        driver = scripted(answer(403, {"detail": "no"}), can_list=True)
        with pytest.raises(CallFailed):
            driver.run(submission(driver, unrecorded_since=START - 50).attach_or_submit())
        assert driver.creates == 0

    def test_an_empty_list_lets_one_be_made(self) -> None:
        driver = scripted(answer(200, {"results": [], "next": None}), told(), can_list=True)
        driver.run(submission(driver, unrecorded_since=START - 50).attach_or_submit())
        assert driver.creates == 1


def test_only_what_comes_before_a_create_is_an_intent() -> None:
    one = submission(scripted())
    assert Save(record_of(one)).is_intent
    assert not Save(record_of(one, prediction_id=ID)).is_intent
    assert not Save(record_of(one, told=True)).is_intent
    assert not Save(None).is_intent


class TestAnInputWithPictures:
    INPUT = {**BOAT, "image": {"path": "/data/boat.png", "sha256": "ab" * 32}}

    def given(self, driver: Driver, sent: list[Any], **options: Any) -> Submission:
        def request(what: Mapping[str, Any]) -> Request:
            sent.append(what)
            return create_request(driver.script.talk.gateway)

        return submission(driver, input=self.INPUT, request=request, **options)

    def test_it_is_prepared_once_before_the_intent_which_names_what_is_sent(self) -> None:
        sent: list[Any] = []
        driver = scripted(Late(5, IN_DOUBT), told())
        driver.run(self.given(driver, sent, resubmits=True).attach_or_submit())
        assert driver.steps == ["prepare", "save intent", "create", "save intent", "create", "save"]
        assert sent == [{**BOAT, "image": "https://signed"}] * 2
        names = {record.sent_as for record in driver.saved if record is not None}
        assert len(names) == 1
        assert "" not in names
        assert "signed" not in str(driver.saved)

    def test_what_cannot_be_prepared_is_not_sent_and_leaves_no_intent(self) -> None:
        driver = scripted(on_prepare=failing)
        with pytest.raises(OSError, match="no such bucket"):
            driver.run(self.given(driver, []).attach_or_submit())
        assert driver.steps == ["prepare"]
        assert driver.saved == []

    def test_a_prediction_of_an_earlier_try_needs_no_picture(self) -> None:
        driver = scripted(told())
        made = self.given(driver, [])
        record = SubmissionRecord(
            fingerprint=made.fingerprint, generation=3, try_number=1, sent_at=START, prediction_id=ID
        )
        driver.run(made.attach_or_submit(record))
        assert "prepare" not in driver.steps
        assert driver.creates == 0

    def test_where_the_picture_lies_makes_no_difference(self) -> None:
        driver = scripted()
        moved = {**self.INPUT, "image": {**self.INPUT["image"], "path": "/elsewhere/boat.png", "width": 9}}
        assert submission(driver, input=moved).fingerprint == self.given(driver, []).fingerprint


def failing(_: Prepare) -> Mapping[str, Any]:
    raise OSError("no such bucket")
