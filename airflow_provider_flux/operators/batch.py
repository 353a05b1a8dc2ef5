"""The operator for whole tables: many rows, many pictures, one task."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow.sdk import BaseOperator

from airflow_provider_flux.exceptions import FluxInputError
from airflow_provider_flux.hooks.flux import FluxHook, OnUnknownSubmission
from airflow_provider_flux.inputs.transfer import InputTransfer, check_input_transfer
from airflow_provider_flux.links import FluxPicturesLink, leave_to_plugin
from airflow_provider_flux.operators.flux import DEFAULT_TIMEOUT
from airflow_provider_flux.protocol.fallbacks import USUAL_CAUSES, FallbackCause
from airflow_provider_flux.tasks.arguments import path_argument
from airflow_provider_flux.tasks.fallback_arguments import PATIENCE, check_fallbacks
from airflow_provider_flux.tasks.pending import check_poll_interval, check_timeout
from airflow_provider_flux.tasks.templating import TextTemplates

if TYPE_CHECKING:
    from os import PathLike

    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context, ObjectStoragePath

    from airflow_provider_flux.batch.planning import Way
    from airflow_provider_flux.batch.rows import Row
    from airflow_provider_flux.batch.run import BatchRun

OnRowError = Literal["continue", "fail"]
OnOverlap = Literal["wait", "fail"]


class FluxBatchOperator(TextTemplates, BaseOperator):
    """Make a picture, or several, for each row of a table, in one task on one worker slot.

    The task keeps a ledger on the storage of its manifest. Whatever ends it, another try goes on where it stopped: a
    row is paid for once. The manifest is a table in JSON Lines that tells of each row, in the table's order.

    Rows are rendered one by one: in ``model``, ``prompt`` and ``input``, ``{{ row.column }}`` stands for a column, and
    the rest of Airflow's context is there as well. A column that does not exist, or is null, is the row's error,
    unless the template provides for it: ``{{ row.name or 'a cup' }}``, ``default``, ``is none``.

    XComs: ``return_value`` is the manifest's path, ``flux_batch`` the totals. A try that ends well makes one event for
    each outlet, with the totals: an ``Asset`` itself, an ``AssetAlias`` with the manifest as its asset.

    Rows whose pictures are paid for and could not be stored let the task fail, whatever ``on_row_error`` says: another
    try fetches them without paying again.

    :param rows: a list of mappings, the path of a ``.jsonl``, ``.csv`` or ``.parquet`` file, or a part of one made by
        :func:`airflow_provider_flux.batch.rows.split_rows`. Files are read row by row.
    :param rows_options: how a file is read: ``delimiter`` of a CSV file, which is found out among ``, ; tab |`` if not
        given; ``encoding``, UTF-8 if not given; ``allow_empty``, without which a file of nothing is an error.
    :param model: ``owner/name``, a template, or a function of the row.
    :param prompt: a template, or a function of the row; a short way to write ``input={"prompt": ...}``.
    :param input: everything meant for the model: a mapping with templates, or a function of the row.
    :param key: what tells rows apart, the same in every run: a column, or a function of the row.
    :param output_path: folder for the pictures, anything ``ObjectStoragePath`` takes. They are named after the key.
    :param manifest_path: where the manifest goes; ``manifest.jsonl`` in ``output_path`` if not given. Parts add
        ``.part-i-of-n``; :func:`airflow_provider_flux.batch.manifest.merge_manifests` puts them together.
    :param flux_conn_id: connection of type ``flux``.
    :param max_in_flight: how many predictions may be made at a time.
    :param incremental: skip rows whose pictures the manifest lists, made of the same model and input, and still there.
        Pictures of other rows are never deleted.
    :param on_row_error: ``continue``, or ``fail`` to submit no more once a row has failed. What is in flight then has
        been paid for, and is still waited for and stored.
    :param max_failures: the same once more rows than this have failed.
    :param budget_usd: how much this run may spend, all its tries together. Needs a known price for every model: that
        of the provider's list, or ``prices`` in the connection's extra.
    :param timeout: how long a prediction may take from its submission; it is canceled then, and its row fails.
    :param poll_interval: exactly this many seconds between polls of a prediction; fitted to the model if not given.
    :param fallbacks: other ways to make a row, as :class:`~airflow_provider_flux.operators.flux.FluxPredictionOperator`
        describes them; what they say may be templates and functions of the row, too. One that was refused as
        unavailable ten times running is left out for a minute, then tried with one row.
    :param fallback_on: for what the next way is taken.
    :param patience: seconds for which a way that does not accept is tried before the next one is taken.
    :param input_files: paths of pictures by the names of their fields, for models that are not in the catalogue.
    :param input_transfer: how pictures from a path travel: ``inline`` as ``data:`` URIs, ``upload`` to Replicate,
        ``signed`` as URLs that their storage signs, or what fits best (``auto``).
    :param validate_input: check each input against its model's schema before it is sent.
    :param on_unknown_submission: what to do with a row of which nobody can know whether a prediction was made:
        ``fail`` it, or ``resubmit`` it once and risk paying twice. Where the gateway lists predictions (Replicate),
        both mean the same: its list tells, and nothing is sent again unless it shows that none was made.
    :param on_overlap: what to do while another run works on the same manifest: ``wait`` for it, within
        ``execution_timeout``, and go on from what it has made, or ``fail`` at once. Of several that begin together, one
        works. One that has given no sign of life for two minutes is taken over.
    :param adopt_manifest: take over the manifest of another task, for one run after a DAG or task was renamed. Without
        it such a manifest is refused, since that task would pay for all its rows again.
    :param cancel_on_kill: cancel what is in flight when the task is ended by a person or its worker is stopped.
    :param write_sidecars: write a JSON file with prompt, model, seed and times next to each row's pictures.
    """

    template_fields: Sequence[str] = (
        "rows",
        "rows_options",
        "flux_conn_id",
        "output_path",
        "manifest_path",
        "budget_usd",
    )
    operator_extra_links = (FluxPicturesLink(),)
    ui_color = "#efe6fb"

    def __init__(
        self,
        *,
        rows: Any,
        model: str | Callable[[Row], str],
        key: str | Callable[[Row], str],
        output_path: str | PathLike[str] | ObjectStoragePath,
        prompt: str | Callable[[Row], str] | None = None,
        input: Mapping[str, Any] | Callable[[Row], Mapping[str, Any]] | None = None,
        rows_options: Mapping[str, Any] | None = None,
        manifest_path: str | PathLike[str] | ObjectStoragePath | None = None,
        flux_conn_id: str = FluxHook.default_conn_name,
        max_in_flight: int = 20,
        incremental: bool = True,
        on_row_error: OnRowError = "continue",
        max_failures: int | None = None,
        budget_usd: float | str | None = None,
        timeout: float | timedelta = DEFAULT_TIMEOUT,
        poll_interval: float | None = None,
        fallbacks: Sequence[Mapping[str, Any]] = (),
        fallback_on: Collection[FallbackCause] = USUAL_CAUSES,
        patience: float = PATIENCE,
        input_files: Mapping[str, Any] | None = None,
        input_transfer: InputTransfer = "auto",
        validate_input: bool = True,
        on_unknown_submission: OnUnknownSubmission = "fail",
        on_overlap: OnOverlap = "wait",
        adopt_manifest: bool = False,
        cancel_on_kill: bool = True,
        write_sidecars: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        leave_to_plugin(self)
        _check_choice("on_unknown_submission", on_unknown_submission, get_args(OnUnknownSubmission))
        _check_choice("on_overlap", on_overlap, get_args(OnOverlap))
        _check_choice("on_row_error", on_row_error, get_args(OnRowError))
        if not max_in_flight >= 1:
            raise ValueError(f"max_in_flight must be 1 or more, not {max_in_flight!r}")
        check_poll_interval(poll_interval)
        check_input_transfer(input_transfer)
        check_timeout(timeout)
        check_fallbacks(fallbacks, fallback_on, patience)
        self.fallbacks = fallbacks
        self.fallback_on = fallback_on
        self.patience = patience
        self.rows = rows
        self.rows_options = rows_options
        self.model = model
        self.key = key
        self.output_path = output_path
        self.prompt = prompt
        self.input = input
        self.input_files = input_files
        self.input_transfer = input_transfer
        self.manifest_path = manifest_path
        self._manifest_is_given = manifest_path is not None
        self.flux_conn_id = flux_conn_id
        self.max_in_flight = max_in_flight
        self.incremental = incremental
        self.on_row_error = on_row_error
        self.max_failures = max_failures
        self.budget_usd = budget_usd
        self.timeout = timeout
        self.poll_interval = poll_interval
        self.validate_input = validate_input
        self.on_unknown_submission = on_unknown_submission
        self.on_overlap = on_overlap
        self.adopt_manifest = adopt_manifest
        self.cancel_on_kill = cancel_on_kill
        self.write_sidecars = write_sidecars
        self._killed = False
        self._batch: BatchRun | None = None
        self._totals: dict[str, Any] | None = None

    @cached_property
    def hook(self) -> FluxHook:
        """The gateway."""
        return FluxHook(self.flux_conn_id)

    def execute(self, context: Context) -> str:
        """Make the rows that are not made yet, and return the manifest's path."""
        from airflow_provider_flux.batch.asset_events import record_batch_event
        from airflow_provider_flux.batch.progress import PROGRESS_KEY

        self._batch = self._prepare(context)
        if self._killed:
            self._batch.kill()
        totals = self._batch.run()
        context["ti"].xcom_push(PROGRESS_KEY, totals)
        self._batch.check_result(totals)
        self._totals = totals
        record_batch_event(context, self.outlets, totals)
        return self._batch.manifest_path

    def on_kill(self) -> None:
        """Submit no more, and cancel what is in flight. The task's own thread sees to it; this returns at once."""
        self._killed = True
        if self._batch is not None:
            self._batch.kill()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """Tell OpenLineage of the manifest and of the pictures' folder."""
        if self._totals is None:
            return None
        from airflow_provider_flux.batch.asset_events import batch_lineage

        folders = self._batch.input_folders if self._batch is not None else ()
        return batch_lineage(self._totals, str(self.output_path), input_folders=folders, gateway=self.hook.gateway_name)

    def _prepare(self, context: Context) -> BatchRun:
        from airflow_provider_flux.batch import run

        self.output_path = output_path = path_argument("output_path", self.output_path).rstrip("/")
        manifest_path = self._manifest_path(output_path)
        table = run.Table.from_argument(self.rows, self.rows_options)
        timeout = self.timeout.total_seconds() if isinstance(self.timeout, timedelta) else float(self.timeout)
        ways = self._ways(context)
        return run.BatchRun(
            plan=run.BatchPlan(
                table=table,
                ways=ways,
                manifest_path=manifest_path,
                suffix=table.suffix or _suffix_of_mapped(context),
                lease=run.Lease.of_task(context["ti"]),
                waits_for_others=self.on_overlap == "wait",
                adopts_manifest=self.adopt_manifest,
            ),
            policy=run.BatchPolicy(
                run.Identity.of_task(context),
                can_list=[way.hook.access.gateway.preset.lists_predictions for way in ways],
                resubmits=self.on_unknown_submission == "resubmit",
                incremental=self.incremental,
            ),
            control=run.StopControl(self.on_row_error, self.max_failures),
            options=run.BatchOptions(
                output_path=output_path,
                max_in_flight=self.max_in_flight,
                budget_usd=self._budget(),
                timeout=timeout,
                poll_interval=self.poll_interval,
                validate_input=self.validate_input,
                cancel_on_kill=self.cancel_on_kill,
                write_sidecars=self.write_sidecars,
                input_transfer=self.input_transfer,
                fallback_on=tuple(self.fallback_on) if self.fallbacks else (),
                patience=self.patience,
            ),
            # Asked for by what is there, not by version: the store came with Airflow 3.3.
            figures=context.get("task_state_store"),
            log=self.log,
        )

    def _ways(self, context: Context) -> list[Way]:
        """Return the ways to make a row, each with its connection read."""
        from airflow_provider_flux.batch.planning import Way
        from airflow_provider_flux.batch.rendering import RowRenderer

        ways, hooks = [], {self.flux_conn_id: self.hook}
        for said in ({}, *self.fallbacks):
            conn_id = said.get("flux_conn_id", self.flux_conn_id)
            hook = hooks.setdefault(conn_id, FluxHook(conn_id))
            hook.learn_prices()
            model = said.get("model", self.model)
            renderer = RowRenderer(
                self.get_template_env(),
                context,
                key=self.key,
                model=model,
                prompt=self.prompt,
                input=said.get("input", self.input),
                input_files=self.input_files,
            )
            ways.append(Way(model if isinstance(model, str) else "the model of each row", renderer, hook))
        return ways

    def _manifest_path(self, output_path: str) -> str:
        if self.manifest_path is None and not self._manifest_is_given:
            return f"{output_path}/manifest.jsonl"
        # One that a template made nothing of would be another memory, and all rows paid for again.
        return path_argument("manifest_path", "" if self.manifest_path is None else self.manifest_path)

    def _budget(self) -> float | None:
        if self.budget_usd is None or self.budget_usd == "":
            return None
        try:
            budget = -1.0 if isinstance(self.budget_usd, bool) else float(self.budget_usd)
        except (TypeError, ValueError):
            budget = -1.0
        if not 0 <= budget < float("inf"):
            raise FluxInputError(f"budget_usd must be a number of USD, not {self.budget_usd!r}. Nothing was sent.")
        return budget


def _check_choice(name: str, choice: str, choices: Sequence[str]) -> None:
    if choice not in choices:
        raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}, not {choice!r}")


def _suffix_of_mapped(context: Context) -> str:
    """Return what keeps the manifests of tasks apart that are mapped over anything but the parts of a table."""
    index = context["ti"].map_index
    return f".map-{index}" if index is not None and index >= 0 else ""
