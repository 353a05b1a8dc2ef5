"""BFL over TLS: a prediction is asked for at its region's host, and the key goes to none but BFL's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from airflow_provider_flux.client import aio
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.protocol.flows import Conversation
from airflow_provider_flux.protocol.prediction import Prediction
from tests.certificates import make_certificates
from tests.conftest import KEY, Connect
from tests.servers import ConnectProxy

HOSTS = ("api.bfl.ai", "api.eu2.bfl.ai")


@pytest.fixture
def network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connect: Connect
) -> Iterator[tuple[Emulator, ConnectProxy]]:
    """BFL as this machine sees it: every host is the emulator."""
    authority, certificate = make_certificates(tmp_path, *HOSTS)
    with (
        Emulator(key=KEY, run_time=0.1, tls=certificate) as emulator,
        ConnectProxy(urlsplit(emulator.url).port or 0) as proxy,
    ):
        for name in ("https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        connect("https://api.bfl.ai", ca_file=str(authority))
        yield emulator, proxy


def wait_in_triggerer(prediction_id: str) -> Prediction:
    access = FluxHook().access
    conversation = Conversation(access.gateway, logging.getLogger(__name__))
    flow = conversation.get(prediction_id, deadline=2e9)
    return asyncio.run(aio.run(flow, access))


@pytest.mark.parametrize("driver", ["worker", "triggerer"])
def test_a_prediction_is_asked_for_at_the_host_that_bfl_names(
    network: tuple[Emulator, ConnectProxy], driver: str
) -> None:
    emulator, proxy = network
    emulator.settings(polling_origin="https://api.eu2.bfl.ai")
    hook = FluxHook()

    made = hook.create_prediction("flux-2-pro", {"prompt": "a boat"})

    assert made.id.endswith("@api.eu2.bfl.ai")
    assert proxy.asked == ["api.bfl.ai"]
    seen = hook.get_prediction(made.id) if driver == "worker" else wait_in_triggerer(made.id)
    assert seen.id == made.id
    assert set(proxy.asked[1:]) == {"api.eu2.bfl.ai"}
    assert (emulator.posts, emulator.accepted) == (1, 1)


@pytest.mark.parametrize(
    "origin", ["https://collector.example", "https://api.eu2.bfl.ai.example", "http://api.eu2.bfl.ai"]
)
def test_any_other_host_never_sees_the_key_and_the_picture_is_had_all_the_same(
    network: tuple[Emulator, ConnectProxy], origin: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """a redirect leads away: the key must not go along; BFL's `polling_url`"""
    emulator, proxy = network
    emulator.settings(polling_origin=origin)
    hook = FluxHook()

    made = hook.create_prediction("flux-2-pro", {"prompt": "a boat"})
    ended: Any = hook.wait_for_prediction(made.id, submitted_at=None, poll_interval=0.05)

    assert ended.outputs
    assert set(proxy.asked) == {"api.bfl.ai"}
    said = "".join(capfd.readouterr())
    assert f"{origin}/v1/get_result?id={made.id} is none of BFL's hosts, and not asked" in said
    assert KEY not in said
