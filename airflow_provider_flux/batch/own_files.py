"""The files in which a batch remembers what it has made, all beside its manifest, and what a table may not be."""

from __future__ import annotations

import os
import re

from airflow_provider_flux.batch.line_files import join
from airflow_provider_flux.exceptions import FluxInputError
from airflow_provider_flux.outputs.places import LOCAL
from airflow_provider_flux.outputs.storing import check_output_path

LEDGER = ".ledger"
"""Added to a manifest's name, names the folder of its ledger, its lease and its history."""

HISTORY = "history"
"""In that folder: rows that have pictures and are not in the manifest any more."""


PARTS = r"(\.part-\d+-of-\d+|\.map-\d+)*"
"""What may follow a manifest's name where several tasks share a table."""


def ledger_folder(manifest_path: str) -> str:
    """Return the folder of a manifest's ledger."""
    return f"{manifest_path}{LEDGER}"


def history_path(manifest_path: str) -> str:
    """Return where a batch remembers rows that its manifest does not list any more."""
    return join(ledger_folder(manifest_path), HISTORY)


def check_manifest_path(manifest_path: str) -> None:
    """Check that a manifest could be written there, before anything is paid for. Nothing is written.

    :raises FluxInputError: if it is a folder, or its folder cannot be used.
    :raises FluxStorageError: if this task's user may not write there.
    """
    from airflow.sdk import ObjectStoragePath

    folder, _, name = manifest_path.rpartition("/")
    check_output_path(folder or "/", argument="manifest_path")
    place = ObjectStoragePath(manifest_path)
    if not name or (place.protocol in LOCAL and os.path.isdir(place.path)):  # noqa: PTH112 (as realpath below)
        raise FluxInputError(
            f"manifest_path {manifest_path!r} is a folder. Nothing was sent. Give the path of a file in it."
        )


def check_table_path(rows: object, manifest_path: str) -> None:
    """Check that a table is none of the files that the batch itself writes.

    :param rows: the path of a table, or its rows.
    :param manifest_path: of the whole table.
    :raises FluxInputError: if it would be overwritten.
    """
    if not isinstance(rows, str):
        return
    try:
        table_at, table = _place(rows)
    except Exception:  # noqa: BLE001 (whoever reads the table says what is wrong with its path)
        return
    manifest_at, manifest = _place(manifest_path)
    own = rf"{re.escape(manifest)}{PARTS}({re.escape(LEDGER)}(/.*)?)?"
    if table_at == manifest_at and re.fullmatch(own, table):
        raise FluxInputError(
            f"rows is {rows!r}, which this batch would overwrite: its manifest is {manifest_path}. Nothing was sent. "
            "Give it another manifest_path or output_path, such as a folder of its own for each step."
        )


def _place(path: str) -> tuple[str, str]:
    """Return a path such that two ways to write it are the same. Connections make no difference."""
    from airflow.sdk import ObjectStoragePath

    place = ObjectStoragePath(path)
    if place.protocol in LOCAL:
        return "file", os.path.realpath(place.path)
    protocol = place.fs.protocol
    return protocol if isinstance(protocol, str) else protocol[0], str(place.path).rstrip("/")
