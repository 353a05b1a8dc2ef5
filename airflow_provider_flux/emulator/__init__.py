"""A local gateway for FLUX models: no key, no cost, no model, but real picture files.

Start it with ``python -m airflow_provider_flux.emulator``, or inside a test::

    with Emulator(speed=50) as emulator:
        print(emulator.url)
"""

from __future__ import annotations

from airflow_provider_flux.emulator.predictions import PredictionSnapshot
from airflow_provider_flux.emulator.request_log import Counters, RequestRecord
from airflow_provider_flux.emulator.rules import FAULT_KINDS, FAULTS, FILE_FAULTS, OUTCOMES, FaultRule, OutcomeRule
from airflow_provider_flux.emulator.server import Emulator
from airflow_provider_flux.emulator.settings import Settings

__all__ = [
    "Emulator",
    "FaultRule",
    "OutcomeRule",
    "Settings",
    "PredictionSnapshot",
    "RequestRecord",
    "Counters",
    "FAULTS",
    "FILE_FAULTS",
    "FAULT_KINDS",
    "OUTCOMES",
]
