"""The ledger while two know of it: the one that holds the lease, and one that has lost it without knowing."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from airflow_provider_flux.batch import ledger
from airflow_provider_flux.batch.ledger import Ledger, read_ledger, read_made
from airflow_provider_flux.batch.line_files import list_names, write_lines
from airflow_provider_flux.batch.model import Entry
from airflow_provider_flux.batch.row_store import RowStore

KEYS = ["a", "b", "c"]


def entry(key: str) -> Entry:
    outcome = {"status": "succeeded", "paths": [f"/pictures/{key}.png"]}
    return Entry(
        key=key,
        revision=1,
        run="run",
        generation=0,
        try_number=1,
        fingerprint="f",
        sent_at=1.0,
        prediction_id=key,
        outcome=outcome,
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A ledger whose segments become one right after they are listed for the first time."""
    for number, key in enumerate(KEYS, 1):
        write_lines(f"{tmp_path}/{number:010d}-writer.jsonl", [entry(key).as_line()])
    is_first = [True]

    def list_and_compact(path: str) -> list[str]:
        names = list_names(path)
        if is_first:
            is_first.clear()
            with RowStore() as store:
                store.put_entries(map(entry, KEYS))
                Ledger(path, names, store, logging.getLogger("test")).compact()
        return names

    monkeypatch.setattr(ledger, "list_names", list_and_compact)
    return str(tmp_path)


def test_a_ledger_that_is_made_smaller_while_it_is_read_is_read_whole(folder: str) -> None:
    with RowStore() as store:
        names = read_ledger(folder, store)
        assert [store.entry(key) for key in KEYS] == [entry(key) for key in KEYS]
    assert names == list_names(folder)
    assert len(names) == 1


def test_so_is_that_of_another_part(folder: str) -> None:
    assert sorted(made["key"] for made in read_made(folder)) == KEYS
