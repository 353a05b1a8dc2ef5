"""What operator and sensor share."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.outputs.task_outputs import Storage, storage_of
from airflow_provider_flux.tasks.arguments import path_argument
from airflow_provider_flux.tasks.end_from_trigger import check_end_from_trigger
from airflow_provider_flux.tasks.templating import TextTemplates

if TYPE_CHECKING:
    from airflow_provider_flux.protocol.prediction import Prediction
    from airflow_provider_flux.tasks.end_from_trigger import EndFromTrigger


class PredictionTask(TextTemplates):
    """A task that waits for one prediction, and may store its pictures. Comes before Airflow's own base class.

    :ivar prediction_page: the prediction's page for people, for the link: empty if there is none, None to leave what an
        earlier part of the same try has pushed.
    """

    log: Any
    outlets: list[Any]
    flux_conn_id: str
    output_path: Any
    output_sidecar: bool
    prediction_page: str | None = ""
    end_from_trigger: bool
    _ending: EndFromTrigger
    _stores_pictures = False

    @cached_property
    def hook(self) -> FluxHook:
        """The hook of this task's connection."""
        return FluxHook(self.flux_conn_id)

    @cached_property
    def _storage(self) -> Storage | None:
        if self.output_path is not None or self._stores_pictures:
            # A template that gave nothing would leave pictures to expire that were to be kept.
            self.output_path = path_argument("output_path", "" if self.output_path is None else self.output_path)
        return storage_of(self.output_path, sidecar=self.output_sidecar, outlets=self.outlets)

    def _choose_ending(self, choice: EndFromTrigger) -> None:
        check_end_from_trigger(choice)
        self._ending = choice
        # Where there is any listener, Airflow refuses a DAG for what is true here (dag_processing/dagbag.py). "auto"
        # heeds listeners by itself.
        self.end_from_trigger = choice is True

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return the stored files as OpenLineage tells of them (its provider calls this); None if there are none."""
        stored = self._storage
        model = getattr(self, "model", "")
        return None if stored is None else stored.lineage(self.hook.access.gateway.preset.name, model)

    def _show_page(self, prediction: Prediction | None) -> None:
        if prediction is not None:
            self.prediction_page = self.hook.access.gateway.page(prediction)
