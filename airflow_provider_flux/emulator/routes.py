"""Every address that the two origins serve, in the order in which they are tried; the last ones take all the rest."""

from __future__ import annotations

from airflow_provider_flux.emulator import bfl, billing, files, gateway, pages, replicate, uploads
from airflow_provider_flux.emulator.calls import Route

ROUTES = (
    Route("POST", "/replicate/v1/models/{owner}/{name}/predictions", gateway.create_by_model, "create"),
    Route("POST", "/replicate/v1/predictions", gateway.create_legacy, "create"),
    Route("GET HEAD", "/replicate/v1/predictions/{id}", gateway.query, "get"),
    Route("POST", "/replicate/v1/predictions/{id}/cancel", gateway.cancel, "cancel"),
    Route("GET HEAD", "/replicate/v1/predictions", gateway.list_all, "list", needs_key=False),
    Route("GET HEAD", "/flux/v1/get_result", bfl.query_any, "get", "bfl"),
    Route("POST", "/flux/v1/{model}", bfl.create_at_gateway, "create", "bfl"),
    Route("GET HEAD", "/api/models", billing.price_list, "models", needs_key=False),
    Route("GET HEAD", "/v1/models", billing.model_list, "models"),
    Route("GET HEAD", "/user/quota", billing.quota, "balance", needs_key=False),
    Route("GET HEAD", "/v1/dashboard/billing/subscription", billing.subscription, "balance"),
    Route("GET HEAD", "/v1/dashboard/billing/usage", billing.usage, "balance"),
    Route("GET HEAD", "/api/usage/token", billing.token_usage, "balance"),
    Route("POST", "/v1/models/{owner}/{name}/predictions", replicate.create_by_model, "create", "replicate"),
    Route("POST", "/v1/predictions", replicate.create_legacy, "create", "replicate"),
    Route("GET", "/v1/predictions/{id}", replicate.query, "get", "replicate"),
    Route("POST", "/v1/predictions/{id}/cancel", replicate.cancel, "cancel", "replicate"),
    Route("GET", "/v1/predictions", replicate.list_page, "list", "replicate"),
    Route("POST", "/v1/deployments/{owner}/{name}/predictions", replicate.create_by_deployment, "create", "replicate"),
    Route("GET", "/v1/account", replicate.account, "other", "replicate"),
    Route("GET", "/v1/models/{owner}/{name}", replicate.describe_model, "models", "replicate"),
    Route("GET", "/v1/webhooks/default/secret", replicate.webhook_secret, "other", "replicate"),
    Route("POST", "/v1/files", uploads.upload, "upload", "replicate"),
    Route("GET", "/v1/files", uploads.list_all, "other", "replicate"),
    Route("GET", "/v1/files/{id}", uploads.describe, "other", "replicate"),
    Route("DELETE", "/v1/files/{id}", uploads.delete, "other", "replicate"),
    Route("GET HEAD", "/v1/get_result", bfl.query, "get", "bfl_itself"),
    Route("GET HEAD", "/v1/credits", bfl.credits_left, "balance", "bfl_itself"),
    Route("POST", "/v1/{model}", bfl.create, "create", "bfl_itself"),
    Route("GET HEAD", "/", pages.start, "page", needs_key=False),
    Route("GET HEAD", "/p/{id}", pages.one, "page", needs_key=False),
    Route("*", "/v1/{tail:.*}", pages.no_route, "unknown", "replicate"),
    Route("*", "/{tail:.*}", pages.no_page, "unknown", needs_key=False),
    Route("GET HEAD", r"/output/{id}/out-{number:\d{1,3}}.{ending}", files.file, "file", "file", "foreign", False),
    Route("*", "/{tail:.*}", files.other, "foreign", "replicate", "foreign", False),
)
