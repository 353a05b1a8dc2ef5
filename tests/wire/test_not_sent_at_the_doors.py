"""What was not sent is told as such by hook, operator and batch, leaves no intent, and is sent once in the next try."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import FluxError, FluxGatewayError, FluxSubmissionUnknownError
from airflow_provider_flux.hooks.flux import FluxHook
from tests.batch.task_instance import BatchTaskInstance, table
from tests.conftest import Connect
from tests.durable.task_instance import OperatorTaskInstance
from tests.servers import SilentServer
from tests.wire.two_drivers import SCHNELL

PROXY_VARIABLES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")

SETTINGS: dict[str, tuple[dict[str, str], str]] = {
    "SOCKS without PySocks": ({"ALL_PROXY": "socks5://127.0.0.1:1080"}, "socks5://127.0.0.1:1080"),
    "proxy with a bad port": ({"HTTP_PROXY": "http://me:secret-word@127.0.0.1:port"}, "http://127.0.0.1:port"),
    "proxy that is down": ({"http_proxy": "me:secret-word@127.0.0.1:9"}, "http://127.0.0.1:9"),
    "REQUESTS_CA_BUNDLE missing": ({"REQUESTS_CA_BUNDLE": "/none/b.pem"}, "/none/b.pem (REQUESTS_CA_BUNDLE)"),
}


def life_at(door: str, folder: Path) -> Any:
    if door == "batch":
        return BatchTaskInstance(folder, rows=table(1), timeout=2.0)
    return OperatorTaskInstance(
        {
            "task_id": "make",
            "model": SCHNELL,
            "prompt": "a boat",
            "wait_for_completion": True,
            "poll_interval": 0.05,
            "timeout": 2.0,
        }
    )


def told_by(door: str, instance: Any, step: Callable[[], Any]) -> str:
    with pytest.raises(FluxError) as caught:
        step()
    assert not isinstance(caught.value, FluxSubmissionUnknownError)
    if door == "operator":
        return str(caught.value)
    assert instance.statuses() != ["unknown"]
    return f"{caught.value} {instance.manifest()[0]}"


@pytest.mark.parametrize("again", ["retry", "clear"])
@pytest.mark.parametrize("door", ["operator", "batch"])
@pytest.mark.parametrize("name", SETTINGS)
def test_the_next_try_pays_once(
    *,
    name: str,
    door: str,
    again: str,
    emulator: Emulator,
    connect: Connect,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """a request that failed before its first byte could leave"""
    settings, shown = SETTINGS[name]
    connect(emulator.url, gateway="deerapi", read_timeout=2)
    for variable in PROXY_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    instance = life_at(door, tmp_path)
    with monkeypatch.context() as broken:
        for variable, value in settings.items():
            broken.setenv(variable, value)
        told = told_by(door, instance, instance.execute)
        assert shown in told
        assert "may have been" not in told
        assert "secret-word" not in told
        assert emulator.posts == 0
    if door == "operator":
        assert instance.store.kept == {}, "no intent is left"
    getattr(instance, again)()
    assert (emulator.posts, emulator.accepted) == (1, 1)


def test_a_handshake_that_stalls_is_not_sent_at_the_hook(connect: Connect) -> None:
    with SilentServer() as server:
        connect(f"https://127.0.0.1:{server.port}", gateway="deerapi", connect_timeout=0.5)
        with pytest.raises(FluxGatewayError, match=r"no connection could be made .* too long") as caught:
            FluxHook().create_prediction(SCHNELL, {"prompt": "a boat"}, deadline=time.time() + 0.2)
    assert not isinstance(caught.value, FluxSubmissionUnknownError)


@pytest.mark.parametrize("prediction_id", ["..", ".", "a/b", "a\nb", "a\0", "", " ", "a" * 300, "a\\..\\b", "a\u2028b"])
def test_an_id_that_is_none_is_refused_before_anything_is_sent(
    prediction_id: str, emulator: Emulator, connect: Connect
) -> None:
    connect(emulator.url, gateway="deerapi")
    hook = FluxHook()
    for call in (hook.get_prediction, hook.wait_for_prediction, hook.cancel_prediction):
        with pytest.raises(FluxError, match=r"cannot be the id of a prediction\. Nothing was sent") as caught:
            call(prediction_id)
        assert "\n" not in str(caught.value)
    assert emulator.requests == []
