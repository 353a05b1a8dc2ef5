"""The wheel as users get it: built, opened, installed into a clean environment."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
from uv import find_uv_bin

from processes import environment_for_loopback

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "constraints" / "airflow-3.3.2.txt"

FORM = """
import json
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
hooks = {hook.connection_type: hook for hook in HookMetaService.hook_meta_data()}
print("FORM " + hooks["flux"].model_dump_json())
"""


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        env=environment_for_loopback({"UV_PYTHON_DOWNLOADS": "never"} | environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(find_uv_bin(), "build", "--wheel", "--out-dir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def files(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="session")
def metadata(wheel: Path) -> Any:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the programs of a clean environment, in which only the wheel and what it asks for is installed."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    uv = find_uv_bin()
    run(uv, "venv", "--python", sys.executable, folder)
    run(uv, "pip", "install", "--python", folder / "bin" / "python", "--constraints", CONSTRAINTS, wheel)
    return folder / "bin"


@pytest.fixture(scope="session")
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("airflow"))


def test_the_wheel_holds_nothing_but_the_package(files: list[str]) -> None:
    top_level = {name.partition("/")[0] for name in files}

    assert {name for name in top_level if not name.endswith(".dist-info")} == {"airflow_provider_flux"}
    assert [name for name in files if "__pycache__" in name or "/tests/" in name] == []


def test_the_wheel_holds_the_type_marker_and_the_license(files: list[str]) -> None:
    assert "airflow_provider_flux/py.typed" in files
    assert [name for name in files if name.endswith(".dist-info/licenses/LICENSE")]


def test_the_wheel_holds_every_model_schema(files: list[str]) -> None:
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "airflow_provider_flux").rglob("schemas/*.json")}

    assert len(sources) == 11
    assert sources <= set(files)


def test_the_wheel_names_the_pythons_and_the_airflows_it_supports(metadata: Any) -> None:
    assert metadata["Requires-Python"] == "<3.14,>=3.10"
    assert "apache-airflow<4,>=3.1" in metadata.get_all("Requires-Dist")
    assert "emulator" in metadata.get_all("Provides-Extra")


def test_the_wheel_works_without_its_extras(installed: Path, airflow_home: str) -> None:
    modules = ["hooks.flux", "operators.flux", "sensors.flux", "triggers.flux"]
    imports = "; ".join(f"import airflow_provider_flux.{module}" for module in modules)

    run(installed / "python", "-W", "error:::airflow_provider_flux", "-c", imports, AIRFLOW_HOME=airflow_home)


def test_airflow_lists_the_provider(installed: Path, airflow_home: str) -> None:
    listed = run(
        installed / "airflow", "providers", "get", "airflow-provider-flux", "-o", "json", AIRFLOW_HOME=airflow_home
    )

    assert '"airflow-provider-flux"' in listed


def test_airflow_serves_the_connection_form(installed: Path, airflow_home: str) -> None:
    output = run(installed / "python", "-c", FORM, AIRFLOW_HOME=airflow_home)
    form = json.loads(next(line for line in output.splitlines() if line.startswith("FORM "))[5:])

    assert form["hook_class_name"] == "airflow_provider_flux.hooks.flux.FluxHook"
    assert form["standard_fields"]["password"]["title"] == "API key"
    assert form["standard_fields"]["login"]["hidden"] is True
    assert "gateway" in form["extra_fields"]
