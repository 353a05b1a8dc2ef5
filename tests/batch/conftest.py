"""What the tests of batches share."""

from __future__ import annotations

import pytest

from airflow_provider_flux.batch import list_lookups
from airflow_provider_flux.protocol import lookup
from tests.outputs.conftest import s3, s3_server

__all__ = ["s3", "s3_server"]


@pytest.fixture(autouse=True)
def impatient_lookups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look into the gateway's list after tenths of seconds instead of a minute."""
    monkeypatch.setattr(list_lookups, "SHORTEST_PAUSE", 0.1)
    monkeypatch.setattr(lookup, "LOOKS_AFTER", (0.05, 0.1, 0.5))
