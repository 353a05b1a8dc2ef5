"""A pytest plugin: name it in ``pytest_plugins`` to get the ``flux_emulator`` fixture."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_flux.emulator.server import Emulator


@pytest.fixture
def flux_emulator() -> Iterator[Emulator]:
    """Give a fresh emulator whose predictions take a hundredth of their usual time."""
    with Emulator(speed=100.0) as emulator:
        yield emulator
