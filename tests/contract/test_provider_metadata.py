"""What Airflow reads of this provider."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from importlib import import_module, metadata, resources

import jsonschema
import pytest

from airflow_provider_flux import __version__
from airflow_provider_flux.get_provider_info import get_provider_info
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.links import (
    BATCH_OPERATORS,
    PREDICTION_OPERATORS,
    SENSORS,
    FluxPicturesLink,
    FluxPredictionLink,
    is_known_to_plugin,
)
from airflow_provider_flux.operators.batch import FluxBatchOperator
from airflow_provider_flux.operators.flux import FluxPredictionOperator
from airflow_provider_flux.sensors.flux import FluxPredictionSensor


def schema(name: str) -> dict[str, object]:
    import airflow

    loaded: dict[str, object] = json.loads(resources.files(airflow).joinpath(name).read_text("utf-8"))
    return loaded


def test_the_metadata_are_valid_for_airflows_discovery() -> None:
    jsonschema.validate(get_provider_info(), schema("provider_info.schema.json"))


def test_the_connection_fields_are_valid_in_the_stricter_schema_of_provider_files() -> None:
    try:
        strict = schema("provider.yaml.schema.json")
    except FileNotFoundError:
        pytest.skip("this Airflow ships no provider.yaml.schema.json; version 3.2 and later do")
    types = strict["properties"]["connection-types"]  # type: ignore[index]
    jsonschema.validate(get_provider_info()["connection-types"], {**strict, **types, "required": []})


def test_the_entry_point_is_how_airflow_finds_it() -> None:
    (entry_point,) = [
        found
        for found in metadata.entry_points(group="apache_airflow_provider")
        if found.dist is not None and found.dist.name == "airflow-provider-flux"
    ]
    assert entry_point.load()()["package-name"] == "airflow-provider-flux"
    assert entry_point.load()()["versions"] == [__version__]


def test_every_module_that_the_metadata_name_can_be_imported() -> None:
    info = get_provider_info()
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for entry in info[kind]:
            for module in entry["python-modules"]:
                importlib.import_module(module)


def test_airflow_builds_the_hook_and_the_connection_form_from_the_metadata() -> None:
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    hook = manager.hooks["flux"]
    assert hook is not None
    assert hook.hook_name == FluxHook.hook_name
    assert hook.connection_id_attribute_name == FluxHook.conn_name_attr
    behaviour = manager.field_behaviours["flux"]
    assert behaviour["relabeling"] == {"host": "Gateway URL", "password": "API key"}
    assert "airflow_provider_flux.links.FluxPredictionLink" in manager.extra_links_class_names


def test_every_option_of_the_connection_form_is_one_that_the_connection_understands() -> None:
    from airflow_provider_flux.client.connection import read_connection

    documented = read_connection.__doc__ or ""
    (connection_type,) = get_provider_info()["connection-types"]
    for option in connection_type["conn-fields"]:
        assert f"``{option}``" in documented


def test_operators_and_sensor_carry_the_links() -> None:
    for operator in (FluxPredictionOperator, FluxPredictionSensor):
        assert [type(link) for link in operator.operator_extra_links] == [FluxPredictionLink, FluxPicturesLink]
    assert [type(link) for link in FluxBatchOperator.operator_extra_links] == [FluxPicturesLink]


def test_the_plugin_knows_every_operator_by_its_name() -> None:
    for module, name in (*PREDICTION_OPERATORS, *SENSORS, *BATCH_OPERATORS):
        assert is_known_to_plugin(getattr(import_module(module), name))
    ours = {FluxPredictionOperator, FluxPredictionSensor, FluxBatchOperator}
    decorated = {
        each for parent in ours for each in parent.__subclasses__() if "airflow_provider_flux" in each.__module__
    }
    assert all(map(is_known_to_plugin, ours | decorated))
    assert len(decorated) == 2


def test_a_task_that_the_plugin_knows_pushes_no_links_and_one_of_a_derived_class_does() -> None:
    class Derived(FluxPredictionOperator):
        pass

    assert FluxPredictionOperator(task_id="make", model="a/b").operator_extra_links == ()
    assert FluxPredictionSensor(task_id="wait", prediction_id="a").operator_extra_links == ()
    links = Derived(task_id="make", model="a/b").operator_extra_links
    assert [type(link) for link in links] == [FluxPredictionLink, FluxPicturesLink]


def test_parsing_a_dag_loads_no_http_library() -> None:
    names = ("operators.flux", "operators.batch", "sensors.flux", "triggers.flux", "hooks.flux", "plugin")
    modules = ", ".join(f"airflow_provider_flux.{name}" for name in names)
    code = (
        f"import airflow.sdk, sys; before = set(sys.modules); import {modules}; "
        "print(sorted({'requests', 'aiohttp', 'PIL'} & (set(sys.modules) - before)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip().splitlines()[-1] == "[]"
