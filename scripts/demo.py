"""`make demo`: two pictures in a real Airflow on this machine.

Without a key the pictures come from the emulator, which costs nothing. Environment variables:

    FLUX_API_KEY        key of a real gateway: the predictions are then paid for
    FLUX_GATEWAY        deerapi (default), cometapi or replicate
    FLUX_DEMO_YES=1     agree to paying beforehand
    FLUX_EMULATOR_PORT  the emulator's port (default: a free one)
    AIRFLOW_PORT        the port of Airflow's UI (default: 8080)
    DEMO_STAY=0         stop when the pictures are there
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import quote, urlsplit

import requests
from PIL import Image, UnidentifiedImageError

from airflow_api import AirflowApi, AirflowApiError, TaskStates
from deployment import AirflowDeployment, DeploymentError
from local_emulator import EmulatorError, LocalEmulator, flux_connection
from processes import LOOPBACK, port_is_free, termination_as_exit

ROOT = Path(__file__).parent.parent
STATE = ROOT / ".demo"
PICTURES = STATE / "pictures"
AIRFLOW_HOME = STATE / "airflow"
LOGS = STATE / "logs"
DAG_ID = "flux_quickstart"
SENSORS = {"lantern_ready": "lantern", "boat_ready": "boat"}
HOSTS = {
    "deerapi": "https://api.deerapi.com",
    "cometapi": "https://api.cometapi.com",
    "replicate": "https://api.replicate.com",
}
RUN_TIMEOUT = 900  # seconds
LARGEST_PICTURE = 50_000_000  # bytes


class DemoError(RuntimeError):
    """The demo cannot go on; the message is for the person at the terminal."""


@dataclass(frozen=True)
class Choices:
    """What the environment asks for."""

    api_key: str | None
    gateway: str
    paying_agreed: bool
    emulator_port: int | None
    airflow_port: int
    stay: bool

    @classmethod
    def read(cls, environment: Mapping[str, str], *, interactive: bool) -> Choices:
        gateway = environment.get("FLUX_GATEWAY") or "deerapi"
        if gateway not in HOSTS:
            raise DemoError(f"FLUX_GATEWAY={gateway} is none of {', '.join(HOSTS)}.")
        return cls(
            api_key=environment.get("FLUX_API_KEY", "").strip() or None,
            gateway=gateway,
            paying_agreed=environment.get("FLUX_DEMO_YES") == "1",
            emulator_port=_port(environment, "FLUX_EMULATOR_PORT"),
            airflow_port=_port(environment, "AIRFLOW_PORT") or 8080,
            stay=interactive and environment.get("DEMO_STAY") != "0",
        )


def main() -> int:
    """Run the demo; return the exit code."""
    try:
        with termination_as_exit():
            _run(Choices.read(os.environ, interactive=sys.stdin.isatty()))
    except (
        DemoError,
        DeploymentError,
        EmulatorError,
        AirflowApiError,
        TimeoutError,
        requests.RequestException,
    ) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.")
        return 130
    return 0


def _run(choices: Choices) -> None:
    _require_free(choices.airflow_port, "AIRFLOW_PORT", "Airflow")
    if choices.api_key:
        _agree_to_pay(choices)
    # What an earlier demo left would only mix with this one.
    for folder in (AIRFLOW_HOME, LOGS):
        shutil.rmtree(folder, ignore_errors=True)
    with ExitStack() as stack:
        connection = _connection(choices, stack)
        print("Starting Airflow: a minute on a small machine.")
        airflow = stack.enter_context(
            AirflowDeployment(
                home=AIRFLOW_HOME,
                dags=ROOT / "example_dags",
                logs=LOGS,
                port=choices.airflow_port,
                environment={**connection, "AIRFLOW_CONN_PRODUCTS_DB": f"sqlite://{AIRFLOW_HOME / 'products.db'}"},
                progress=lambda line: print(f"  {line}"),
            )
        )
        run_id = airflow.api.trigger_dag(DAG_ID)
        print(f"\nRunning the DAG {DAG_ID}:")
        _wait_for_success(airflow.api, run_id)
        print("\nThe pictures:")
        for sensor, name in SENSORS.items():
            for number, url in enumerate(airflow.api.xcom(DAG_ID, run_id, sensor)):
                print(f"  {url}")
                print(f"    -> {_download(url, f'{name}-{number}')}")
        _print_where_to_look(airflow, run_id, choices)
        if choices.stay:
            print("\nAirflow stays up. Ctrl-C stops it.")
            with suppress(KeyboardInterrupt):
                while True:
                    sleep(3600)
    print("Everything is stopped.")


def _agree_to_pay(choices: Choices) -> None:
    print(
        f"FLUX_API_KEY is set: two real predictions through {choices.gateway} ({HOSTS[choices.gateway]}).\n"
        "They COST MONEY on that account: about 0.05 USD by the models' list prices."
    )
    if choices.paying_agreed:
        return
    if not sys.stdin.isatty():
        raise DemoError("Set FLUX_DEMO_YES=1 to agree, or unset FLUX_API_KEY to use the free emulator.")
    if input("Go on? Type yes: ").strip().lower() != "yes":
        raise DemoError("Nothing was sent. Unset FLUX_API_KEY to use the free emulator.")


def _connection(choices: Choices, stack: ExitStack) -> dict[str, str]:
    if choices.api_key:
        return flux_connection(HOSTS[choices.gateway], choices.api_key)
    if choices.emulator_port:
        _require_free(choices.emulator_port, "FLUX_EMULATOR_PORT", "the emulator")
    emulator = stack.enter_context(LocalEmulator(log=LOGS / "emulator.log", port=choices.emulator_port))
    print(f"No FLUX_API_KEY, so the pictures come from the emulator at {emulator.url}: free, and drawn, not generated.")
    return emulator.connection()


def _require_free(port: int, variable: str, program: str) -> None:
    if not port_is_free(port):
        raise DemoError(
            f"Port {port} is in use, maybe by another Airflow or an earlier demo. "
            f"Stop that program, or choose another port for {program}: {variable}={port + 1} make demo"
        )


def _wait_for_success(api: AirflowApi, run_id: str) -> None:
    started = monotonic()

    def show(states: TaskStates) -> None:
        print(f"  {monotonic() - started:5.1f} s  " + "   ".join(f"{name}: {states[name]}" for name in sorted(states)))

    run = api.wait_for_run(DAG_ID, run_id, timeout=RUN_TIMEOUT, on_change=show)
    if run["state"] == "success":
        return
    failed = [name for name, state in api.task_states(DAG_ID, run_id).items() if state == "failed"]
    logs = "\n\n".join(f"--- log of {name} ---\n{api.logs(DAG_ID, run_id, name)}" for name in failed)
    raise DemoError(f"The run failed.\n{logs}")


def _download(url: str, name: str) -> str:
    """Fetch a picture, without the key: the URL may be of any host. Return how it is to be described."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    unchecked = PICTURES / f"{name}.part"
    size = 0
    with requests.Session() as session, unchecked.open("wb") as file:
        session.trust_env = urlsplit(url).hostname != LOOPBACK  # no proxy can reach the emulator
        response = session.get(url, stream=True, timeout=(10, 60))
        response.raise_for_status()
        for chunk in response.iter_content(65536):
            size += len(chunk)
            if size > LARGEST_PICTURE:
                raise DemoError(f"{url} is larger than {LARGEST_PICTURE} bytes.")
            file.write(chunk)
    try:
        with Image.open(unchecked) as picture:
            picture.load()
            kind, width, height = str(picture.format), picture.width, picture.height
    except (UnidentifiedImageError, OSError) as error:
        raise DemoError(f"What {urlsplit(url).netloc} sent is not a picture: {error}") from error
    path = unchecked.replace(PICTURES / f"{name}.{kind.lower().replace('jpeg', 'jpg')}")
    return f"{path.relative_to(ROOT)}  {kind} {width}x{height}, {size:,} bytes"


def _print_where_to_look(airflow: AirflowDeployment, run_id: str, choices: Choices) -> None:
    print(f"\nThe run in Airflow's UI:  {airflow.url}/dags/{DAG_ID}/runs/{quote(run_id, safe='')}")
    print("Log in as admin, password admin. Only this machine can reach it.")
    print(f"Logs are in {LOGS.relative_to(ROOT)}, all else of Airflow in {AIRFLOW_HOME.relative_to(ROOT)}.")
    if not choices.api_key:
        print(f"With a key of your own:  FLUX_API_KEY=... FLUX_GATEWAY={'|'.join(HOSTS)} make demo")


def _port(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "")
    if not text:
        return None
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise DemoError(f"{name}={text} is not a port number.")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
