"""The hook against the emulator, over real sockets."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import (
    AirflowFailException,
    FluxConnectionError,
    FluxGatewayError,
    FluxInputError,
    FluxRefusedError,
    FluxSubmissionUnknownError,
)
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.protocol import lookup
from airflow_provider_flux.protocol.prediction import PredictionStatus
from tests.conftest import KEY, Connect
from tests.servers import EchoingServer, TricklingServer

SCHNELL = "black-forest-labs/flux-schnell"
PRO = "black-forest-labs/flux-1.1-pro"
BOAT = {"prompt": "A paper boat floating on calm water at sunrise.", "aspect_ratio": "1:1"}


@pytest.fixture(params=["custom", "deerapi", "cometapi", "replicate"])
def gateway(request: pytest.FixtureRequest, emulator: Emulator, connect: Connect) -> str:
    """A connection to the emulator in the manner of each gateway."""
    name: str = request.param
    connect(emulator.url, gateway=name)
    return name


@pytest.fixture
def replicate(emulator: Emulator, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> FluxHook:
    monkeypatch.setattr(lookup, "LOOKS_AFTER", (0.05, 0.1, 0.5))
    connect(emulator.url, gateway="replicate", read_timeout=0.5)
    return FluxHook()


@pytest.fixture
def deerapi(emulator: Emulator, connect: Connect) -> FluxHook:
    connect(emulator.url, gateway="deerapi", read_timeout=0.5)
    return FluxHook()


def soon(seconds: float = 5.0) -> float:
    return time.time() + seconds


@pytest.mark.usefixtures("gateway")
def test_a_prediction_is_made_once_and_waited_for_on_every_gateway(emulator: Emulator) -> None:
    hook = FluxHook()
    made = hook.create_prediction(SCHNELL, BOAT)
    ended = hook.wait_for_prediction(made.id, model=SCHNELL, deadline=soon(20))

    assert ended is not None
    assert ended.status is PredictionStatus.SUCCEEDED
    assert len(ended.outputs) == 1
    assert (emulator.posts, emulator.accepted, emulator.cancels) == (1, 1, 0)
    assert emulator.predictions[0].input == BOAT
    assert emulator.foreign_requests_with_authorization == 0


@pytest.mark.parametrize("shape", ["prediction", "envelope", "bfl"])
def test_every_documented_shape_of_an_answer_is_read(emulator: Emulator, deerapi: FluxHook, shape: str) -> None:
    """response of the wrong shape, bare prediction, task envelope, BFL shape"""
    emulator.settings(shape=shape)
    made = deerapi.create_prediction(PRO, BOAT)
    ended = deerapi.wait_for_prediction(made.id, deadline=soon(20))

    assert ended is not None
    assert (ended.id, ended.status, len(ended.outputs)) == (made.id, PredictionStatus.SUCCEEDED, 1)


def test_an_answer_of_the_wrong_shape_is_an_error_with_a_shortened_body(emulator: Emulator, deerapi: FluxHook) -> None:
    """response of the wrong shape, bare prediction, task envelope, BFL shape"""
    emulator.add_fault("huge_body", on="create")
    with pytest.raises(FluxGatewayError) as caught:
        deerapi.create_prediction(PRO, BOAT, deadline=soon(1))
    assert len(str(caught.value)) < 2500


def test_bad_input_for_a_known_model_is_refused_before_anything_is_sent(emulator: Emulator, deerapi: FluxHook) -> None:
    """bad input for a known model"""
    with pytest.raises(
        FluxInputError, match=r"output_format: 'jpeg'.*allowed: webp, jpg, png.*did you mean jpg"
    ) as caught:
        deerapi.create_prediction(SCHNELL, {**BOAT, "output_format": "jpeg"})
    assert isinstance(caught.value, AirflowFailException)
    assert emulator.counters.requests == 0


def test_an_unknown_field_is_a_warning_that_names_the_nearest_one(
    emulator: Emulator, deerapi: FluxHook, capsys: pytest.CaptureFixture[str]
) -> None:
    deerapi.create_prediction(SCHNELL, {**BOAT, "output_fromat": "png"})
    assert emulator.accepted == 1
    assert "did you mean output_format?" in capsys.readouterr().out


def test_validation_can_be_turned_off(emulator: Emulator, deerapi: FluxHook) -> None:
    with pytest.raises(FluxRefusedError, match="422"):
        deerapi.create_prediction(SCHNELL, {**BOAT, "num_outputs": 99}, validate_input=False)
    assert (emulator.posts, emulator.accepted) == (1, 0)


@pytest.mark.parametrize("fault", ["429_header", "429_date", "429_body", "429_text", "429_upstream", "429"])
def test_a_throttled_create_is_sent_again_until_it_is_accepted_once(
    emulator: Emulator, deerapi: FluxHook, fault: str
) -> None:
    """POST: connection never made, or 429"""
    emulator.add_fault(fault, on="create", times=2, retry_after=0.1)
    deerapi.create_prediction(SCHNELL, BOAT, deadline=soon(30))
    assert (emulator.posts, emulator.accepted) == (3, 1)


def test_a_throttling_that_outlasts_the_deadline_fails_at_once(emulator: Emulator, deerapi: FluxHook) -> None:
    """POST: connection never made, or 429"""
    emulator.add_fault("429_header", on="create", retry_after=600)
    with pytest.raises(FluxGatewayError, match="429") as caught:
        deerapi.create_prediction(SCHNELL, BOAT, deadline=soon(5))
    assert not isinstance(caught.value, AirflowFailException)
    assert (emulator.posts, emulator.accepted) == (1, 0)


def test_a_connection_that_is_never_made_is_tried_again_until_the_deadline(connect: Connect) -> None:
    """POST: connection never made, or 429"""
    connect("http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(FluxGatewayError, match="no connection could be made") as caught:
        FluxHook().create_prediction(SCHNELL, BOAT, deadline=soon(2))
    assert not isinstance(caught.value, FluxSubmissionUnknownError)
    assert time.monotonic() - started < 20


LOST = [
    "hang_after_accept",
    "reset_after_accept",
    "truncated_after_accept",
    "cut_body_after_accept",
    "500_after_accept",
    "502_after_accept",
    "503_after_accept",
    "504_after_accept",
    "524_after_accept",
    "wrong_shape_after_accept",
    "empty_after_accept",
]


@pytest.mark.parametrize("fault", LOST)
def test_a_create_of_unknown_outcome_is_never_sent_again_on_its_own(
    emulator: Emulator, deerapi: FluxHook, fault: str
) -> None:
    """POST: read timeout, reset, 5xx after sending"""
    emulator.add_fault(fault, on="create")
    with pytest.raises(FluxSubmissionUnknownError, match="may have been accepted") as caught:
        deerapi.create_prediction(SCHNELL, BOAT)
    assert isinstance(caught.value, AirflowFailException)
    assert "resubmit" in str(caught.value)
    assert (emulator.posts, emulator.accepted) == (1, 1)


@pytest.mark.parametrize("fault", LOST)
def test_replicate_is_searched_for_the_prediction_of_a_lost_answer(
    emulator: Emulator, replicate: FluxHook, fault: str
) -> None:
    """POST: read timeout, reset, 5xx after sending"""
    emulator.add_fault(fault, on="create")
    found = replicate.create_prediction(SCHNELL, BOAT)
    assert found.id == emulator.predictions[0].id
    assert (emulator.posts, emulator.accepted) == (1, 1)


def test_a_prediction_that_replicate_does_not_list_after_a_while_is_made_anew(
    emulator: Emulator, replicate: FluxHook
) -> None:
    """POST: read timeout, reset, 5xx after sending"""
    emulator.add_fault("500", on="create", times=1)
    assert replicate.create_prediction(SCHNELL, BOAT)
    assert (emulator.posts, emulator.accepted) == (2, 1)


def test_a_prediction_that_replicate_does_not_list_by_the_deadline_stays_unknown(
    emulator: Emulator, replicate: FluxHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """POST: read timeout, reset, 5xx after sending"""
    monkeypatch.setattr(lookup, "LOOKS_AFTER", (0.05, 60.0))
    monkeypatch.setattr(lookup, "GRACE", 0.2)
    emulator.add_fault("500", on="create", times=1)
    with pytest.raises(FluxSubmissionUnknownError, match="list of predictions did not settle it") as caught:
        replicate.create_prediction(SCHNELL, BOAT, deadline=soon(1))
    assert "on_unknown_submission" not in str(caught.value)
    assert (emulator.posts, emulator.accepted) == (1, 0)


def test_of_two_predictions_that_could_be_meant_neither_is_taken(emulator: Emulator, replicate: FluxHook) -> None:
    """POST: read timeout, reset, 5xx after sending"""
    replicate.create_prediction(SCHNELL, BOAT)
    emulator.add_fault("reset_after_accept", on="create")
    with pytest.raises(FluxSubmissionUnknownError):
        replicate.create_prediction(SCHNELL, BOAT)
    assert (emulator.posts, emulator.accepted) == (2, 2)


def test_the_caller_may_choose_to_send_an_unknown_create_once_more(emulator: Emulator, deerapi: FluxHook) -> None:
    """POST: read timeout, reset, 5xx after sending"""
    emulator.add_fault("reset_after_accept", on="create", times=1)
    made = deerapi.create_prediction(SCHNELL, BOAT, on_unknown_submission="resubmit")
    assert (emulator.posts, emulator.accepted) == (2, 2)
    assert made.id == emulator.predictions[-1].id


def test_even_then_it_is_sent_twice_at_most(emulator: Emulator, deerapi: FluxHook) -> None:
    """POST: read timeout, reset, 5xx after sending"""
    emulator.add_fault("reset_after_accept", on="create", times=5)
    with pytest.raises(FluxSubmissionUnknownError):
        deerapi.create_prediction(SCHNELL, BOAT, on_unknown_submission="resubmit")
    assert (emulator.posts, emulator.accepted) == (2, 2)


@pytest.mark.parametrize(
    "fault",
    ["400", "401", "402", "403", "403_quota", "404", "413", "422", "500_invalid_request", "503_model_not_found"],
)
def test_a_permanent_refusal_fails_at_once_with_the_gateways_words(
    emulator: Emulator, deerapi: FluxHook, fault: str
) -> None:
    """POST: 503 `model_not_found`, 500 `invalid_request`, 400/401/402/403/404/413/422"""
    emulator.add_fault(fault, on="create")
    with pytest.raises(FluxRefusedError) as caught:
        deerapi.create_prediction(SCHNELL, BOAT)
    assert isinstance(caught.value, AirflowFailException)
    assert caught.value.failure.message
    assert caught.value.failure.message in str(caught.value)
    assert caught.value.failure.request_id in str(caught.value)
    assert (emulator.posts, emulator.accepted) == (1, 0)


@pytest.mark.parametrize("fault", ["redirect", "redirect_302", "redirect_307", "html"])
def test_a_redirect_or_a_page_is_refused_as_a_wrong_base_url(emulator: Emulator, deerapi: FluxHook, fault: str) -> None:
    """redirect from the API, HTML where JSON is due"""
    emulator.add_fault(fault, on="create")
    with pytest.raises(FluxRefusedError, match="Wrong base URL"):
        deerapi.create_prediction(SCHNELL, BOAT)
    assert emulator.counters.requests == 1, "a redirect must not be followed"


@pytest.mark.parametrize(
    "fault", ["429_header", "500", "502", "503", "504", "524", "hang", "reset_before_accept", "html", "truncated_json"]
)
def test_trouble_with_a_poll_is_borne(
    emulator: Emulator, deerapi: FluxHook, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """GET: 429, 5xx, timeouts, resets, HTML"""
    made = deerapi.create_prediction(SCHNELL, BOAT)
    emulator.add_fault(fault, on="get", times=3, retry_after=0.1)
    ended = deerapi.wait_for_prediction(made.id, deadline=soon(60), poll_interval=0.05)
    assert ended is not None
    assert ended.status is PredictionStatus.SUCCEEDED
    told = capsys.readouterr().out
    assert told.count("polling goes on") == 1
    assert told.count("the gateway answers again") == 1


def test_a_prediction_that_stays_unknown_to_the_gateway_is_an_error(emulator: Emulator, deerapi: FluxHook) -> None:
    """GET: 404 or `task_not_exist` right after create"""
    made = deerapi.create_prediction(SCHNELL, BOAT)
    emulator.add_fault("404", on="get", times=3)
    ended = deerapi.wait_for_prediction(made.id, deadline=soon(60), poll_interval=0.01)
    assert ended is not None

    emulator.add_outcome("forgotten")
    lost = deerapi.create_prediction(SCHNELL, BOAT)
    with pytest.raises(FluxRefusedError, match="task_not_exist") as caught:
        deerapi.wait_for_prediction(lost.id, deadline=soon(600), poll_interval=0.01)
    assert lost.id in str(caught.value)


def test_an_unknown_status_is_logged_once_and_polled_on(
    emulator: Emulator, deerapi: FluxHook, capsys: pytest.CaptureFixture[str]
) -> None:
    """status `starting`, `processing`, or one nobody knows"""
    emulator.add_outcome("unknown_status")
    made = deerapi.create_prediction(SCHNELL, BOAT)
    last = deerapi.wait_for_prediction(made.id, deadline=soon(1.5), poll_interval=0.05)
    assert last is not None
    assert last.status is PredictionStatus.UNKNOWN
    assert capsys.readouterr().out.count("is not known; taken to be running") == 1
    assert emulator.gets > 3


def test_the_urls_of_an_answer_are_never_followed(emulator: Emulator, deerapi: FluxHook) -> None:
    """`urls.get`, `urls.cancel`, `urls.stream` in an answer"""
    made = deerapi.create_prediction(PRO, BOAT)
    deerapi.cancel_prediction(made.id)
    deerapi.get_prediction(made.id)
    assert [record.origin for record in emulator.requests] == ["gateway"] * 3


def test_replicate_lists_predictions_newest_first_over_pages(emulator: Emulator, connect: Connect) -> None:
    connect(emulator.url, gateway="replicate", requests_per_minute=60_000)
    replicate = FluxHook()
    made = [replicate.create_prediction(SCHNELL, BOAT).id for _ in range(105)]
    assert [prediction.id for prediction in replicate.list_predictions()] == made[::-1]
    assert emulator.counters.lists == 2


def test_a_gateway_without_a_list_says_so(deerapi: FluxHook) -> None:
    with pytest.raises(FluxConnectionError, match="does not list predictions"):
        next(deerapi.list_predictions())


def test_models_and_balance_are_read_without_a_post(emulator: Emulator, deerapi: FluxHook) -> None:
    assert SCHNELL in deerapi.models()
    assert deerapi.balance() == pytest.approx(100.0)
    assert emulator.posts == 0


class TestTheTestButton:
    """``test_connection`` is free of charge and tells what is wrong."""

    @pytest.mark.usefixtures("gateway")
    def test_it_accepts_a_right_key_without_a_post(self, emulator: Emulator) -> None:
        assert FluxHook().test_connection()[0] is True
        assert {record.method for record in emulator.requests} == {"GET"}

    @pytest.mark.parametrize("name", ["custom", "deerapi", "cometapi", "replicate"])
    def test_it_tells_a_wrong_key(self, emulator: Emulator, connect: Connect, name: str) -> None:
        connect(emulator.url, key="not-the-right-key", gateway=name)
        works, message = FluxHook().test_connection()
        assert not works
        assert "refuses the key" in message
        assert "not-the-right-key" not in message

    @pytest.mark.parametrize("name", ["custom", "deerapi", "cometapi", "replicate"])
    def test_it_tells_a_wrong_url(self, emulator: Emulator, connect: Connect, name: str) -> None:
        emulator.add_fault("html", on="any")
        connect(emulator.url, gateway=name)
        works, message = FluxHook().test_connection()
        assert not works
        assert "the URL is wrong" in message

    @pytest.mark.parametrize("name", ["custom", "deerapi", "cometapi"])
    def test_it_tells_a_wrong_path_although_the_key_is_right(
        self, emulator: Emulator, connect: Connect, name: str
    ) -> None:
        connect(f"{emulator.url}/api/v1", gateway=name)
        works, message = FluxHook().test_connection()
        assert not works
        assert "the URL is wrong" in message

    @pytest.mark.parametrize("name", ["custom", "deerapi", "cometapi", "replicate"])
    def test_it_tells_no_network(self, connect: Connect, name: str) -> None:
        connect("http://127.0.0.1:9", gateway=name)
        works, message = FluxHook().test_connection()
        assert not works
        assert "cannot be reached" in message

    def test_it_tells_a_connection_without_a_key(self, emulator: Emulator, connect: Connect) -> None:
        connect(emulator.url, key="")
        works, message = FluxHook().test_connection()
        assert not works
        assert "password field" in message


class TestTheKey:
    """the key"""

    def test_it_is_in_no_representation(self, emulator: Emulator, connect: Connect) -> None:
        connect(emulator.url)
        hook = FluxHook()
        assert KEY not in repr(hook.access)
        assert KEY not in repr(vars(hook))

    def test_a_netrc_cannot_replace_it(
        self, emulator: Emulator, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1\nlogin someone\npassword else\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        connect(emulator.url)
        FluxHook().create_prediction(SCHNELL, BOAT)
        assert emulator.requests[0].key_ok is True

    def test_a_gateway_that_repeats_it_in_an_error_does_not_bring_it_into_ours(self, connect: Connect) -> None:
        with EchoingServer() as url:
            connect(url)
            with pytest.raises(FluxRefusedError, match=r"Incorrect API key provided: \*\*\*") as caught:
                FluxHook().create_prediction(SCHNELL, BOAT)
            assert KEY not in FluxHook().test_connection()[1]
        assert KEY not in str(caught.value)

    @pytest.mark.parametrize("key", ["pasted-with\nnewline", "Bearer pasted-value", "pasté-value", "pasted value"])
    def test_one_that_no_header_can_carry_is_refused_without_being_shown(
        self, emulator: Emulator, connect: Connect, key: str
    ) -> None:
        connect(emulator.url, key=key)
        with pytest.raises(FluxConnectionError, match="Paste it again") as caught:
            FluxHook().create_prediction(SCHNELL, BOAT)
        assert key.strip() not in str(caught.value)


def test_a_proxy_that_is_down_means_that_nothing_was_sent(
    emulator: Emulator, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """POST: connection never made, or 429"""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    connect(emulator.url)
    with pytest.raises(FluxGatewayError) as caught:
        FluxHook().create_prediction(SCHNELL, BOAT, deadline=soon(1))
    assert not isinstance(caught.value, FluxSubmissionUnknownError)
    assert emulator.posts == 0


def test_an_answer_that_trickles_does_not_hold_a_worker_beyond_its_deadline(connect: Connect) -> None:
    """deadline (`timeout`, also `execution_timeout`)"""
    with TricklingServer() as url:
        connect(url, read_timeout=30)
        started = time.monotonic()
        assert FluxHook().wait_for_prediction("some-prediction", deadline=soon(2)) is None
        assert time.monotonic() - started < 10


@pytest.mark.parametrize("refusal", ["502_after_accept", "reset_after_accept", "failure_in_200_after_accept"])
def test_a_lost_prediction_is_not_mixed_up_with_an_older_one_that_failed(
    emulator: Emulator, replicate: FluxHook, refusal: str
) -> None:
    """POST: read timeout, reset, 5xx after sending"""
    emulator.add_outcome("NSFW", times=1)
    old = replicate.create_prediction(SCHNELL, BOAT)
    emulator.finish(old.id)
    emulator.add_fault(refusal, on="create")
    found = replicate.create_prediction(SCHNELL, BOAT)
    assert found.id == emulator.predictions[-1].id != old.id
    assert (emulator.posts, emulator.accepted) == (2, 2)


def test_cometapi_tells_its_prices(emulator: Emulator, connect: Connect) -> None:
    connect(emulator.url, gateway="cometapi")

    prices = FluxHook().price_list()

    assert prices["black-forest-labs/flux-schnell"].per_prediction > 0
    assert emulator.posts == 0


def test_a_gateway_without_a_price_list_says_so(emulator: Emulator, connect: Connect) -> None:
    connect(emulator.url, gateway="deerapi")

    with pytest.raises(FluxConnectionError, match="prices"):
        FluxHook().price_list()
