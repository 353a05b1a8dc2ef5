"""Places in storages, as ``ObjectStoragePath`` knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

LOCAL = ("", "file", "local")
"""Protocols of this machine. Its files are reached directly: on Airflow 3.1, a path without a scheme has no ``fs``."""


def open_place(path: str) -> ObjectStoragePath:
    """Return a place whose storage can be reached, as far as that is known without asking it.

    :raises Exception: of many kinds, if no file system serves it, or its connection is missing.
    """
    from airflow.sdk import BaseHook, ObjectStoragePath

    place = ObjectStoragePath(path)
    if place.protocol not in LOCAL:
        if place.conn_id:
            # Amazon's file system goes on without a connection that it cannot find.
            BaseHook.get_connection(place.conn_id)
        _ = place.fs
    return place
