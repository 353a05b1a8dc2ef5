"""What Airflow needs to know of this provider. Imports nothing of it, since every Airflow process reads this."""

from __future__ import annotations

from typing import Any

from airflow_provider_flux import __version__

UI_FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["schema", "login", "port"],
    "relabeling": {"host": "Gateway URL", "password": "API key"},
    "placeholders": {
        "host": "https://api.deerapi.com",
        "password": "the key of your gateway account",
    },
}

CONNECTION_FIELDS: dict[str, Any] = {
    "gateway": {
        "label": "Gateway",
        "description": "Leave empty to let the URL decide.",
        "schema": {
            "type": ["string", "null"],
            "enum": ["deerapi", "cometapi", "replicate", "bfl", "custom", None],
            "default": None,
        },
    },
    "path_prefix": {
        "label": "Path prefix",
        "description": "Where a custom gateway serves the predictions; /replicate/v1 if empty.",
        "schema": {"type": ["string", "null"], "default": None},
    },
    "allow_http": {
        "label": "Allow plain http",
        "description": "The key travels in the clear. Loopback hosts need no permission.",
        "schema": {"type": ["boolean", "null"], "default": False},
    },
    "connect_timeout": {
        "label": "Connect timeout (s)",
        "description": "How long to try to make a connection; 10 if empty.",
        "schema": {"type": ["number", "null"], "exclusiveMinimum": 0, "default": None},
    },
    "read_timeout": {
        "label": "Read timeout (s)",
        "description": "How long a silent answer is waited for; 60 if empty.",
        "schema": {"type": ["number", "null"], "exclusiveMinimum": 0, "default": None},
    },
    "ca_file": {
        "label": "CA file",
        "description": "PEM file of authorities to trust instead of the usual ones.",
        "schema": {"type": ["string", "null"], "default": None},
    },
    "requests_per_minute": {
        "label": "Requests per minute",
        "description": "How many requests one process sends at most; the gateway's known limits if empty.",
        "schema": {"type": ["number", "null"], "exclusiveMinimum": 0, "default": None},
    },
    "prefer_wait": {
        "label": "Prefer: wait",
        "description": "Whether the gateway holds its answer to a create back until the picture is made.",
        "schema": {"type": ["boolean", "null"], "default": None},
    },
    "prices": {
        "label": "Prices",
        "description": 'What a picture costs in USD by model, as JSON: {"black-forest-labs/flux-schnell": 0.003}. '
        "Without it, budgets and spend count with the gateway's own list, or with Replicate's prices as a ceiling.",
        "schema": {"type": ["string", "null"], "format": "json", "default": None},
    },
    "private_outputs": {
        "label": "Private outputs",
        "description": "Allow pictures to be fetched from private addresses, for a gateway inside your network.",
        "schema": {"type": ["boolean", "null"], "default": False},
    },
    "webhook_base_url": {
        "label": "Webhook base URL",
        "description": "Where the gateway reaches this Airflow's API server, for webhook='auto'.",
        "schema": {"type": ["string", "null"], "default": None},
    },
    "webhook_secret": {
        "label": "Webhook secret",
        "description": "What webhooks are proved with. At Replicate it is asked for with the key if empty.",
        "schema": {"type": ["string", "null"], "format": "password", "default": None},
    },
    "airflow_user": {
        "label": "Airflow user",
        "description": "In whose name webhooks become asset events; has to read DAGs and assets, and read and "
        "create asset events.",
        "schema": {"type": ["string", "null"], "default": None},
    },
    "airflow_password": {
        "label": "Airflow password",
        "description": "The password of that user.",
        "schema": {"type": ["string", "null"], "format": "password", "default": None},
    },
}


OPTIONS: dict[str, Any] = {
    "freeze_loaded_objects": {
        "description": (
            "Leave what a triggerer has loaded by its first FLUX prediction out of Python's garbage collections "
            "(gc.freeze), which would hold up all triggers for 0.1 to 0.3 s each time."
        ),
        "version_added": "0.2.0",
        "type": "boolean",
        "example": None,
        "default": "True",
    },
}


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, in the form of Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "airflow-provider-flux",
        "name": "FLUX",
        "description": "Turns rows of data into pictures with the FLUX models, through DeerAPI, CometAPI, Replicate "
        "or Black Forest Labs itself.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": "FLUX",
                "external-doc-url": "https://apidoc.deerapi.com/api/image/flux/create-task-replicate",
                "tags": ["service"],
            }
        ],
        "connection-types": [
            {
                "connection-type": "flux",
                "hook-class-name": "airflow_provider_flux.hooks.flux.FluxHook",
                "hook-name": "FLUX gateway",
                "ui-field-behaviour": UI_FIELD_BEHAVIOUR,
                "conn-fields": CONNECTION_FIELDS,
            }
        ],
        "hooks": [{"integration-name": "FLUX", "python-modules": ["airflow_provider_flux.hooks.flux"]}],
        "operators": [
            {
                "integration-name": "FLUX",
                "python-modules": ["airflow_provider_flux.operators.flux", "airflow_provider_flux.operators.batch"],
            }
        ],
        "sensors": [{"integration-name": "FLUX", "python-modules": ["airflow_provider_flux.sensors.flux"]}],
        "triggers": [{"integration-name": "FLUX", "python-modules": ["airflow_provider_flux.triggers.flux"]}],
        "task-decorators": [
            {"name": "flux", "class-name": "airflow_provider_flux.decorators.flux_task"},
            {"name": "flux_batch", "class-name": "airflow_provider_flux.decorators.flux_batch_task"},
        ],
        "extra-links": [
            "airflow_provider_flux.links.FluxPredictionLink",
            "airflow_provider_flux.links.FluxPicturesLink",
        ],
        "config": {"flux": {"description": "What holds for all FLUX tasks of this Airflow.", "options": OPTIONS}},
    }
