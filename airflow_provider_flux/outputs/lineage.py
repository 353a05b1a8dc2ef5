"""Stored pictures as OpenLineage tells of them. Without the OpenLineage provider nobody calls this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_flux.outputs.naming import without_connection

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import RunFacet

    from airflow_provider_flux.outputs.storing import StoredPicture


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
    return OperatorLineage(outputs=[_picture(picture) for picture in pictures], run_facets=facets)


def dataset(path: str, **facets: Any) -> OutputDataset:
    """Name a place as OpenLineage's naming rules do: ``s3://bucket`` and the key, ``file`` and the path.

    :param facets: what else is told of it, by the facet's name.
    """
    from openlineage.client.event_v2 import OutputDataset

    scheme, bucket, key = without_connection(path)
    namespace, name = (f"{scheme}://{bucket}", key.lstrip("/")) if bucket else ("file", key)
    return OutputDataset(namespace=namespace, name=name, outputFacets=facets)


def _picture(picture: StoredPicture) -> OutputDataset:
    from openlineage.client.facet_v2 import output_statistics_output_dataset

    statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(size=picture.size, fileCount=1)
    return dataset(picture.path, outputStatistics=statistics)
