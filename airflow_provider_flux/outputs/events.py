"""Stored pictures as asset events, so that other DAGs can be scheduled by them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_flux.outputs.naming import without_connection
from airflow_provider_flux.outputs.storing import StoredPicture
from airflow_provider_flux.protocol.messages import JSON

if TYPE_CHECKING:
    from airflow.sdk import Context


def record_asset_events(
    context: Context,
    outlets: Iterable[Any],
    pictures: Sequence[StoredPicture],
    facts: Mapping[str, JSON] | None = None,
) -> None:
    """Tell Airflow of pictures that have been stored.

    An ``AssetAlias`` among the outlets gets an event for each picture, whose asset is the picture's place. An ``Asset``
    gets one event that lists them all. Must be called by the worker that ends the task: what is recorded before a
    deferral is lost.

    :param outlets: the task's outlets.
    :param facts: more for each event, such as the prompt; plain JSON.
    """
    from airflow.sdk import Asset, AssetAlias

    for outlet in outlets:
        if isinstance(outlet, AssetAlias):
            for picture in pictures:
                event = context["outlet_events"][outlet]
                event.add(Asset(asset_uri(picture.path)), extra={**(facts or {}), **_extra(picture)})
        elif isinstance(outlet, Asset):
            listed: list[JSON] = [{"uri": asset_uri(picture.path), **_extra(picture)} for picture in pictures]
            context["outlet_events"][outlet].extra.update({**(facts or {}), "pictures": listed})


def asset_uri(path: str) -> str:
    """Return a path as the URI of an asset."""
    scheme, bucket, key = without_connection(path)
    return f"{scheme or 'file'}://{bucket}{key}"


def _extra(picture: StoredPicture) -> dict[str, Any]:
    return {
        "size": picture.size,
        "sha256": picture.sha256,
        "width": picture.width,
        "height": picture.height,
        "format": picture.format,
    }
