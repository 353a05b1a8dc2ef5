"""What the demo says before it starts anything."""

from __future__ import annotations

import os
import socket

import pytest

import demo
from processes import LOOPBACK, free_ports

KEY = "r8_not_a_real_key"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A free port for Airflow, nothing else asked for, nobody at the terminal."""
    for name in [name for name in os.environ if name.startswith(("FLUX_", "DEMO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AIRFLOW_PORT", str(free_ports(1)[0]))
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        pytest.fail("the demo went on")

    monkeypatch.setattr(demo, "AirflowDeployment", fail)
    monkeypatch.setattr(demo, "LocalEmulator", fail)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    assert demo.main() == 1
    captured = capsys.readouterr()
    return captured.out + captured.err


@pytest.mark.parametrize("variable", ["AIRFLOW_PORT", "FLUX_EMULATOR_PORT"])
def test_a_port_in_use_is_named_with_the_way_out(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as server:
        server.bind((LOOPBACK, 0))
        server.listen()
        port = server.getsockname()[1]
        monkeypatch.setenv(variable, str(port))

        message = said(capsys)

    assert f"Port {port} is in use" in message
    assert f"{variable}={port + 1} make demo" in message


def test_a_real_key_costs_money_and_needs_consent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLUX_API_KEY", KEY)

    message = said(capsys)

    assert "COST MONEY" in message
    assert "FLUX_DEMO_YES=1" in message
    assert KEY not in message


def test_a_person_who_does_not_say_yes_pays_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLUX_API_KEY", KEY)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _prompt: "")

    assert "Nothing was sent" in said(capsys)


@pytest.mark.parametrize(
    ("variable", "value"), [("FLUX_GATEWAY", "nowhere"), ("AIRFLOW_PORT", "http"), ("FLUX_EMULATOR_PORT", "70000")]
)
def test_a_wrong_choice_is_named(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)

    assert f"{variable}={value}" in said(capsys)
