"""Storing the pictures of a task's prediction, and telling Airflow of them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_flux.protocol.messages import JSON
from airflow_provider_flux.protocol.picture_inputs import pictures_of
from airflow_provider_flux.protocol.prediction import Prediction

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from airflow_provider_flux.client.connection import GatewayAccess
    from airflow_provider_flux.outputs.storing import StoredPicture


PATIENCE = 600.0
"""Seconds for which a worker tries to fetch files. A retry of the task goes on while they live."""


@dataclass(slots=True)
class Storage:
    """Where the pictures of a task go, and what has been stored.

    :param output_path: the folder, anything ``ObjectStoragePath`` takes.
    :param sidecar: write a JSON file with the facts next to them.
    :param outlets: the task's outlets, which get an asset event for what is stored.
    :param pictures: what has been stored.
    :param made_from: paths of the pictures that the model was given.
    """

    output_path: str
    sidecar: bool
    outlets: Sequence[Any]
    pictures: list[StoredPicture] = field(default_factory=list)
    made_from: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Check that pictures could be stored there, before they are paid for.

        :raises FluxInputError: if not.
        """
        from airflow_provider_flux.outputs.storing import check_output_path

        check_output_path(self.output_path)

    def store(
        self,
        context: Context,
        prediction: Prediction,
        access: GatewayAccess,
        *,
        model: str,
        input: Mapping[str, JSON],
        deadline: float | None = None,
    ) -> list[StoredPicture]:
        """Store the pictures of a prediction that succeeded, under names that a retry overwrites.

        :param deadline: when the task is to end, in seconds since the epoch.
        :raises FluxOutputExpiredError: if a file is gone.
        :raises FluxOutputError: if an output can never be stored.
        :raises FluxOutputNotStoredError: if one could not be fetched or stored this time.
        """
        from airflow_provider_flux.outputs.events import record_asset_events
        from airflow_provider_flux.outputs.fetching import FetchRules
        from airflow_provider_flux.outputs.naming import task_stem
        from airflow_provider_flux.outputs.sidecar import describe
        from airflow_provider_flux.outputs.storing import store_outputs
        from airflow_provider_flux.protocol.times import expires_at

        task_instance: Any = context["ti"]
        stem = task_stem(
            self.output_path,
            dag_id=task_instance.dag_id,
            run_id=task_instance.run_id,
            task_id=task_instance.task_id,
            map_index=task_instance.map_index,
            prediction_id=prediction.id,
        )
        self.made_from = [picture["path"] for _, picture in pictures_of(input)]
        facts = describe(prediction, gateway=access.gateway.preset.name, model=model, input=input)
        self.pictures = store_outputs(
            prediction.outputs,
            stem,
            prediction_id=prediction.id,
            rules=FetchRules(allow_private=access.allow_private_outputs, ca_file=access.ca_file),
            expires_at=min(expires_at(prediction) or math.inf, time.time() + PATIENCE),
            give_up_at=deadline,
            sidecar=facts if self.sidecar else None,
        )
        told = ("prediction_id", "gateway", "model", "prompt", "seed")
        record_asset_events(context, self.outlets, self.pictures, {name: facts[name] for name in told})
        return self.pictures

    def lineage(self, gateway: str, model: str) -> OperatorLineage[Any, Any]:
        """Return what OpenLineage is told of the files."""
        from airflow_provider_flux.outputs.lineage import operator_lineage

        return operator_lineage(self.pictures, made_from=self.made_from, gateway=gateway, model=model)


def storage_of(output_path: str | None, *, sidecar: bool, outlets: Sequence[Any]) -> Storage | None:
    """Return where a task's pictures go; None for a task that leaves them where they are."""
    return Storage(output_path, sidecar, outlets) if output_path else None
