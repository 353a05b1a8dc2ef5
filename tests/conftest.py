"""Settings that must stand before Airflow is imported, and what most tests share."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HOME = Path(tempfile.mkdtemp(prefix="flux-tests-"))
DAGS = HOME / "dags"
DAGS.mkdir()
os.environ.update(
    AIRFLOW_HOME=str(HOME),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__UNIT_TEST_MODE="True",
    AIRFLOW__CORE__DAGS_FOLDER=str(DAGS),
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{HOME}/airflow.db",
    AIRFLOW__LOGGING__LOGGING_LEVEL="INFO",
)

from airflow_provider_flux.emulator import Emulator  # noqa: E402 (the settings come first)

KEY = "emulator-key-0123456789abcdef"


def pytest_unconfigure() -> None:
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def airflow_db() -> None:
    """An empty metadata database."""
    from airflow.utils import db

    db.initdb()


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """A gateway of its own for each test, fifty times faster than the real ones."""
    with Emulator(key=KEY, speed=50) as running:
        yield running


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat calls after tens of milliseconds instead of seconds."""
    from airflow_provider_flux.protocol import schedule

    monkeypatch.setattr(schedule, "BACKOFF_BASE", 0.02)


@pytest.fixture(autouse=True)
def unused_budgets() -> Iterator[None]:
    """Let no pace that one emulator was met with be that of the next, which may have the same port."""
    from airflow_provider_flux.client import rate_limiter

    yield
    rate_limiter._rate_limiters.clear()


Connect = Callable[..., str]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Define an Airflow connection, and return its id."""

    def define(host: str, *, key: str = KEY, conn_id: str = "flux_default", **extra: object) -> str:
        connection = {"conn_type": "flux", "host": host, "password": key, "extra": extra}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
        return conn_id

    return define
