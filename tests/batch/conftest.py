"""What the tests of batches share."""

from __future__ import annotations

import pytest

from airflow_provider_flux import submission
from airflow_provider_flux.batch import engine
from airflow_provider_flux.hooks import flux
from tests.outputs.conftest import s3, s3_server

__all__ = ["s3", "s3_server"]


@pytest.fixture(autouse=True)
def impatient_lookups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look into the gateway's list after tenths of seconds instead of a minute."""
    monkeypatch.setattr(engine, "LOOKUP_PAUSE", 0.1)
    monkeypatch.setattr(submission, "LISTED_AFTER", 0.5)
    monkeypatch.setattr(flux, "LOOKUP_PAUSES", (0.05, 0.1))
