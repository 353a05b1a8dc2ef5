"""One Airflow deployment with runs of every kind in it, and a browser that is logged in to it."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from airflow_api import AirflowApi
from airflow_provider_flux.emulator import Emulator, OutcomeRule
from deployment import AirflowDeployment
from tests.browser import made_up

ROOT = Path(__file__).parents[2]
DAGS = Path(__file__).parent / "dags"
EXAMPLES = ROOT / "example_dags"
SCREENSHOTS = ROOT / "docs" / "screenshots"
CHROMIUM = "/usr/bin/chromium"
ROWS = 300
PRICE = 0.003
KEY = "sk-no-browser-may-ever-see-this-key-4711"


@dataclass
class UiDeployment:
    """Airflow with results in it.

    :param rows_run: a run of 300 mapped task instances with made-up results.
    """

    airflow: AirflowDeployment
    emulator: Emulator
    folder: Path
    pictures: list[dict[str, Any]]
    rows_run: str

    @property
    def api(self) -> AirflowApi:
        return self.airflow.api

    def run_tab(self, dag_id: str, run_id: str) -> str:
        return f"{self.airflow.url}/dags/{dag_id}/runs/{quote(run_id, safe='')}/plugin/flux-run"

    def task_tab(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
        mapped = f"/mapped/{map_index}" if map_index >= 0 else ""
        run = f"{self.airflow.url}/dags/{dag_id}/runs/{quote(run_id, safe='')}"
        return f"{run}/tasks/{task_id}{mapped}/plugin/flux-task"

    def start_batch(self, *, rows: int = 240, steps: int = 8, pause: float = 3.0) -> str:
        script = made_up.write_batch(self.folder, self.pictures, rows=rows, steps=steps, pause=pause)
        return self.api.trigger_dag("ui_batch", {"script": str(script)})


def push(api: AirflowApi, run_id: str, map_index: int, value: Any) -> None:
    """Record a result for a row of `ui_rows` through the public REST API."""
    path = f"/dags/ui_rows/dagRuns/{quote(run_id, safe='')}/taskInstances/make_picture/xcomEntries"
    api.request("POST", path, json={"key": "flux_result", "value": value, "map_index": map_index})


@pytest.fixture(scope="session")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UiDeployment]:
    folder = tmp_path_factory.mktemp("ui")
    extra = {"prices": {"black-forest-labs/flux-schnell": PRICE}}
    dags = shutil.copytree(DAGS, folder / "dags")
    for name in ("flux_approve_before_publish.py", "flux_restyle_photos.py", "flux_with_fallbacks.py"):
        shutil.copy(EXAMPLES / name, dags)
    shutil.copytree(EXAMPLES / "photos", dags / "photos")
    with Emulator(key=KEY, run_time=12.0) as emulator:
        connection = {"conn_type": "flux", "host": emulator.url, "password": KEY, "extra": extra}
        emulator.add_outcome(OutcomeRule("NSFW", prompt_contains="refused", times=None))
        with AirflowDeployment(
            home=folder / "airflow",
            dags=dags,
            environment={"AIRFLOW_CONN_FLUX_DEFAULT": json.dumps(connection)},
            progress=print,
        ) as airflow:
            pictures = made_up.draw_pictures(folder / "pictures")
            run_id = airflow.api.trigger_dag("ui_rows")
            airflow.api.wait_for_run("ui_rows", run_id)
            for number in range(ROWS):
                value = made_up.result(number, pictures)
                push(airflow.api, run_id, number, value)
            yield UiDeployment(airflow, emulator, folder, pictures, run_id)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    if not Path(CHROMIUM).exists():
        pytest.skip(f"{CHROMIUM} is not installed (apt-get install chromium)")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--no-proxy-server"])
        yield chromium
        chromium.close()


OpenPage = Callable[..., Any]


@pytest.fixture
def open_page(ui: UiDeployment, browser: Any) -> Iterator[OpenPage]:
    """Open an address as a logged-in user; every error that the browser reports fails the test."""
    contexts = []
    errors: list[str] = []

    def open_address(address: str, *, theme: str = "light", width: int = 1280, user: str = "admin") -> Any:
        context = browser.new_context(viewport={"width": width, "height": 860})
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        contexts.append(context)
        api = ui.airflow.as_user(user)
        context.add_cookies([{"name": "_token", "value": api.token(), "url": ui.airflow.url}])
        api.close()
        context.add_init_script(f"if (location.host) localStorage.setItem('theme', '{theme}')")
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        return page

    yield open_address
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def screenshot() -> Callable[[Any, str], None]:
    """Write a picture for the documentation, if ``make screenshots`` asks for it."""

    def take(page: Any, name: str) -> None:
        if os.environ.get("FLUX_SCREENSHOTS"):
            time.sleep(0.5)  # pictures fade in
            SCREENSHOTS.mkdir(exist_ok=True)
            page.screenshot(path=SCREENSHOTS / f"{name}.png")

    return take
