"""Stored pictures as OpenLineage tells of them. Without the OpenLineage provider nobody calls this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_flux.outputs.naming import without_connection

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import InputDataset, OutputDataset
    from openlineage.client.facet_v2 import RunFacet

    from airflow_provider_flux.outputs.storing import StoredPicture


def operator_lineage(
    pictures: Sequence[StoredPicture], *, made_from: Sequence[str] = (), gateway: str, model: str
) -> OperatorLineage[Any, RunFacet]:
    """Return what a task's ``get_openlineage_facets_on_complete`` tells: the files, and who made them.

    :param made_from: paths of the pictures that the model was given.
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
    outputs = [_picture(picture) for picture in pictures]
    return OperatorLineage(inputs=list(map(input_dataset, made_from)), outputs=outputs, run_facets=facets)


def dataset(path: str, **facets: Any) -> OutputDataset:
    """Name a place as OpenLineage's naming rules do: ``s3://bucket`` and the key, ``file`` and the path.

    :param facets: what else is told of it, by the facet's name.
    """
    from openlineage.client.event_v2 import OutputDataset

    namespace, name = _names(path)
    return OutputDataset(namespace=namespace, name=name, outputFacets=facets)


def input_dataset(path: str) -> InputDataset:
    """Name a place that was read, as :func:`dataset` does one that was written."""
    from openlineage.client.event_v2 import InputDataset

    namespace, name = _names(path)
    return InputDataset(namespace=namespace, name=name)


def _names(path: str) -> tuple[str, str]:
    scheme, bucket, key = without_connection(path)
    return (f"{scheme}://{bucket}", key.lstrip("/")) if bucket else ("file", key)


def _picture(picture: StoredPicture) -> OutputDataset:
    from openlineage.client.facet_v2 import output_statistics_output_dataset

    statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(size=picture.size, fileCount=1)
    return dataset(picture.path, outputStatistics=statistics)
