"""What the UI asks for: static files for anyone, and for who may read a DAG's XComs its predictions and pictures.

And what gateways call, see :mod:`.webhook_receiver`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import anyio
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.staticfiles import StaticFiles

from airflow_provider_flux.plugin import picture_files, reading, webhook_receiver
from airflow_provider_flux.plugin.rest import ALL, PAGE, AirflowRest, as_user_of

STATIC_FILES = Path(__file__).parent / "static"
THUMBNAIL_WIDTH = 480
DRAWN_AT_ONCE = 2
"""Each may take 100 MB for a moment."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    # Nothing that comes from here may run as a page, whatever a browser is talked into taking it for.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
ASK_AGAIN = "no-cache"
NEVER_KEPT = "no-store"
KEPT_FOR_EVER = "private, max-age=31536000, immutable"
"""A picture's address holds its sha256."""

app = FastAPI(title="FLUX", docs_url=None, redoc_url=None, openapi_url=None)
_drawing = anyio.CapacityLimiter(DRAWN_AT_ONCE)


@app.middleware("http")
async def _add_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", NEVER_KEPT)
    return response


class _StaticFiles(StaticFiles):
    def file_response(self, *arguments: Any, **options: Any) -> Response:
        response = super().file_response(*arguments, **options)
        response.headers["Cache-Control"] = ASK_AGAIN
        return response


app.include_router(webhook_receiver.router)
app.mount("/static", _StaticFiles(directory=STATIC_FILES))

# Airflow's check takes the DAG from the query, and a request without one for one about all DAGs: so it is required.
_may_read_xcoms = Depends(requires_access_dag("GET", DagAccessEntity.XCOM))


async def _rest(request: Request) -> AsyncIterator[AirflowRest]:
    async with as_user_of(request) as rest:
        yield rest


def _scope(dag_id: str, run_id: str = ALL, task_id: str = ALL, map_index: int | None = None) -> reading.Scope:
    return reading.Scope(dag_id, run_id, task_id, map_index)


def _task_instance(dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> reading.Scope:
    if ALL in (dag_id, run_id, task_id):
        raise HTTPException(422, "A single task instance must be named.")
    return reading.Scope(dag_id, run_id, task_id, map_index)


Rest = Annotated[AirflowRest, Depends(_rest)]
Scope = Annotated[reading.Scope, Depends(_scope)]
TaskInstance = Annotated[reading.Scope, Depends(_task_instance)]
Sha256 = Annotated[str, Query(pattern="^[0-9a-f]{64}$")]
Offset = Annotated[int, Query(ge=0)]
Limit = Annotated[int, Query(ge=1, le=PAGE)]


@app.get("/state", dependencies=[_may_read_xcoms])
async def state(rest: Rest, scope: Scope) -> dict[str, Any]:
    """Tell how far a run or a task instance is."""
    return await reading.state(rest, scope)


@app.get("/predictions", dependencies=[_may_read_xcoms])
async def predictions(
    rest: Rest, scope: Scope, offset: Offset = 0, limit: Limit = PAGE, since: str | None = None
) -> dict[str, Any]:
    """Return predictions; ``~`` stands for all DAGs that the user may see, all runs, all tasks."""
    return await reading.predictions(rest, scope, offset=offset, limit=limit, since=since)


@app.get("/unsettled", dependencies=[_may_read_xcoms])
async def unsettled(rest: Rest, scope: Scope, offset: Offset = 0, since: str | None = None) -> dict[str, Any]:
    """Return predictions whose tasks have not pushed yet what became of them."""
    return await reading.unsettled(rest, scope, offset=offset, since=since)


@app.get("/batches", dependencies=[_may_read_xcoms])
async def batches(rest: Rest, scope: Scope, since: str | None = None) -> dict[str, Any]:
    """Return the figures of the batches in the scope."""
    return {"batches": await reading.batches(rest, scope, since=since)}


@app.get("/rows", dependencies=[_may_read_xcoms])
async def rows(
    rest: Rest, task: TaskInstance, offset: Offset = 0, status: str | None = None, model: str | None = None
) -> dict[str, Any]:
    """Return a hundred rows of the manifest of a batch that has ended, and what all of its rows can be filtered by."""
    manifest = await reading.manifest_of(rest, task)
    if manifest is None:
        raise HTTPException(404, "This task instance has recorded no manifest.")
    every = await _served(picture_files.manifest, *manifest)
    wanted = [row for row in every if status in (None, row["status"]) and model in (None, row.get("model"))]
    shown = wanted[offset : offset + PAGE]
    return {
        "total": len(wanted),
        "next": offset + len(shown),
        "predictions": shown,
        "statuses": Counter(row["status"] for row in every),
        "models": sorted({row["model"] for row in every if row.get("model")}),
    }


@app.get("/picture", dependencies=[_may_read_xcoms])
async def picture(rest: Rest, task: TaskInstance, sha256: Sha256, small: bool = False) -> Response:
    """Return a picture that this task instance has stored, or was given.

    The path is never taken from the request: it is looked up in what the task instance recorded, by the sha256.
    """
    paths = await reading.recorded_paths(rest, task, sha256)
    if not paths and (manifest := await reading.manifest_of(rest, task)):
        paths = reading.paths_of(sha256, await _served(picture_files.manifest, *manifest))
    if not paths:
        raise HTTPException(404, "This task instance has recorded no such picture.")
    if small:
        content, media_type = await _served(picture_files.thumbnail, paths[0], sha256, THUMBNAIL_WIDTH)
    else:
        content, media_type = await _served(picture_files.picture, paths[0], sha256)
    return Response(content, media_type=media_type, headers={"Cache-Control": KEPT_FOR_EVER})


async def _served(read: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return await anyio.to_thread.run_sync(read, *arguments, limiter=_drawing)
    except picture_files.NotServedError as error:
        # Which reason it is would tell a stranger about files that are not theirs.
        raise HTTPException(404, "The file is gone, or is not what the task recorded.") from error
