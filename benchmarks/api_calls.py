"""Which calls tasks and triggers have made to Airflow's Execution API, by route, as the API server's log has them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

_CALL = re.compile(r"\bmethod=(?P<method>[A-Z]+)\b.*\bpath=/execution/(?P<path>\S+)")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def api_calls(log: Path) -> Counter[str]:
    """Count the calls, named as in ``PATCH task-instances run``."""
    with log.open(errors="replace") as lines:
        found = (_CALL.search(_ANSI.sub("", line)) for line in lines if "/execution/" in line)
        return Counter(_route(match["method"], match["path"]) for match in found if match)


def _route(method: str, path: str) -> str:
    resource, _, rest = path.partition("/")
    # Behind the id of a task instance comes what is to be done with it; behind all else come names.
    action = rest.partition("/")[2] if resource == "task-instances" else ""
    return " ".join(part for part in (method, resource, action) if part)
