"""What went wrong x which way: what comes next, and what all of it has cost.

Three ways: a model at DeerAPI, another model there, and BFL itself. Those before the one that something happens to have
no channel.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from airflow_provider_flux.batch import ledger
from airflow_provider_flux.client import aio, sync
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import FluxError
from airflow_provider_flux.protocol import cancellation, lookup
from airflow_provider_flux.protocol.fallbacks import USUAL_CAUSES
from airflow_provider_flux.protocol.messages import Purpose
from tests.batch.task_instance import BatchTaskInstance, table
from tests.conftest import Connect
from tests.durable.task_instance import OperatorTaskInstance, WorkerDies

pytestmark = pytest.mark.money

ALL = ("unavailable", "credit", "failed", "refused_content", "deadline")
MODELS = ("black-forest-labs/flux-2-pro", "black-forest-labs/flux-1.1-pro", "flux-2-pro")
PATHS = (f"/replicate/v1/models/{MODELS[0]}/", f"/replicate/v1/models/{MODELS[1]}/", "/v1/flux-2-pro")


@dataclass(frozen=True, kw_only=True)
class What:
    """Something that happens to one way.

    :param cause: for what the next way is then taken; None if it never is.
    :param fault: what its create meets.
    :param outcome: how its prediction ends.
    :param posts: creates that have arrived.
    :param accepted: predictions that it has made.
    :param at_bfl: the cause at BFL itself, where that is another.
    """

    cause: str | None
    fault: str = ""
    outcome: str = ""
    posts: int = 1
    accepted: int = 0
    is_dead: bool = False
    at_bfl: str | None = ""


WHATS: dict[str, What] = {
    "no channel": What(cause="unavailable", fault="503_model_not_found"),
    "no such model": What(cause="unavailable", fault="404"),
    "a wrong key": What(cause="unavailable", fault="401"),
    "forbidden": What(cause="unavailable", fault="403"),
    "no credit": What(cause="credit", fault="402"),
    # BFL's words do not tell it from any other "forbidden".
    "no quota": What(cause="credit", fault="403_quota", at_bfl="unavailable"),
    "never reached": What(cause="unavailable", is_dead=True, posts=0),
    "a wrong input": What(cause=None, fault="422"),
    "a lost answer": What(cause=None, fault="reset_after_accept", accepted=1),
    "an error that says nothing": What(cause=None, fault="500"),
    "a redirect": What(cause=None, fault="redirect"),
    "a failure that may pass": What(cause="failed", outcome="PA", accepted=1),
    "out of memory": What(cause="failed", outcome="E1001", accepted=1),
    "refused content": What(cause="refused_content", outcome="E005", accepted=1),
    "aborted": What(cause="deadline", outcome="aborted", accepted=1, at_bfl="failed"),
    "canceled by somebody else": What(cause=None, outcome="canceled", accepted=1, at_bfl="failed"),
    # BFL cannot cancel, so that it may cost something yet.
    "our deadline": What(cause="deadline", outcome="stuck", accepted=1, at_bfl=None),
}

CELLS = [
    (name, at, on)
    for name, what in WHATS.items()
    for at in range(3)
    for on in ((USUAL_CAUSES,) if what.cause in (None, *USUAL_CAUSES) else (USUAL_CAUSES, ALL))
]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "LOOKS_AFTER", (0.05, 0.2, 0.4))
    monkeypatch.setattr(lookup, "GRACE", 0.3)
    monkeypatch.setattr(ledger, "COMMIT_PAUSE", 0.01)
    monkeypatch.setattr(cancellation, "CANCEL_PATIENCE", 1.0)


@pytest.fixture
def dead() -> Iterator[str]:
    """A port at which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def connections(emulator: Emulator, connect: Connect, dead: str) -> None:
    for conn_id, url in (("flux", emulator.url), ("dead", dead)):
        connect(url, conn_id=f"{conn_id}_deerapi", gateway="deerapi", read_timeout=0.3)
        connect(url, conn_id=f"{conn_id}_bfl", gateway="bfl", read_timeout=0.3)
        connect(url, conn_id=f"{conn_id}_replicate", gateway="replicate", read_timeout=0.3)


def options(*, dead_at: int | None = None, **more: Any) -> dict[str, Any]:
    hosts = ["dead" if at == dead_at else "flux" for at in range(3)]
    return {
        "model": MODELS[0],
        "flux_conn_id": f"{hosts[0]}_deerapi",
        "prompt": "A studio photo of thing 0",
        "input": {"seed": 1},
        "fallbacks": [
            {"model": MODELS[1], "flux_conn_id": f"{hosts[1]}_deerapi"},
            {"model": MODELS[2], "flux_conn_id": f"{hosts[2]}_bfl", "input": {"width": 1024, "height": 1024}},
        ],
        "poll_interval": 0.05,
        "timeout": 1.0,
        "patience": 0.3,
        **more,
    }


def operator(folder: Path, **given: Any) -> OperatorTaskInstance:
    return OperatorTaskInstance({"task_id": "make", "wait_for_completion": True, **given})


def batch(folder: Path, **given: Any) -> BatchTaskInstance:
    return BatchTaskInstance(folder, rows=table(1), **given)


DOORS: dict[str, Callable[..., Any]] = {"operator": operator, "batch": batch}


def told(door: str, life: Any) -> dict[str, Any]:
    """Return what is told of the picture."""
    if door == "operator":
        return dict(life.xcoms["flux_result"])
    (line,) = life.manifest()
    return {**line, "passed_over": json.loads(line["passed_over"] or "[]")}


@pytest.mark.usefixtures("connections")
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("cell", CELLS, ids=[f"{a}-way {b}-{len(c)} causes" for a, b, c in CELLS])
def test_which_way_comes_next_and_what_all_of_it_costs(
    cell: tuple[str, int, tuple[str, ...]], door: str, emulator: Emulator, tmp_path: Path
) -> None:
    """POST: read timeout, reset, 5xx after sending; a way that cannot be had, where there are fallbacks"""
    name, at, on = cell
    what = WHATS[name]
    cause = what.at_bfl if at == 2 and what.at_bfl != "" else what.cause
    is_passed = cause in on and at < 2
    meet(emulator, what, at)
    life = DOORS[door](tmp_path, **options(dead_at=at if what.is_dead else None, fallback_on=on))

    if is_passed:
        life.execute()
        result = told(door, life)
        assert result["model"] == MODELS[at + 1]
        assert result["gateway"] == ("bfl" if at == 1 else "deerapi")
        assert result["status"] == "succeeded"
        assert [way["model"] for way in result["passed_over"]] == list(MODELS[: at + 1])
        assert [way["reason"] for way in result["passed_over"]] == ["unavailable"] * at + [cause]
        assert all(way["error"] for way in result["passed_over"])
    else:
        with pytest.raises(FluxError):
            life.execute()
    assert emulator.posts == at + what.posts + is_passed
    assert emulator.accepted == what.accepted + is_passed
    assert [posts(emulator, way) for way in range(3)] == [
        1 if way < at or (is_passed and way == at + 1) else what.posts if way == at else 0 for way in range(3)
    ]


def meet(emulator: Emulator, what: What, at: int) -> None:
    """Let the ways before one have no channel, and something happen to it."""
    for before in MODELS[:at]:
        emulator.add_fault("503_model_not_found", on="create", model=before, times=None)
    # The emulator knows BFL's model by the name that the first way has in full.
    model = MODELS[at] if at < 2 else "flux-2-pro"
    if what.fault:
        emulator.add_fault(what.fault, on="create", model=model, times=None)
    if what.outcome:
        emulator.add_outcome(what.outcome, model=model, times=None)


def posts(emulator: Emulator, way: int) -> int:
    return sum(1 for seen in emulator.requests if seen.kind == "create" and seen.path.startswith(PATHS[way]))


@pytest.mark.usefixtures("connections")
@pytest.mark.parametrize("door", DOORS)
def test_a_rate_limit_is_borne_for_as_long_as_patience_says(door: str, emulator: Emulator, tmp_path: Path) -> None:
    emulator.add_fault("429", on="create", model=MODELS[0], times=None, retry_after=0.1)
    life = DOORS[door](tmp_path, **options())

    life.execute()

    assert posts(emulator, 0) >= 1
    assert (posts(emulator, 1), posts(emulator, 2), emulator.accepted) == (1, 0, 1)
    assert told(door, life)["passed_over"][0]["reason"] == "unavailable"


@pytest.mark.usefixtures("connections")
@pytest.mark.parametrize("door", DOORS)
def test_where_the_list_proves_that_nothing_was_made_the_next_way_is_taken(
    door: str, emulator: Emulator, tmp_path: Path
) -> None:
    """POST: read timeout, reset, 5xx after sending"""
    emulator.add_fault("500", on="create", model=MODELS[0], times=None)
    given = options(flux_conn_id="flux_replicate")

    DOORS[door](tmp_path, **given).execute()

    assert (emulator.posts, emulator.accepted, posts(emulator, 1)) == (2, 1, 1)


@pytest.mark.usefixtures("connections")
@pytest.mark.parametrize("door", DOORS)
def test_a_refusal_after_a_lost_answer_leaves_that_in_doubt_and_no_other_way_is_taken(
    door: str, emulator: Emulator, tmp_path: Path
) -> None:
    emulator.add_fault("reset_after_accept", on="create", model=MODELS[0])
    emulator.add_fault("402", on="create", model=MODELS[0], times=None)
    life = DOORS[door](tmp_path, **options(on_unknown_submission="resubmit"))

    with pytest.raises(FluxError):
        life.execute()

    assert (emulator.posts, emulator.accepted) == (2, 1)


@pytest.mark.usefixtures("connections")
def test_a_row_begins_anew_where_none_of_its_ways_could_be_had(emulator: Emulator, tmp_path: Path) -> None:
    emulator.add_fault("503_model_not_found", on="create", model=MODELS[0], times=1)
    emulator.add_fault("402", on="create", model=MODELS[1], times=None)
    emulator.add_fault("402", on="create", model=MODELS[2])
    life = batch(tmp_path, **options())
    with pytest.raises(FluxError):
        life.execute()
    assert emulator.accepted == 0

    life.retry()

    (line,) = life.manifest()
    assert (line["status"], line["model"], line["passed_over"]) == ("succeeded", MODELS[0], None)
    assert (emulator.posts, emulator.accepted) == (4, 1)


@pytest.mark.usefixtures("connections")
def test_the_breaker_leaves_nothing_out_for_what_no_other_way_is_wanted_for(emulator: Emulator, tmp_path: Path) -> None:
    emulator.add_fault("503_model_not_found", on="create", model=MODELS[0], times=None)
    life = BatchTaskInstance(
        tmp_path, rows=table(14), **options(fallback_on=["refused_content"]), max_in_flight=1, max_failures=20
    )
    with pytest.raises(FluxError):
        life.execute()
    assert emulator.accepted == 0


@pytest.mark.usefixtures("connections")
@pytest.mark.parametrize("door", DOORS)
def test_patience_counts_only_where_another_way_may_follow(door: str, emulator: Emulator, tmp_path: Path) -> None:
    emulator.add_fault("429", on="create", model=MODELS[0], times=8, retry_after=0.1)
    life = DOORS[door](tmp_path, **options(fallback_on=["failed"], timeout=10.0))
    life.execute()
    assert (emulator.posts, emulator.accepted) == (9, 1)
    assert told(door, life)["model"] == MODELS[0]


@pytest.mark.usefixtures("connections")
@pytest.mark.parametrize("door", DOORS)
def test_where_the_list_shows_the_prediction_it_is_gone_on_with(door: str, emulator: Emulator, tmp_path: Path) -> None:
    emulator.add_fault("reset_after_accept", on="create", model=MODELS[0])
    life = DOORS[door](tmp_path, **options(flux_conn_id="flux_replicate"))

    life.execute()

    assert (emulator.posts, emulator.accepted) == (1, 1)
    assert told(door, life)["passed_over"] == []


def dying(model: str) -> Any:
    """Return what lets the worker die once the create of a model has arrived."""
    send = sync.send

    def send_and_die(session: Any, access: Any, request: Any, limit: float) -> Any:
        reply = send(session, access, request, limit)
        if request.purpose is Purpose.CREATE and model in request.path:
            raise WorkerDies
        return reply

    return send_and_die


@pytest.mark.usefixtures("connections")
@pytest.mark.parametrize("again", ["retry", "clear"])
def test_after_a_crash_in_a_fallback_the_next_try_goes_on_with_that_one(
    again: str, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """a crash between the create and its answer"""
    emulator.add_fault("503_model_not_found", on="create", model=MODELS[0], times=None)
    given = options()
    given["fallbacks"] = [{"model": MODELS[1], "flux_conn_id": "flux_replicate"}, given["fallbacks"][1]]
    life = operator(tmp_path, **given)
    with monkeypatch.context() as dies:
        dies.setattr(sync, "send", dying(MODELS[1]))
        with pytest.raises(WorkerDies):
            life.execute()
    assert (emulator.posts, emulator.accepted) == (2, 1)

    getattr(life, again)()

    assert (emulator.posts, emulator.accepted) == (2, 1)
    result = told("operator", life)
    assert (result["model"], result["gateway"]) == (MODELS[1], "replicate")
    assert [way["reason"] for way in result["passed_over"]] == ["unavailable"]


@pytest.mark.usefixtures("connections")
def test_a_changed_input_cancels_what_a_fallback_was_asked_for(emulator: Emulator, tmp_path: Path) -> None:
    emulator.add_fault("503_model_not_found", on="create", model=MODELS[0], times=None)
    emulator.add_outcome("stuck")
    life = operator(tmp_path, **options(deferrable=True, wait_before_defer=0))
    with pytest.raises(TaskDeferred):
        life.execute()
    life.options.update(prompt="A hat", deferrable=False)

    life.retry()

    assert [(made.model, made.status) for made in emulator.predictions] == [
        (MODELS[1], "canceled"),
        (MODELS[1], "succeeded"),
    ]
    assert (emulator.posts, emulator.accepted) == (4, 2)


@pytest.mark.usefixtures("connections")
def test_a_crash_in_a_fallback_without_a_list_is_told_of_and_nothing_is_sent_again(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.add_fault("503_model_not_found", on="create", model=MODELS[0], times=None)
    life = operator(tmp_path, **options())
    with monkeypatch.context() as dies:
        dies.setattr(sync, "send", dying(MODELS[1]))
        with pytest.raises(WorkerDies):
            life.execute()

    with pytest.raises(FluxError, match=f"The request for a prediction of {MODELS[1]} .* may have been accepted"):
        life.retry()

    assert (emulator.posts, emulator.accepted) == (2, 1)


@pytest.mark.usefixtures("connections")
def test_a_batch_that_dies_goes_on_with_the_fallback_of_each_row(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.add_fault("503_model_not_found", on="create", model=MODELS[0], times=None)
    emulator.add_outcome("stuck", times=None)
    given = options(timeout=30.0, cancel_on_kill=False)
    given["fallbacks"] = [{"model": MODELS[1], "flux_conn_id": "flux_replicate"}]
    life = batch(tmp_path, **given)
    life.options["rows"] = table(3)
    send, arrived = aio.send, []

    async def kill_after_three(sessions: Any, access: Any, request: Any, limit: float) -> Any:
        reply = await send(sessions, access, request, limit)
        if request.purpose is Purpose.GET and request.path not in arrived:
            arrived.append(request.path)
            if len(arrived) == 3:
                life.on_kill()
        return reply

    monkeypatch.setattr(aio, "send", kill_after_three)
    with pytest.raises(FluxError, match="ended before all rows were made"):
        life.execute()
    assert emulator.accepted == 3
    for made in emulator.predictions:
        emulator.finish(made.id, "succeeded")
    before = emulator.posts

    life.retry()

    assert (emulator.posts, emulator.accepted) == (before, 3)
    assert {line["model"] for line in life.manifest()} == {MODELS[1]}
    assert {line["gateway"] for line in life.manifest()} == {"replicate"}


@pytest.mark.usefixtures("connections")
@pytest.mark.parametrize("changed", ["nothing", "the order of the fallbacks", "the first way is back"])
def test_a_row_that_a_fallback_has_made_is_kept_by_the_next_run(
    changed: str, emulator: Emulator, tmp_path: Path
) -> None:
    emulator.add_fault("503_model_not_found", on="create", model=MODELS[0], times=None)
    life = batch(tmp_path, **options())
    life.execute()
    assert (emulator.posts, emulator.accepted) == (2, 1)
    (first,) = life.manifest()
    if changed == "the order of the fallbacks":
        life.options["fallbacks"] = life.options["fallbacks"][::-1]
    if changed == "the first way is back":
        emulator.clear_rules()

    life.next_run()

    assert (emulator.posts, emulator.accepted) == (2, 1)
    (second,) = life.manifest()
    assert second["status"] == "kept"
    told = ("model", "path", "fingerprint", "prediction_id", "gateway")
    assert [second[name] for name in told] == [first[name] for name in told]


@pytest.mark.usefixtures("connections")
def test_two_accounts_at_one_gateway_are_two_ways(emulator: Emulator, connect: Connect, tmp_path: Path) -> None:
    """403 or 402 without credit"""
    connect(emulator.url, conn_id="second_account", gateway="deerapi")
    emulator.add_fault("402", on="create", times=1)
    life = operator(
        tmp_path, **options(fallbacks=[{"flux_conn_id": "second_account"}], wait_for_completion=True, timeout=30.0)
    )

    life.execute()

    assert (emulator.posts, emulator.accepted) == (2, 1)
    assert life.store.kept["flux_prediction"]["attempt"] == 1


BAD = {
    "a field that it does not know": ({"model": MODELS[1]}, {"resolution": "2 MP"}, "has no such field"),
    "a value that it does not take": ({"input": {"seed": "x"}}, {}, "input.seed"),
    "a name that its gateway does not know": ({"model": "flux-2-pro", "flux_conn_id": "flux_replicate"}, {}, "takes"),
    "no such connection": ({"flux_conn_id": "nowhere"}, {}, "nowhere"),
    "a model that is none": ({"model": "flux-schnell"}, {}, "did you mean"),
    "a model that a template made nothing of": ({"model": " "}, {}, "model of a fallback"),
}


@pytest.mark.usefixtures("connections")
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", BAD)
def test_a_bad_fallback_is_an_error_before_anything_is_sent(
    name: str, door: str, emulator: Emulator, tmp_path: Path
) -> None:
    """bad input for a known model"""
    said, given, message = BAD[name]
    life = DOORS[door](tmp_path, **options(fallbacks=[said], input=given))
    with pytest.raises(FluxError, match=message if door == "operator" else None):
        life.execute()
    assert emulator.posts == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fallbacks": {"model": "a/b"}}, "must be a list"),
        ({"fallbacks": "a/b"}, "must be a list"),
        ({"fallbacks": ["a/b"]}, "must be a list"),
        ({"fallbacks": [{}]}, "a fallback says some of"),
        ({"fallbacks": [{"modle": "a/b"}]}, "not 'modle'"),
        ({"fallback_on": ["outage"]}, "fallback_on must be some of unavailable, credit, failed"),
        ({"fallback_on": "failed"}, "fallback_on must be some of"),
        ({"patience": 0}, "patience must be"),
    ],
)
@pytest.mark.parametrize("door", DOORS)
def test_fallbacks_that_are_none_are_refused_when_the_dag_is_parsed(
    door: str, given: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        DOORS[door](tmp_path, **options(**given))


@pytest.mark.usefixtures("connections")
def test_a_fallback_that_no_triggerer_has_waited_for_is_given_up_at_its_own_gateway(
    emulator: Emulator, tmp_path: Path
) -> None:
    """no triggerer runs"""
    emulator.add_fault("503_model_not_found", on="create", model=MODELS[0], times=None)
    emulator.add_outcome("stuck", times=None)
    given = options(timeout=30.0, deferrable=True, wait_before_defer=0, fallback_on=ALL)
    given["fallbacks"] = [{"model": MODELS[1], "flux_conn_id": "flux_replicate"}, given["fallbacks"][1]]
    life = operator(tmp_path, **given)
    with pytest.raises(TaskDeferred):
        life.execute()
    assert emulator.accepted == 1

    with pytest.raises(TaskDeferred):
        life.resume("__fail__", {"error": "Trigger timeout"})

    # Canceled at Replicate, where it was made, and asked for anew at BFL.
    canceled = [seen.path for seen in emulator.requests if seen.kind == "cancel"]
    assert len(canceled) == 1
    assert canceled[0].startswith("/v1/predictions/")
    assert (emulator.posts, emulator.accepted, posts(emulator, 2)) == (3, 2, 1)
    record = life.store.kept["flux_prediction"]
    assert (record["attempt"], [way["reason"] for way in record["passed"]]) == (2, ["unavailable", "deadline"])


@pytest.mark.usefixtures("connections")
def test_a_fallback_that_could_not_be_called_back_for_is_an_error_before_anything_is_sent(
    emulator: Emulator, connect: Connect, tmp_path: Path
) -> None:
    connect(emulator.url, conn_id="flux_deerapi", gateway="deerapi", webhook_base_url="https://airflow.example.com")
    life = operator(tmp_path, **options(webhook="auto"))
    with pytest.raises(FluxError, match="Connection 'flux_bfl' does not say where its gateway reaches this Airflow"):
        life.execute()
    assert emulator.posts == 0


@pytest.mark.usefixtures("connections")
def test_a_killed_task_takes_no_other_way(emulator: Emulator, tmp_path: Path) -> None:
    emulator.add_fault("503_model_not_found", on="create", model=MODELS[0], times=None)
    emulator.settings(latency=0.3)
    life = operator(tmp_path, **options())
    life.meanwhile(0.1, lambda: life.operator.on_kill())  # noqa: PLW0108 (each try has an operator of its own)

    with pytest.raises(FluxError):
        life.execute()

    assert (emulator.posts, emulator.accepted) == (1, 0)
