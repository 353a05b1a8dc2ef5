"""What other DAGs and OpenLineage are told of a batch: one event for all of it, since a table may have any length."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_flux.outputs.events import asset_uri
from airflow_provider_flux.outputs.lineage import dataset, input_dataset

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context
    from openlineage.client.facet_v2 import RunFacet

TOLD = (
    *("manifest_path", "total", "succeeded", "kept", "failed", "unknown", "removed"),
    *("spent_usd", "spent_is_at_most", "measured_usd"),
)
"""The totals that an event brings."""


def record_batch_event(context: Context, outlets: Iterable[Any], totals: Mapping[str, Any]) -> None:
    """Tell Airflow of a batch that has ended well.

    An ``Asset`` among the outlets gets one event, an ``AssetAlias`` one whose asset is the manifest.

    :param outlets: the task's outlets.
    :param totals: what :meth:`airflow_provider_flux.batch.run.BatchRun.run` returned.
    """
    from airflow.sdk import Asset, AssetAlias

    facts = {name: totals[name] for name in TOLD}
    for outlet in outlets:
        if isinstance(outlet, AssetAlias):
            context["outlet_events"][outlet].add(Asset(asset_uri(totals["manifest_path"])), extra=facts)
        elif isinstance(outlet, Asset):
            context["outlet_events"][outlet].extra.update(facts)


def batch_lineage(
    totals: Mapping[str, Any], output_path: str, *, input_folders: Iterable[str] = (), gateway: str
) -> OperatorLineage[Any, RunFacet]:
    """Return what the operator's ``get_openlineage_facets_on_complete`` tells: the manifest and the pictures' folder.

    :param totals: what :meth:`airflow_provider_flux.batch.run.BatchRun.run` returned.
    :param output_path: the pictures' folder.
    :param input_folders: the folders of the pictures that rows were made from.
    :param gateway: the gateway's name.
    """
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.facet_v2 import output_statistics_output_dataset, tags_run

    statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=totals["total"])
    tag = tags_run.TagsRunFacetFields(key="flux_gateway", value=gateway, source="airflow-provider-flux")
    facets: dict[str, RunFacet] = {"tags": tags_run.TagsRunFacet(tags=[tag])}
    outputs = [dataset(totals["manifest_path"], outputStatistics=statistics), dataset(output_path)]
    inputs = [input_dataset(folder) for folder in sorted(input_folders)]
    return OperatorLineage(inputs=inputs, outputs=outputs, run_facets=facets)
