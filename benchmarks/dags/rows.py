"""What every way of making pictures is given: as many rows as `BENCHMARK_ROWS` says, and some of them to warm up.

As many as may run at once: a process of LocalExecutor takes seconds of CPU for what it loads with its first task, which
the mode that happens to come first would otherwise pay for.
"""

from __future__ import annotations

import os
from typing import Any

MODEL = "black-forest-labs/flux-1.1-pro"
WARM_UP = 32
COUNTS = (WARM_UP, int(os.environ["BENCHMARK_ROWS"]))


def inputs(rows: int) -> list[dict[str, Any]]:
    return [{"prompt": f"A paper boat number {row} on calm water at sunrise.", "seed": row} for row in range(rows)]
