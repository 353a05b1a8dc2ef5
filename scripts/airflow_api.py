"""A small client of Airflow's public REST API (`/api/v2`, the same in Airflow 3.1 to 3.3)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal
from urllib.parse import quote

import requests

FINISHED_RUN_STATES = frozenset({"success", "failed"})
NOT_MAPPED = -1
PAGE = 100  # [api] maximum_page_limit

TaskStates = dict[str, str]
"""Task instance name, `task_id` or `task_id[map_index]`, to its state."""


class AirflowApiError(RuntimeError):
    """The API server refused a request."""

    def __init__(self, method: str, path: str, response: requests.Response):
        super().__init__(f"{method} {path} answered {response.status_code}: {response.text[:1000]}")
        self.status = response.status_code


class RunTimeoutError(TimeoutError):
    """A DAG run did not end in the time given."""


class AirflowApi:
    """One user's view of an Airflow deployment."""

    def __init__(self, base_url: str, username: str, password: str):
        self.base_url = base_url.rstrip("/")
        self._credentials = {"username": username, "password": password}
        self._token: str | None = None
        self._session = requests.Session()
        self._session.trust_env = False  # neither a proxy nor a .netrc has a say on loopback

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    # Requests

    def request(self, method: str, path: str, *, json: Any = None, params: Mapping[str, Any] | None = None) -> Any:
        """Send a request to `/api/v2` + path and return the JSON answer; log in again when the token has expired."""
        response = self._send(method, path, json, params)
        if response.status_code == requests.codes.unauthorized:
            self._token = None
            response = self._send(method, path, json, params)
        if not response.ok:
            raise AirflowApiError(method, path, response)
        return response.json() if response.content else None

    def token(self) -> str:
        """Return a login token; browsers take it as the cookie `_token`."""
        if self._token is None:
            response = self._session.post(f"{self.base_url}/auth/token", json=self._credentials, timeout=60)
            if not response.ok:
                raise AirflowApiError("POST", "/auth/token", response)
            self._token = str(response.json()["access_token"])
        return self._token

    def health(self) -> dict[str, str]:
        """Return the status of each component, {} as long as the API server does not answer."""
        try:
            response = self._session.get(f"{self.base_url}/api/v2/monitor/health", timeout=10)
            components = response.json() if response.ok else {}
        except (requests.RequestException, ValueError):
            return {}
        return {name: (part or {}).get("status") or "not seen yet" for name, part in components.items()}

    def add_connection(self, connection_id: str, fields: Mapping[str, Any]) -> None:
        """Store a connection in Airflow's database.

        :param fields: by the API's names, `extra` as JSON text.
        """
        self.request("POST", "/connections", json={"connection_id": connection_id, **fields})

    # DAGs and runs

    def import_errors(self) -> dict[str, str]:
        """Return file name to stack trace of the DAG files that cannot be imported."""
        errors = self.request("GET", "/importErrors")["import_errors"]
        return {error["filename"]: error["stack_trace"] for error in errors}

    def wait_for_dag(self, dag_id: str, *, timeout: float = 120) -> None:
        """Wait until the dag-processor has registered a DAG."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.request("GET", f"/dags/{_part(dag_id)}/details")
            except AirflowApiError as error:
                if error.status != requests.codes.not_found:
                    raise
            else:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"DAG {dag_id} is not registered. Import errors: {self.import_errors()}")
            time.sleep(0.5)

    def trigger_dag(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Wait for the DAG, switch it on, start a run and return its run id."""
        self.wait_for_dag(dag_id)
        self.request("PATCH", f"/dags/{_part(dag_id)}", json={"is_paused": False})
        body = {"logical_date": None, "conf": dict(conf or {})}
        run = self.request("POST", f"/dags/{_part(dag_id)}/dagRuns", json=body)
        return str(run["dag_run_id"])

    def dag_run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return a DAG run."""
        run: dict[str, Any] = self.request("GET", _run(dag_id, run_id))
        return run

    def patch_dag_run(self, dag_id: str, run_id: str, state: Literal["queued", "success", "failed"]) -> None:
        """Mark a DAG run, as the button in the UI does."""
        self.request("PATCH", _run(dag_id, run_id), json={"state": state})

    def wait_for_run(
        self,
        dag_id: str,
        run_id: str,
        *,
        timeout: float = 300,
        interval: float = 0.5,
        on_change: Callable[[TaskStates], None] | None = None,
    ) -> dict[str, Any]:
        """Wait until a DAG run has ended and return it; call `on_change` whenever a task's state has changed."""
        deadline = time.monotonic() + timeout
        seen: TaskStates | None = None
        while True:
            run = self.dag_run(dag_id, run_id)
            states = self.task_states(dag_id, run_id)
            if states != seen and on_change:
                on_change(states)
            seen = states
            if run["state"] in FINISHED_RUN_STATES:
                return run
            if time.monotonic() > deadline:
                raise RunTimeoutError(f"{dag_id} {run_id} is still {run['state']} after {timeout} s: {states}")
            time.sleep(interval)

    def wait_for_task_state(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        *states: str,
        map_index: int = NOT_MAPPED,
        timeout: float = 120,
    ) -> dict[str, Any]:
        """Wait until a task instance is in one of the states and return it."""
        deadline = time.monotonic() + timeout
        while True:
            found = [
                instance
                for instance in self.task_instances(dag_id, run_id)
                if instance["task_id"] == task_id and instance["map_index"] == map_index
            ]
            if found and found[0]["state"] in states:
                return found[0]
            if time.monotonic() > deadline:
                raise RunTimeoutError(f"{task_id} is not in {states} after {timeout} s: {found}")
            time.sleep(0.2)

    # Task instances

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return every task instance of a run, mapped ones included."""
        return self._all(f"{_run(dag_id, run_id)}/taskInstances", "task_instances")

    def task_states(self, dag_id: str, run_id: str) -> TaskStates:
        """Return the state of every task instance of a run, "none" for those not scheduled yet."""
        return {_name(instance): instance["state"] or "none" for instance in self.task_instances(dag_id, run_id)}

    def xcom(
        self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = NOT_MAPPED
    ) -> Any:
        """Return the value of one XCom."""
        path = f"{_task(dag_id, run_id, task_id)}/xcomEntries/{_part(key)}"
        return self.request("GET", path, params={"map_index": map_index})["value"]

    def xcom_entries(self, dag_id: str, run_id: str, task_id: str = "~") -> list[dict[str, Any]]:
        """Return the XComs of a task, or of the whole run, without their values."""
        return self._all(f"{_task(dag_id, run_id, task_id)}/xcomEntries", "xcom_entries")

    def extra_links(self, dag_id: str, run_id: str, task_id: str, map_index: int = NOT_MAPPED) -> dict[str, str | None]:
        """Return link name to URL, as the UI shows them."""
        path = f"{_task(dag_id, run_id, task_id)}/links"
        links: dict[str, str | None] = self.request("GET", path, params={"map_index": map_index})["extra_links"]
        return links

    def logs(self, dag_id: str, run_id: str, task_id: str, map_index: int = NOT_MAPPED) -> str:
        """Return the logs of all tries of a task instance as the UI shows them, one event per line."""
        path = _task(dag_id, run_id, task_id)
        instance = path if map_index == NOT_MAPPED else f"{path}/{map_index}"
        tries = self.request("GET", f"{instance}/tries")["task_instances"]
        lines = []
        for number in sorted({attempt["try_number"] for attempt in tries if attempt["try_number"]}):
            lines.append(f"--- try {number} ---")
            lines += self._log_of_one_try(f"{path}/logs/{number}", map_index)
        return "\n".join(lines)

    def patch_task_instance(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        state: Literal["success", "failed", "skipped"],
        map_index: int = NOT_MAPPED,
    ) -> None:
        """Mark a task instance, as the buttons in the UI do."""
        path = _task(dag_id, run_id, task_id)
        if map_index != NOT_MAPPED:
            path += f"/{map_index}"
        self.request("PATCH", path, json={"new_state": state})

    def clear(self, dag_id: str, run_id: str, *task_ids: str, only_failed: bool = False) -> None:
        """Clear task instances of a run, so that they run again."""
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "task_ids": list(task_ids),
            "only_failed": only_failed,
            "reset_dag_runs": True,
        }
        self.request("POST", f"/dags/{_part(dag_id)}/clearTaskInstances", json=body)

    # Inner parts

    def _send(self, method: str, path: str, json: Any, params: Mapping[str, Any] | None) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.token()}", "Accept": "application/json"}
        url = f"{self.base_url}/api/v2{path}"
        return self._session.request(method, url, json=json, params=params, headers=headers, timeout=60)

    def _all(self, path: str, key: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        while True:
            page = self.request("GET", path, params={"limit": PAGE, "offset": len(rows)})
            rows += page[key]
            if not page[key] or len(rows) >= page["total_entries"]:
                return rows

    def _log_of_one_try(self, path: str, map_index: int) -> list[str]:
        params: dict[str, Any] = {"map_index": map_index, "full_content": True}
        content = self.request("GET", path, params=params)["content"]
        return [str(event["event"]) if isinstance(event, dict) else str(event) for event in content]


def _part(value: str) -> str:
    """Run ids hold `+` and `:`."""
    return quote(value, safe="~")


def _run(dag_id: str, run_id: str) -> str:
    return f"/dags/{_part(dag_id)}/dagRuns/{_part(run_id)}"


def _task(dag_id: str, run_id: str, task_id: str) -> str:
    return f"{_run(dag_id, run_id)}/taskInstances/{_part(task_id)}"


def _name(instance: Mapping[str, Any]) -> str:
    if instance["map_index"] == NOT_MAPPED:
        return str(instance["task_id"])
    return f"{instance['task_id']}[{instance['map_index']}]"
