"""The protocol stands on its own: whatever parses a DAG or drives a flow may import it for nothing."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

from airflow_provider_flux import protocol

MODULES = sorted(f"{protocol.__name__}.{module.name}" for module in pkgutil.iter_modules(protocol.__path__))

PROBE = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
heavy = {"airflow", "requests", "aiohttp", "urllib3", "httpx", "jsonschema"}
print(",".join(sorted(heavy & {name.partition(".")[0] for name in sys.modules})))
"""


def test_importing_the_protocol_imports_no_airflow_and_no_http_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *MODULES], check=True, capture_output=True, text=True, timeout=60
    )
    assert len(MODULES) >= 7
    assert done.stdout.strip() == ""
