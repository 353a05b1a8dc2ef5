"""Other ways to make a picture, as a DAG's author writes them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, get_args

from airflow_provider_flux.protocol.fallbacks import FallbackCause

PATIENCE = 120.0
"""Seconds for which a way that does not accept is tried."""

FIELDS = ("model", "flux_conn_id", "input")
"""What a fallback says. What it leaves out is as in the first way; ``input`` replaces all of it but for the prompt."""


def check_fallbacks(
    fallbacks: Sequence[Mapping[str, Any]], fallback_on: Collection[FallbackCause], patience: float
) -> None:
    """Refuse fallbacks that are none.

    :raises ValueError: when the DAG is parsed.
    """
    if isinstance(fallbacks, (str, Mapping)) or not all(isinstance(said, Mapping) for said in fallbacks):
        raise ValueError(f"fallbacks must be a list of objects such as {{'model': 'owner/name'}}, not {fallbacks!r}")
    for said in fallbacks:
        unknown = sorted(set(said) - set(FIELDS))
        if unknown or not said:
            what = f"not {', '.join(map(repr, unknown))}" if unknown else "not nothing"
            raise ValueError(f"a fallback says some of {', '.join(FIELDS)}; {what}")
    causes = get_args(FallbackCause)
    unknown = [cause for cause in fallback_on if cause not in causes] if not isinstance(fallback_on, str) else [""]
    if unknown:
        raise ValueError(f"fallback_on must be some of {', '.join(causes)}; not {fallback_on!r}")
    if not patience > 0:
        raise ValueError(f"patience must be a number of seconds above 0, not {patience!r}")
