"""Stored pictures as OpenLineage tells of them. Without the OpenLineage provider nobody calls this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow_provider_flux.outputs.naming import without_connection
from airflow_provider_flux.outputs.storing import StoredPicture

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import RunFacet


def operator_lineage(
    pictures: Sequence[StoredPicture], *, gateway: str, model: str
) -> OperatorLineage[OutputDataset, RunFacet]:
    """Return what a task's ``get_openlineage_facets_on_complete`` tells: the files, and who made them.

    :param gateway: the gateway's name.
    :param model: the model that was asked for.
    """
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.facet_v2 import tags_run

    tags = [
        tags_run.TagsRunFacetFields(key="flux_gateway", value=gateway, source="airflow-provider-flux"),
        tags_run.TagsRunFacetFields(key="flux_model", value=model, source="airflow-provider-flux"),
    ]
    facets: dict[str, RunFacet] = {"tags": tags_run.TagsRunFacet(tags=tags)}
    return OperatorLineage(outputs=[_dataset(picture) for picture in pictures], run_facets=facets)


def _dataset(picture: StoredPicture) -> OutputDataset:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset

    namespace, name = _dataset_name(picture.path)
    statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(size=picture.size, fileCount=1)
    return OutputDataset(namespace=namespace, name=name, outputFacets={"outputStatistics": statistics})


def _dataset_name(path: str) -> tuple[str, str]:
    """Name a file as OpenLineage's naming rules do: ``s3://bucket`` and the key, ``file`` and the path."""
    scheme, bucket, key = without_connection(path)
    return (f"{scheme}://{bucket}", key.lstrip("/")) if bucket else ("file", key)
