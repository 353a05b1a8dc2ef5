"""An emulator that draws thumbnails, and an S3 of its own."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from airflow_provider_flux.emulator import Emulator

KEY = "emulator-key-0123456789abcdef"


@dataclass
class Gateway:
    """Makes predictions that have ended, and says where their pictures are."""

    emulator: Emulator

    def outputs(self, model: str = "flux-schnell", **given: Any) -> list[str]:
        prefix = f"{self.emulator.url}/v1"
        headers = {"Authorization": f"Bearer {KEY}"}
        body = {"input": {"prompt": "a boat", **given}}
        path = f"{prefix}/models/black-forest-labs/{model}/predictions"
        prediction_id = requests.post(path, json=body, headers=headers, timeout=20).json()["id"]
        self.emulator.finish(prediction_id)
        output = requests.get(f"{prefix}/predictions/{prediction_id}", headers=headers, timeout=20).json()["output"]
        return output if isinstance(output, list) else [output]

    @property
    def file_requests(self) -> list[int | None]:
        """The statuses of the requests for files, oldest first."""
        return [request.status for request in self.emulator.requests if request.kind == "file"]


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Emulator(key=KEY, small_pictures=True) as emulator:
        yield Gateway(emulator)


@dataclass
class Store:
    """A bucket of an S3 server on this machine.

    :param url: its address as Airflow knows it.
    :param client: reads it past Airflow.
    """

    url: str
    client: Any

    def keys(self) -> list[str]:
        return [entry["Key"] for entry in self.client.list_objects_v2(Bucket="pictures").get("Contents", [])]

    def get(self, key: str) -> Any:
        return self.client.get_object(Bucket="pictures", Key=key)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    # It would log what it is asked, signatures and all, among what the package logs.
    logging.getLogger("werkzeug").addFilter(lambda _: False)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty bucket, and the Airflow connection ``my_s3`` that leads to it."""
    import boto3

    keys = {"aws_access_key_id": "an-access-key", "aws_secret_access_key": "a-secret-key", "region_name": "us-east-1"}
    connection = {
        "conn_type": "aws",
        "login": keys["aws_access_key_id"],
        "password": keys["aws_secret_access_key"],
        "extra": {"endpoint_url": s3_server, "region_name": "us-east-1"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_MY_S3", json.dumps(connection))
    requests.post(f"{s3_server}/moto-api/reset", timeout=20)
    client = boto3.client("s3", endpoint_url=s3_server, **keys)
    client.create_bucket(Bucket="pictures")
    yield Store("s3://my_s3@pictures", client)
    client.close()


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def no_sleep(pauses: list[float]) -> Callable[[float], None]:
    """A sleep that notes the seconds instead."""
    return pauses.append
