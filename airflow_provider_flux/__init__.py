"""Apache Airflow provider for the FLUX image models behind Replicate-compatible gateways."""

from __future__ import annotations

__version__ = "0.2.0"
