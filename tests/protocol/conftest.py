"""The protocol is tested with the waits it really has: its clock is virtual, so none of them takes time."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="session")
def short_pauses() -> None:
    """Leave the backoff as it is."""
