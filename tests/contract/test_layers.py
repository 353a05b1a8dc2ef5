"""Who may import whom: a newcomer reads downwards, and nothing below knows of what is above it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import airflow_provider_flux

PACKAGE = Path(airflow_provider_flux.__file__).parent
NAME = PACKAGE.name

LAYERS = {
    "protocol": 0,
    "exceptions": 1,
    "telemetry": 1,
    "client": 2,
    "outputs": 3,
    "inputs": 4,
    "tasks": 5,
    "retry_policy": 6,
    "links": 6,
    "hooks": 6,
    "operators": 6,
    "sensors": 6,
    "triggers": 6,
    "batch": 6,
    "decorators": 7,
    "get_provider_info": 7,
    "plugin": 8,
}
"""The emulator stands apart: it plays a gateway, so it knows the protocol, and nobody knows it."""


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), path


MODULES = dict(modules())


def imports(path: Path) -> Iterator[str]:
    """Yield what a module imports of this package, wherever in it, as dotted names below the package."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == NAME:
            base = (node.module or "").removeprefix(NAME).lstrip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".lstrip(".")
                yield full if full in MODULES else base
        elif isinstance(node, ast.Import):
            yield from (
                alias.name.removeprefix(f"{NAME}.") for alias in node.names if alias.name.startswith(f"{NAME}.")
            )


GRAPH = {name: {found for found in imports(path) if found and found != name} for name, path in MODULES.items() if name}


def layer(module: str) -> int | None:
    return LAYERS.get(module.split(".", maxsplit=1)[0])


def test_every_module_has_a_layer() -> None:
    assert {name.split(".")[0] for name in GRAPH} == {*LAYERS, "emulator"}


def test_no_import_leads_upwards() -> None:
    upwards = [
        f"{name} -> {found}"
        for name, others in GRAPH.items()
        for found in others
        if layer(name) is not None and layer(found) is not None and layer(found) > layer(name)  # type: ignore[operator]
    ]
    # The hook shows its connection form on Airflow 3.1, which does not read it from the provider's metadata.
    assert upwards == ["hooks.flux -> get_provider_info"]


def test_the_emulator_knows_the_protocol_and_nobody_knows_the_emulator() -> None:
    known = {found.split(".")[0] for name, others in GRAPH.items() if name.startswith("emulator") for found in others}
    assert known <= {"emulator", "protocol"}
    users = {name for name, others in GRAPH.items() for found in others if found.startswith("emulator")}
    assert all(name.startswith("emulator") for name in users)


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Not even by an import inside a function."""
    remaining = {name: set(others) for name, others in GRAPH.items()}
    while free := [name for name, others in remaining.items() if not others & remaining.keys()]:
        for name in free:
            del remaining[name]
    assert sorted(remaining) == []


def test_the_root_holds_only_what_people_import_or_look_for() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == {
        "__init__",
        "decorators",
        "exceptions",
        "get_provider_info",
        "links",
        "retry_policy",
        "telemetry",
    }


def test_no_module_is_longer_than_four_hundred_lines() -> None:
    assert [name for name, path in MODULES.items() if len(path.read_text("utf-8").splitlines()) > 400] == []


def test_no_two_modules_share_a_name_unless_airflow_expects_it() -> None:
    names = [path.stem for path in PACKAGE.rglob("*.py")]
    # Airflow's own layout: hooks.flux, operators.flux, sensors.flux, triggers.flux.
    assert {name for name in names if names.count(name) > 1} == {"__init__", "flux"}
