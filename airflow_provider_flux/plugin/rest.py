"""Airflow's own public REST API, asked in this process and as the user who is asking us.

What is read this way is what the user may read: Airflow checks each request with the user's own credentials, so no
permission is decided here. It is also the only view of its database that Airflow keeps stable.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastapi import HTTPException

if TYPE_CHECKING:
    import httpx
    from fastapi import Request

ALL = "~"
"""Airflow's wildcard for any DAG, run or task."""

PAGE = 100
"""Airflow's own limit (``[api] maximum_page_limit``)."""


class AirflowRest:
    """The public REST API as the user of one request sees it."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def get(self, path: str, **parameters: Any) -> dict[str, Any]:
        """Return an answer of ``/api/v2``.

        :raises HTTPException: with Airflow's own code and words, if it refuses.
        """
        answer = await self._client.get(f"/api/v2{path}", params=parameters)
        if not answer.is_success:
            raise HTTPException(answer.status_code, _refusal(answer))
        content: dict[str, Any] = answer.json()
        return content

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send something to ``/api/v2``, and return the answer.

        :raises HTTPException: with Airflow's own code and words, if it refuses.
        """
        answer = await self._client.post(f"/api/v2{path}", json=body)
        if not answer.is_success:
            raise HTTPException(answer.status_code, _refusal(answer))
        content: dict[str, Any] = answer.json()
        return content

    async def log_in(self, user: str, password: str) -> str:
        """Return a token for a user; without one, that of Airflow's own, where everybody may do everything.

        :raises HTTPException: with Airflow's own code and words, if it refuses.
        """
        credentials = {"username": user, "password": password}
        answer = await (self._client.post("/auth/token", json=credentials) if user else self._client.get("/auth/token"))
        if not answer.is_success:
            raise HTTPException(answer.status_code, _refusal(answer))
        token: str = answer.json()["access_token"]
        return token

    def authorize(self, token: str) -> None:
        """Make all further requests in the name of a token's user."""
        self._client.headers["Authorization"] = f"Bearer {token}"

    async def find(self, path: str, **parameters: Any) -> dict[str, Any] | None:
        """Return an answer of ``/api/v2``; None if there is no such thing."""
        try:
            return await self.get(path, **parameters)
        except HTTPException as error:
            if error.status_code != 404:
                raise
            return None


@asynccontextmanager
async def as_user_of(request: Request) -> AsyncIterator[AirflowRest]:
    """Provide the REST API with the credentials of a request."""
    headers = {name: request.headers[name] for name in ("cookie", "authorization") if name in request.headers}
    async with in_process(str(request.base_url.replace(path="/")), headers) as rest:
        yield rest


@asynccontextmanager
async def in_process(
    here: str = "http://localhost", headers: dict[str, str] | None = None
) -> AsyncIterator[AirflowRest]:
    """Provide the REST API of this process.

    :param here: how it is addressed.
    """
    import httpx
    from airflow.api_fastapi.app import cached_app

    transport = httpx.ASGITransport(app=cached_app())
    async with httpx.AsyncClient(transport=transport, base_url=here, headers=headers) as client:
        yield AirflowRest(client)


def run_path(dag_id: str, run_id: str) -> str:
    """Return the path of a DAG run."""
    return f"/dags/{_part(dag_id)}/dagRuns/{_part(run_id)}"


def task_path(dag_id: str, run_id: str, task_id: str) -> str:
    """Return the path of a task in a DAG run."""
    return f"{run_path(dag_id, run_id)}/taskInstances/{_part(task_id)}"


def _part(value: str) -> str:
    return quote(value, safe=ALL)


def _refusal(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"Airflow answered with status {answer.status_code}."
