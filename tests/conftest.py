"""Settings that must stand before Airflow is imported, and what most tests share."""

from __future__ import annotations

import fcntl
import gc
import json
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

HOME = Path(tempfile.mkdtemp(prefix="flux-tests-"))
# PostgreSQL, which runs as another user, has its folder in here.
HOME.chmod(0o711)
DAGS = HOME / "dags"
DAGS.mkdir()
TEMPORARY = HOME / "tmp"
TEMPORARY.mkdir()
os.environ.update(
    # Pytest's own folders stay where they can be looked at afterwards.
    PYTEST_DEBUG_TEMPROOT=os.environ.get("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir()),
    TMPDIR=str(TEMPORARY),
    AIRFLOW_HOME=str(HOME),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__UNIT_TEST_MODE="True",
    AIRFLOW__CORE__DAGS_FOLDER=str(DAGS),
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{HOME}/airflow.db",
    AIRFLOW__LOGGING__LOGGING_LEVEL="INFO",
)

tempfile.tempdir = None

from airflow_provider_flux.emulator import Emulator  # noqa: E402 (the settings come first)
from tests.sharing import Sharing  # noqa: E402

KEY = "emulator-key-0123456789abcdef"


def pytest_unconfigure() -> None:
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return Sharing(config, log)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that leaves anything in its temporary folder: the package must not, even if it is killed."""
    # A killed Celery worker leaves the folder of Python's multiprocessing.
    not_ours = ("flux-tests-", "pymp-")
    left = sorted(path.name for path in TEMPORARY.iterdir() if not path.name.startswith(not_ours))
    if left:
        sys.stderr.write(f"\nThe tests have left something in their temporary folder: {', '.join(left)}\n")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tell apart the tests that Airflow itself makes slow: it works for seconds in each process that runs tasks."""
    for item in items:
        if isinstance(item, pytest.Function) and "airflow_db" in item.fixturenames:
            item.add_marker("on_airflow")


def pytest_collection_finish() -> None:
    """Leave Airflow's objects, which live as long as the process, out of every further collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def airflow_db(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An empty metadata database, which the first of the processes that need one makes for all."""
    from airflow.utils import db

    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent
    with (shared / "airflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = shared / "airflow.db"
        if made.exists():
            shutil.copyfile(made, HOME / "airflow.db")
        else:
            db.initdb()
            # Not copied as a file: the newest of it is in SQLite's write-ahead log.
            with closing(sqlite3.connect(HOME / "airflow.db")) as database:
                database.execute("VACUUM INTO ?", (str(made),))


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """A gateway of its own for each test, fifty times faster than the real ones, which draws small pictures."""
    with Emulator(key=KEY, speed=50, small_pictures=True) as running:
        yield running


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat calls after tens of milliseconds instead of seconds, poll ten times sooner, ask less long for prices."""
    from airflow_provider_flux.hooks import gateway_calls
    from airflow_provider_flux.protocol import schedule

    monkeypatch.setattr(gateway_calls, "FACTS_PATIENCE", 0.5)
    monkeypatch.setattr(schedule, "BACKOFF_BASE", 0.02)
    bounded = schedule.PollSchedule._bounded
    monkeypatch.setattr(schedule.PollSchedule, "_bounded", lambda self, wait: bounded(self, wait) / 10.0)


@pytest.fixture(autouse=True)
def new_rate_limiters() -> Iterator[None]:
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
