from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from airflow_provider_flux.emulator import Emulator

KEY = "a-key-for-tests"


class Client:
    """Speaks plain HTTP to the emulator, as a client without any cleverness would."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Bearer {KEY}"

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        address = path if path.startswith("http") else self.emulator.url + path
        return self.session.request(method, address, **{"timeout": 20, "allow_redirects": False, **options})

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> requests.Response:
        return self.request("POST", path, json=body, **options)

    def create(self, model: str = "flux-schnell", prefix: str = "/replicate/v1", **given: Any) -> requests.Response:
        body = {"input": {"prompt": "a boat", **given}}
        return self.post(f"{prefix}/models/black-forest-labs/{model}/predictions", body)

    def query(self, prediction_id: str, prefix: str = "/replicate/v1") -> dict[str, Any]:
        answer = self.get(f"{prefix}/predictions/{prediction_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def finished(self, model: str = "flux-schnell", prefix: str = "/replicate/v1", **given: Any) -> dict[str, Any]:
        """Create a prediction, end it at once and return it."""
        prediction_id = self.create(model, prefix, **given).json()["id"]
        self.emulator.finish(prediction_id)
        return self.query(prediction_id, prefix)

    def bare(self, address: str, **options: Any) -> requests.Response:
        """Get without the key."""
        return requests.get(address, timeout=20, allow_redirects=False, **options)


class Clock:
    def __init__(self) -> None:
        self.now = 1_780_000_000.25

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Iterator[Callable[..., Client]]:
    """Start emulators with given settings; all are stopped at the end."""
    clients: list[Client] = []

    def start(**settings: Any) -> Client:
        emulator = Emulator(**{"key": KEY, "small_pictures": True, **settings}).start()
        clients.append(Client(emulator))
        return clients[-1]

    yield start
    for client in clients:
        client.session.close()
        client.emulator.stop()


@pytest.fixture
def client(run: Callable[..., Client]) -> Client:
    return run()


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    def wait(condition: Callable[[], bool]) -> None:
        limit = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < limit, "it did not happen in time"
            time.sleep(0.01)

    return wait
