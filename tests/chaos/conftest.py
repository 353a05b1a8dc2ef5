"""The long run is made only where it is asked for with ``-m chaos``."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "chaos: hundreds of single predictions under seeded faults and kills")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "chaos" in (config.option.markexpr or ""):
        return
    unasked = [item for item in items if item.get_closest_marker("chaos")]
    config.hook.pytest_deselected(items=unasked)
    items[:] = [item for item in items if item not in unasked]
