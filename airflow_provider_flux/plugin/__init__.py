"""FLUX in the Airflow UI: pictures and progress of a run or a task, and a page about all of them.

Every Airflow process imports this module, so it imports next to nothing. What answers requests (FastAPI, Pillow,
fsspec) is imported by the API server when the first request comes.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

from airflow_provider_flux.links import TASK_TAB
from airflow_provider_flux.plugin.buttons import PicturesButton, PredictionButton

URL_PREFIX = "/flux"
RUN_TAB = "flux-run"
PAGE = "flux"


async def _application(scope: Any, receive: Any, send: Any) -> None:
    """Answer a request; an ASGI application."""
    from airflow_provider_flux.plugin.app import app

    await app(scope, receive, send)


def _static(name: str) -> str:
    """Return the address of a static file. Airflow 3.1 and 3.2 resolve it differently from 3.3, unless it is a path
    from the root."""
    base_path = urlsplit(conf.get("api", "base_url", fallback="/")).path.rstrip("/")
    return f"{base_path}{URL_PREFIX}/static/{name}"


def _react_app(destination: str, url_route: str) -> dict[str, Any]:
    # Airflow looks the component up by this name; it is the same one everywhere and sees by its props where it is.
    return {
        "name": "FLUX",
        "bundle_url": _static("flux.js"),
        "destination": destination,
        "url_route": url_route,
        "icon": _static("icon.svg"),
    }


class FluxPlugin(AirflowPlugin):
    """Adds the tab "FLUX" to DAG runs and task instances, the page "FLUX" to the navigation, and what serves them."""

    name = "flux"
    operator_extra_links = [PredictionButton(), PicturesButton()]
    fastapi_apps = [{"name": "FLUX", "app": _application, "url_prefix": URL_PREFIX}]
    react_apps = [
        _react_app("dag_run", RUN_TAB),
        _react_app("task_instance", TASK_TAB),
        _react_app("nav", PAGE),
    ]
