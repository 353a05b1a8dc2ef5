"""Which tests go to one process when they run side by side."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

APART = (
    "tests/client/test_coalesced_polling.py",
    "tests/hooks/",
    "tests/money/",
    "tests/operators/",
    "tests/sensors/",
    "tests/triggers/",
    "tests/wire/",
)
"""Their tests wait more than they work, and share nothing that takes long to make: each may run in any process."""

TOGETHER = (
    ("tests/on_airflow/",),
    (
        "tests/batch/test_parts.py",
        "tests/batch/test_telling.py",
        "tests/decorators/",
        "tests/durable/",
        "tests/outputs/test_events.py",
        "tests/plugin/",
        "tests/smoke/",
    ),
)
"""Their tests run tasks in Airflow, for which each process must first work for seconds."""


class Sharing(LoadScopeScheduling):
    """Shares the tests out file by file, but for those that are better kept apart or together."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(APART):
            return nodeid
        for paths in TOGETHER:
            if nodeid.startswith(paths):
                return paths[0]
        return nodeid.partition("::")[0]
