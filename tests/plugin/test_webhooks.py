"""Gateways' calls over real sockets, at the API server's own application."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import uvicorn
from airflow.sdk import DAG, Asset
from airflow.sdk import task as airflow_task

from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.emulator.webhooks import signature
from airflow_provider_flux.exceptions import FluxConnectionError
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.plugin import webhook_receiver
from airflow_provider_flux.plugin.prediction_events import PredictionEvents
from airflow_provider_flux.plugin.webhook_proof import is_own
from airflow_provider_flux.protocol.webhook_addresses import asset_uri, shared_secret, url_token
from tests.conftest import HOME, KEY, Connect
from tests.on_airflow.runs import _store

SCHNELL = "black-forest-labs/flux-schnell"
CONNECTIONS = 80
MARK = "chosen-by-a-stranger"
GATEWAYS = {
    "Replicate": ("replicate", SCHNELL),
    "BFL": ("bfl", "flux-2-pro"),
    "DeerAPI": ("deerapi", SCHNELL),
    "DeerAPI in BFL's style": ("deerapi", "flux-2-pro"),
}


@pytest.fixture(scope="module")
def api_server(airflow_db: None) -> Iterator[str]:
    """The API server, and DAGs that are scheduled on the predictions of some connections."""
    from airflow.api_fastapi.app import cached_app, purge_cached_app

    with DAG("on_predictions", schedule=[Asset(asset_uri(f"flux_{name}")) for name in range(CONNECTIONS)]) as dag:

        @airflow_task
        def look() -> None: ...

        look()
    _store(dag)
    purge_cached_app()
    server = uvicorn.Server(uvicorn.Config(cached_app(), port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()
    purge_cached_app()


@pytest.fixture(autouse=True)
def no_connection_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_receiver, "_receivers", webhook_receiver.Receivers())
    monkeypatch.setattr(webhook_receiver, "LOOKS", (0.0, 0.1, 0.3))


_connections = iter(range(CONNECTIONS))


@pytest.fixture
def conn_id(api_server: str, emulator: Emulator, connect: Connect) -> Callable[..., str]:
    """Define a connection of a gateway, and return its id."""

    def define(gateway: str, **extra: Any) -> str:
        passwords = json.loads((HOME / "passwords.json").read_text("utf-8"))
        name = f"flux_{next(_connections)}"
        login = {"airflow_user": "admin", "airflow_password": passwords["admin"]}
        return connect(emulator.url, conn_id=name, gateway=gateway, webhook_base_url=api_server, **{**login, **extra})

    return define


def events(name: str) -> list[dict[str, Any]]:
    """Return what the events of a connection's asset tell."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        query = select(AssetEvent.extra).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
        return list(session.scalars(query.where(AssetModel.uri == asset_uri(name))))


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def call(name: str, api_server: str, payload: Any, *, token: str = "", **headers: str) -> int:
    url = f"{api_server}/flux/webhooks/{name}"
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return requests.post(url, data=body, params={"token": token}, headers=headers, timeout=20).status_code


def signed(secret: str, payload: Any, *, at: float | None = None) -> dict[str, str]:
    """Return the headers with which Replicate signs."""
    timestamp = str(int(time.time() if at is None else at))
    text = signature(secret, "msg_1", timestamp, json.dumps(payload).encode())
    return {"webhook-id": "msg_1", "webhook-timestamp": timestamp, "webhook-signature": text}


def ended(prediction_id: str = "aaaaaaaaaaaaaaaaaaaaaaaaaa", **more: Any) -> dict[str, Any]:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    output = "https://replicate.delivery/a/out-0.webp"
    return {
        "id": prediction_id,
        "model": SCHNELL,
        "status": "succeeded",
        "input": {"prompt": "a teapot"},
        "output": [output],
        "created_at": now,
        "completed_at": now,
        **more,
    }


@pytest.mark.parametrize("name", GATEWAYS)
def test_a_prediction_that_ends_becomes_one_asset_event(
    name: str, emulator: Emulator, conn_id: Callable[..., str]
) -> None:
    """a webhook"""
    gateway, model = GATEWAYS[name]
    conn = conn_id(gateway)
    hook = FluxHook(conn)

    made = hook.create_prediction(model, {"prompt": "a teapot", "seed": 3}, webhook="auto")
    wait_for(lambda: bool(events(conn)))
    wait_for(lambda: all(seen["status"] == 200 for seen in emulator.webhooks))

    (facts,) = events(conn)
    assert (facts["id"], facts["status"], facts["flux_conn_id"]) == (made.id, "succeeded", conn)
    assert facts["gateway"] == gateway
    assert facts["outputs"]
    assert facts["outputs"] == list(hook.get_prediction(made.id).outputs)
    # Nobody signs for the gateways, so that their prediction is asked for; what is signed is believed.
    asked = [seen for seen in emulator.requests if seen.kind == "get"]
    assert (len(asked) > 1) is (gateway == "deerapi")
    assert (emulator.posts, emulator.accepted) == (1, 1)
    assert KEY not in json.dumps(facts)
    assert url_token(KEY, conn) not in json.dumps(facts)


@pytest.mark.parametrize("outcome", ["E005", "canceled", "aborted"])
def test_a_prediction_that_ends_otherwise_is_told_of_too(
    outcome: str, emulator: Emulator, conn_id: Callable[..., str]
) -> None:
    emulator.add_outcome(outcome)
    conn = conn_id("replicate")
    FluxHook(conn).create_prediction(SCHNELL, {"prompt": "a teapot"}, webhook="auto")
    wait_for(lambda: bool(events(conn)))
    (facts,) = events(conn)
    assert facts["status"] == {"E005": "failed"}.get(outcome, outcome)
    assert facts["outputs"] == []


def test_a_call_that_comes_again_and_again_makes_one_event(
    api_server: str, emulator: Emulator, conn_id: Callable[..., str]
) -> None:
    conn, payload = conn_id("replicate"), ended()
    headers = signed(emulator.webhook_secret, payload)
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda _: call(conn, api_server, payload, **headers), range(200)))
    assert set(answers) == {200}
    wait_for(lambda: bool(events(conn)))
    # Another process of the API server knows of it as well.
    webhook_receiver._receivers = webhook_receiver.Receivers()
    assert call(conn, api_server, payload, **headers) == 200
    time.sleep(0.3)
    assert len(events(conn)) == 1
    # The secret was asked for once for each process, and nothing else was.
    assert {seen.path for seen in emulator.requests} == {"/v1/webhooks/default/secret"}
    assert len(emulator.requests) == 2


def replicates_other(secret: str) -> dict[str, str]:
    return signed("whsec_" + base64.b64encode(b"another secret").decode(), ended())


BAD: dict[str, Callable[[str], dict[str, str]]] = {
    "no signature": lambda secret: {},
    "a signature of another secret": replicates_other,
    "a signature of another body": lambda secret: signed(secret, ended(id="bbbbbbbbbbbbbbbbbbbbbbbbbb")),
    "a replay of six minutes ago": lambda secret: signed(secret, ended(), at=time.time() - 360),
    "a time to come": lambda secret: signed(secret, ended(), at=time.time() + 360),
    "no time": lambda secret: {**signed(secret, ended()), "webhook-timestamp": ""},
    "a time that is none": lambda secret: {**signed(secret, ended()), "webhook-timestamp": MARK},
    "another version": lambda secret: {**signed(secret, ended()), "webhook-signature": "v2,AAAA"},
    "noise": lambda secret: {**signed(secret, ended()), "webhook-signature": f"{MARK},,, v1 v1,{MARK}"},
}


@pytest.mark.parametrize("name", BAD)
def test_what_replicate_has_not_signed_is_refused_without_a_word(
    name: str, api_server: str, emulator: Emulator, conn_id: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    conn = conn_id("replicate")
    caplog.set_level(logging.DEBUG)
    payload = ended(prompt=MARK)
    headers = BAD[name](emulator.webhook_secret)
    if name == "a signature of another body":
        payload = ended(id=MARK)
    assert call(conn, api_server, payload, **headers) == 401
    assert events(conn) == []
    assert MARK not in "".join(
        record.getMessage() for record in caplog.records if record.name.startswith("airflow_provider_flux")
    )
    assert {seen.kind for seen in emulator.requests} <= {"other"}


@pytest.mark.parametrize("gateway", ["deerapi", "cometapi", "custom"])
@pytest.mark.parametrize("token", ["", "wrong", "of another connection", "of another key"])
def test_without_the_token_nothing_is_asked_of_a_gateway(
    gateway: str, token: str, api_server: str, emulator: Emulator, conn_id: Callable[..., str]
) -> None:
    conn = conn_id(gateway)
    given = {"of another connection": url_token(KEY, "other"), "of another key": url_token("k", conn)}.get(token, token)
    made = FluxHook(conn).create_prediction(SCHNELL, {"prompt": "a teapot"})
    before = len(emulator.requests)
    assert call(conn, api_server, ended(made.id), token=given) == 401
    time.sleep(0.1)
    assert len(emulator.requests) == before
    assert events(conn) == []


@pytest.mark.parametrize("name", ["nowhere", "flux%0aforged", "a" * 300, "..", "flux_0%2f..%2fx"])
def test_a_connection_that_is_not_there_looks_like_a_wrong_signature(name: str, api_server: str) -> None:
    assert call(name, api_server, ended()) in (401, 404, 405)


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[" * 100_000, 400),
        (b"null", 200),
        (b"[]", 200),
        (b'"text"', 200),
        ({}, 200),
        ({"id": None}, 200),
        ({"id": "../../x"}, 200),
        ({"id": ["a"]}, 200),
        (b"x" * (webhook_receiver.LARGEST_CALL + 1), 413),
    ],
)
def test_odd_bodies_bring_nothing_down(
    payload: Any, status: int, api_server: str, emulator: Emulator, conn_id: Callable[..., str]
) -> None:
    conn = conn_id("deerapi")
    assert call(conn, api_server, payload, token=url_token(KEY, conn)) == status
    time.sleep(0.05)
    assert events(conn) == []


def test_a_body_of_no_told_length_is_cut_off(api_server: str, conn_id: Callable[..., str]) -> None:
    conn = conn_id("deerapi")

    def endless() -> Iterator[bytes]:
        for _ in range(64):
            yield b"x" * 65536

    answer = requests.post(f"{api_server}/flux/webhooks/{conn}", data=endless(), timeout=20)
    assert answer.status_code == 413


@pytest.mark.parametrize("status", ["starting", "processing", "hibernating"])
def test_calls_about_predictions_that_run_are_taken_and_dropped(
    status: str, api_server: str, emulator: Emulator, conn_id: Callable[..., str]
) -> None:
    conn, payload = conn_id("replicate"), ended(status=status, output=None, completed_at=None)
    assert call(conn, api_server, payload, **signed(emulator.webhook_secret, payload)) == 200
    time.sleep(0.1)
    assert events(conn) == []


def test_a_call_about_a_prediction_of_somebody_else_makes_no_event(
    api_server: str, emulator: Emulator, conn_id: Callable[..., str]
) -> None:
    conn = conn_id("deerapi")
    assert call(conn, api_server, ended(), token=url_token(KEY, conn)) == 200
    wait_for(lambda: sum(1 for seen in emulator.requests if seen.kind == "get") >= 3)
    time.sleep(0.1)
    assert events(conn) == []


def test_a_call_that_comes_a_day_late_makes_no_event(
    api_server: str, emulator: Emulator, conn_id: Callable[..., str]
) -> None:
    conn, payload = conn_id("replicate"), ended(completed_at="2026-01-01T00:00:00Z")
    assert call(conn, api_server, payload, **signed(emulator.webhook_secret, payload)) == 200
    time.sleep(0.2)
    assert events(conn) == []


def test_the_last_event_of_a_burst_waits_until_the_scheduler_has_taken_the_others(
    api_server: str, emulator: Emulator, conn_id: Callable[..., str]
) -> None:
    from airflow.models.asset import AssetDagRunQueue
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session
    from sqlalchemy import delete, update

    def pause(is_paused: bool) -> None:
        with create_session() as session:
            session.execute(update(DagModel).where(DagModel.dag_id == "on_predictions").values(is_paused=is_paused))

    def tell(letter: str) -> None:
        payload = ended(letter * 26)
        assert call(conn, api_server, payload, **signed(emulator.webhook_secret, payload)) == 200

    conn = conn_id("replicate")
    pause(False)
    try:
        tell("a")
        wait_for(lambda: len(events(conn)) == 1)
        tell("b")
        time.sleep(0.5)
        assert len(events(conn)) == 1
        tell("c")
        wait_for(lambda: len(events(conn)) == 2)
        time.sleep(0.5)
        assert len(events(conn)) == 2
        with create_session() as session:
            session.execute(delete(AssetDagRunQueue))
        wait_for(lambda: len(events(conn)) == 3)
    finally:
        pause(True)
        with create_session() as session:
            session.execute(delete(AssetDagRunQueue))
    assert [event["id"][0] for event in events(conn)] == ["a", "b", "c"]


def test_a_flood_of_strangers_leaves_room_for_a_real_call(
    api_server: str, emulator: Emulator, conn_id: Callable[..., str]
) -> None:
    conn, payload = conn_id("replicate"), ended()
    assert call(conn, api_server, payload) == 401
    with ThreadPoolExecutor(32) as threads:
        flood = threads.map(
            lambda number: call(conn if number % 2 else f"no{number}", api_server, payload), range(1000)
        )
        assert call(conn, api_server, payload, **signed(emulator.webhook_secret, payload)) == 200
        assert set(flood) == {401}
    wait_for(lambda: bool(events(conn)))
    assert len(events(conn)) == 1
    assert len(webhook_receiver._receivers._kept) <= webhook_receiver.MOST_KEPT


def test_where_airflow_refuses_the_gateway_is_told_to_come_again(
    api_server: str, emulator: Emulator, conn_id: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    conn, payload = conn_id("replicate", airflow_password="wrong-and-secret"), ended()
    assert call(conn, api_server, payload, **signed(emulator.webhook_secret, payload)) == 500
    assert events(conn) == []
    assert (
        f"A call about prediction {payload['id']} of connection {conn} could not be made an asset event" in caplog.text
    )
    assert "wrong-and-secret" not in caplog.text


def test_where_the_secret_cannot_be_had_the_gateway_is_told_to_come_again(
    api_server: str, emulator: Emulator, conn_id: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_receiver, "KEPT", 0.1)
    emulator.add_fault("401", on="other", times=1)
    conn, payload = conn_id("replicate"), ended()
    headers = signed(emulator.webhook_secret, payload)
    assert call(conn, api_server, payload, **headers) == 503
    time.sleep(0.15)
    assert call(conn, api_server, payload, **headers) == 200


def test_strangers_do_not_have_a_gateway_that_is_out_asked_for_its_secret_over_and_over(
    api_server: str, emulator: Emulator, conn_id: Callable[..., str]
) -> None:
    emulator.add_fault("401", on="other", times=None)
    conn, payload = conn_id("replicate"), ended()
    assert {call(conn, api_server, payload) for _ in range(20)} == {401}
    assert emulator.counters.requests == 0
    assert {call(conn, api_server, payload, **signed("whsec_AAAA", payload)) for _ in range(20)} == {503}
    assert emulator.counters.requests == 1


def test_a_secret_that_has_changed_is_asked_for_again(
    api_server: str, emulator: Emulator, conn_id: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_receiver, "SECRET_LIFE", 0.1)
    conn, payload = conn_id("replicate"), ended()
    assert call(conn, api_server, payload, **signed(emulator.webhook_secret, payload)) == 200
    emulator._state.webhook_secret = "whsec_" + base64.b64encode(b"another secret").decode()
    time.sleep(0.15)
    assert call(conn, api_server, payload, **signed(emulator.webhook_secret, payload)) == 200


def test_while_airflow_cannot_tell_of_a_connection_the_gateway_is_told_to_come_again(
    api_server: str, emulator: Emulator, conn_id: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def out(_: str) -> Any:
        raise RuntimeError("the database is out")

    conn, payload = conn_id("replicate"), ended()
    headers = signed(emulator.webhook_secret, payload)
    with monkeypatch.context() as broken:
        broken.setattr(webhook_receiver, "find_connection", out)
        assert call(conn, api_server, payload, **headers) == 503
    assert call(conn, api_server, payload, **headers) == 200


def test_what_fails_after_the_answer_is_tried_again(
    api_server: str, emulator: Emulator, conn_id: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = PredictionEvents.record
    tries: list[int] = []

    async def fail_twice(events: PredictionEvents, facts: Any) -> None:
        await asyncio.sleep(0.05)
        tries.append(1)
        if len(tries) < 3:
            raise RuntimeError("the database is out")
        await record(events, facts)

    monkeypatch.setattr(PredictionEvents, "record", fail_twice)
    monkeypatch.setattr(webhook_receiver, "ANSWER_WITHIN", 0.0)
    monkeypatch.setattr(webhook_receiver, "AGAIN_AFTER", (0.1, 0.1, 0.1))
    conn, payload = conn_id("replicate"), ended()
    assert call(conn, api_server, payload, **signed(emulator.webhook_secret, payload)) == 200
    wait_for(lambda: len(events(conn)) == 1)
    time.sleep(0.3)
    assert (len(tries), webhook_receiver._receivers._under_way) == (3, {})


def test_a_token_of_airflows_that_has_run_out_is_replaced(
    api_server: str, emulator: Emulator, conn_id: Callable[..., str]
) -> None:
    conn = conn_id("replicate")
    for letter in "ab":
        payload = ended(letter * 26)
        assert call(conn, api_server, payload, **signed(emulator.webhook_secret, payload)) == 200
        wait_for(lambda at=letter: [event["id"][0] for event in events(conn)][-1:] == [at])  # type: ignore[misc]
        _, receiver = webhook_receiver._receivers._kept[conn]
        assert receiver is not None
        receiver.events._token = "run-out"


def test_an_id_that_could_not_be_received_is_refused_before_anything_is_sent(
    emulator: Emulator, connect: Connect
) -> None:
    connect(emulator.url, conn_id="team/flux", gateway="deerapi", webhook_base_url="https://airflow.example.com")
    with pytest.raises(FluxConnectionError, match="may have letters, digits"):
        FluxHook("team/flux").create_prediction(SCHNELL, {"prompt": "x"}, webhook="auto")
    assert emulator.posts == 0


@pytest.mark.parametrize("kind", ["signature", "plain signature", "echo", "wrong", "none"])
def test_bfls_calls_are_known_by_the_secret_that_was_given_to_it(kind: str, connect: Connect) -> None:
    connect("https://api.bfl.ai")
    access, body = FluxHook().access, b'{"id": "x"}'
    secret = shared_secret(KEY, "flux_default")
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    header = {"signature": f"sha256={digest}", "plain signature": digest, "echo": secret, "wrong": "sha256=00"}.get(
        kind
    )
    headers = {} if header is None else {"x-bfl-signature": header}
    assert is_own(access, secret, body, headers, "") is (kind not in ("wrong", "none"))


def test_the_known_signature_of_replicates_own_tests_is_accepted(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vector of both SDKs' tests (gateway-api.md, 4.1), at the time at which it was made."""
    import datetime as real

    from standardwebhooks import webhooks

    class Then(real.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> real.datetime:
            return real.datetime.fromtimestamp(1614265330, tz)

    monkeypatch.setattr(webhooks, "datetime", Then)
    connect("https://api.replicate.com")
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    assert is_own(FluxHook().access, secret, body, headers, "")
    assert not is_own(FluxHook().access, secret, body + b" ", headers, "")


@pytest.mark.parametrize(("gateway", "has_token"), [("replicate", False), ("bfl", False), ("deerapi", True)])
def test_the_url_of_calls_has_a_token_where_nothing_is_signed(gateway: str, has_token: bool, connect: Connect) -> None:
    connect("https://gateway.example", gateway=gateway, webhook_base_url="https://airflow.example.com/team/")
    url = urlsplit(FluxHook().webhook_url())
    assert url.geturl().startswith("https://airflow.example.com/team/flux/webhooks/flux_default")
    assert (url.query == f"token={url_token(KEY, 'flux_default')}") is has_token
    assert bool(url.query) is has_token


def test_without_a_base_url_nothing_is_sent_and_the_error_says_what_to_set(
    emulator: Emulator, connect: Connect
) -> None:
    connect(emulator.url, gateway="deerapi")
    with pytest.raises(FluxConnectionError, match="set webhook_base_url in its extra"):
        FluxHook().create_prediction(SCHNELL, {"prompt": "x"}, webhook="auto")
    assert emulator.posts == 0
