"""The watcher: steps many flows in one event loop, and never leaves anybody waiting for ever."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Generator
from typing import Any

import pytest

from airflow_provider_flux.client import watcher as module
from airflow_provider_flux.client.watcher import Watcher
from airflow_provider_flux.protocol.flows import Send, Sleep
from airflow_provider_flux.protocol.messages import Purpose, Request, Response

POLL = Send(Request(Purpose.GET, "GET", "/a"), 5.0)
GOOD = Response(200, {}, b"{}")
name: contextvars.ContextVar[str] = contextvars.ContextVar("name")


class Effects:
    """Carries out what is none of the watcher's, as told.

    :param outcome: is returned or raised for what is carried out; None never comes.
    :param polls: what polls are answered with; None leaves them to be carried out.
    """

    def __init__(self, outcome: Any = "carried out", polls: Any = None) -> None:
        self.outcome = outcome
        self.polls = polls
        self.carried_out: list[Any] = []
        self.ended: list[str] = []

    async def carry_out(self, effect: Any) -> Any:
        self.carried_out.append(effect)
        try:
            if self.outcome is None:
                await asyncio.Event().wait()
            if isinstance(self.outcome, BaseException):
                raise self.outcome
        finally:
            self.ended.append("carry out")
        return self.outcome

    def poll(self, effect: Send, take: Callable[[Any], None]) -> Any:
        if self.polls is None:
            return None
        if self.polls != "never":
            asyncio.get_running_loop().call_soon(take, self.polls)
        return self

    def cancel(self) -> None:
        self.ended.append("poll")


def yielding(*effects: Any) -> Generator[Any, Any, list[Any]]:
    came = []
    for effect in effects:
        came.append((yield effect))
    return came


def logging_its_name(seen: list[str]) -> Generator[Any, Any, None]:
    for _ in range(3):
        seen.append(name.get())
        yield Sleep(0.0)


async def test_each_effect_is_carried_out_and_its_outcome_sent_back() -> None:
    effects = Effects(polls=GOOD)
    assert await Watcher().run(yielding(Sleep(0.0), POLL, "save", Sleep(0.01)), effects) == [
        None,
        GOOD,
        "carried out",
        None,
    ]
    assert effects.carried_out == ["save"]


async def test_a_poll_that_is_handed_back_is_carried_out_otherwise() -> None:
    again = Send(POLL.request, 2.0)
    effects = Effects(polls=again)
    assert await Watcher().run(yielding(POLL), effects) == ["carried out"]
    assert effects.carried_out == [again]


async def test_what_an_effect_raises_is_thrown_into_the_flow_which_may_go_on() -> None:
    def forgiving() -> Generator[Any, Any, Any]:
        try:
            yield "save"
        except KeyError:
            return (yield Sleep(0.0))

    assert await Watcher().run(forgiving(), Effects(KeyError("x"))) is None
    with pytest.raises(KeyError):
        await Watcher().run(yielding("save"), Effects(KeyError("x")))


async def test_a_flow_that_fails_fails_alone() -> None:
    def failing() -> Generator[Any, Any, None]:
        yield Sleep(0.01)
        raise RuntimeError("mine")

    watcher = Watcher()
    results = await asyncio.gather(
        watcher.run(failing(), Effects()),
        watcher.run(yielding(Sleep(0.05)), Effects()),
        return_exceptions=True,
    )
    assert isinstance(results[0], RuntimeError)
    assert results[1] == [None]


async def test_if_the_watcher_fails_all_whom_it_watches_for_are_told_and_the_next_are_watched(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watcher = Watcher()

    def broken() -> None:
        raise ZeroDivisionError

    waiting = [asyncio.ensure_future(watcher.run(yielding(effect), Effects(None, "never"))) for effect in _WAITS]
    await asyncio.sleep(0)
    watcher.call_later(0.0, broken)
    with caplog.at_level(logging.ERROR):
        results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)

    assert [type(result) for result in results] == [ZeroDivisionError] * len(_WAITS)
    assert "cannot be watched" in caplog.text
    assert await watcher.run(yielding(Sleep(0.0)), Effects()) == [None]


_WAITS = [Sleep(60.0), POLL, "save"]


@pytest.mark.parametrize("effect", _WAITS, ids=["asleep", "polling", "saving"])
async def test_a_flow_that_is_canceled_ends_what_it_waits_for(effect: Any) -> None:
    watcher, effects = Watcher(), Effects(None, "never")
    flow = yielding(effect)
    waiting = asyncio.ensure_future(watcher.run(flow, effects))
    await asyncio.sleep(0.01)

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert (
        effects.ended
        == {"asleep": [], "polling": ["poll"], "saving": ["carry out"]}[
            "asleep" if isinstance(effect, Sleep) else "polling" if effect is POLL else "saving"
        ]
    )
    assert flow.gi_frame is None
    assert watcher._watched == set()


async def test_an_effect_that_is_canceled_from_within_ends_the_wait() -> None:
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(Watcher().run(yielding("save"), Effects(asyncio.CancelledError())), 5)


async def test_each_flow_runs_in_the_context_of_whoever_waits_for_it() -> None:
    watcher, seen = Watcher(), {"one": [], "two": []}  # type: ignore[var-annotated]

    async def wait(mine: str) -> None:
        name.set(mine)
        await watcher.run(logging_its_name(seen[mine]), Effects())

    await asyncio.gather(asyncio.create_task(wait("one")), asyncio.create_task(wait("two")))
    assert seen == {"one": ["one"] * 3, "two": ["two"] * 3}


async def test_what_is_due_together_takes_one_turn_of_the_loop_and_many_take_breaks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_AT_ONCE", 10)
    watcher, turns, done = Watcher(), 0, []  # type: ignore[var-annotated]
    loop = asyncio.get_running_loop()
    for number in range(35):
        watcher.call_later(0.01, lambda number=number: done.append((turns, number)))  # type: ignore[misc]

    def turn() -> None:
        nonlocal turns
        turns += 1
        if len(done) < 35:
            loop.call_soon(turn)

    turn()
    while len(done) < 35:  # noqa: ASYNC110 (the loop's turns are what is counted)
        await asyncio.sleep(0.001)

    assert [number for _, number in done] == list(range(35))
    assert len({at for at, _ in done}) == 4
