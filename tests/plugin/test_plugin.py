"""How the plugin is found, what it costs those who do not serve, and where its links lead."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib.metadata import entry_points
from types import SimpleNamespace

import pytest

from airflow_provider_flux.links import FluxPicturesLink, FluxPredictionLink
from airflow_provider_flux.plugin import FluxPlugin
from airflow_provider_flux.plugin.app import STATIC_FILES

TASK = SimpleNamespace(dag_id="shop", run_id="manual__2026-11-22T10:00:00+00:00", task_id="make", map_index=-1)
TASK_PATH = "/dags/shop/runs/manual__2026-11-22T10%3A00%3A00%2B00%3A00/tasks/make"
MAPPED = SimpleNamespace(**{**vars(TASK), "map_index": 3})


def test_airflow_finds_the_plugin_by_its_entry_point() -> None:
    (entry,) = (found for found in entry_points(group="airflow.plugins") if found.name == "flux")

    assert entry.load() is FluxPlugin


def test_importing_the_plugin_imports_nothing_that_serves() -> None:
    program = (
        "import airflow.plugins_manager, sys\n"
        "before = set(sys.modules)\n"
        "import airflow_provider_flux.plugin\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new & {'fastapi', 'starlette', 'PIL', 'fsspec', 'httpx', 'imagesize', 'requests', 'aiohttp'}))\n"
        "print('airflow_provider_flux.plugin.app' in sys.modules)\n"
    )

    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert printed.split("\n")[-3:-1] == ["[]", "False"]


def test_no_two_views_share_a_route() -> None:
    routes = [view["url_route"] for view in FluxPlugin.react_apps]

    assert len(set(routes)) == len(routes) == 3
    assert {view["destination"] for view in FluxPlugin.react_apps} == {"nav", "dag_run", "task_instance"}


def test_views_are_loaded_from_the_root_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_flux import plugin

    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.com/team/")

    assert plugin._static("flux.js") == "/team/flux/static/flux.js"


def test_the_chart_library_is_the_published_file() -> None:
    library = STATIC_FILES / "vendor" / "chart.umd.min.js"
    name, expected = (STATIC_FILES / "vendor" / "SHA256").read_text().split()[::-1]

    assert name == library.name
    assert hashlib.sha256(library.read_bytes()).hexdigest() == expected


def test_no_file_is_loaded_from_elsewhere() -> None:
    for file in STATIC_FILES.iterdir():
        if file.suffix in (".js", ".css"):
            assert "://" not in file.read_text(), file


@pytest.mark.parametrize(("task", "path"), [(TASK, TASK_PATH), (MAPPED, f"{TASK_PATH}/mapped/3")])
def test_pictures_leads_to_the_tab(task: SimpleNamespace, path: str) -> None:
    assert FluxPicturesLink().get_link(SimpleNamespace(), ti_key=task) == f"{path}/plugin/flux-task"


def test_links_are_below_the_base_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.com/team")

    assert FluxPicturesLink().get_link(SimpleNamespace(), ti_key=TASK).startswith("/team/dags/shop/")


def test_a_prediction_without_a_page_leads_to_the_tab() -> None:
    link = FluxPredictionLink().get_link(SimpleNamespace(prediction_page=""), ti_key=TASK)

    assert link == f"{TASK_PATH}/plugin/flux-task"


def test_a_prediction_with_a_page_leads_there() -> None:
    page = "https://replicate.com/p/abc"

    assert FluxPredictionLink().get_link(SimpleNamespace(prediction_page=page), ti_key=TASK) == page
