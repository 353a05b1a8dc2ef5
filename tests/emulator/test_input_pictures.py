"""The emulator takes pictures in as the services do."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from PIL import Image

from airflow_provider_flux.emulator import Emulator
from tests.conftest import KEY
from tests.inputs.pictures import picture
from tests.servers import RawServer, answering

PNG = picture()
SHA256 = hashlib.sha256(PNG).hexdigest()
DATA = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
HEADERS = {"Authorization": f"Bearer {KEY}"}


def create(emulator: Emulator, prefix: str = "/replicate/v1", model: str = "flux-kontext-pro", **given: Any) -> Any:
    url = f"{origin(emulator)}{prefix}/models/black-forest-labs/{model}/predictions"
    return requests.post(url, json={"input": {"prompt": "tea", **given}}, headers=HEADERS, timeout=20)


def origin(emulator: Emulator) -> str:
    return "/".join(emulator.url.split("/")[:3])


def query(emulator: Emulator, prediction_id: str) -> Any:
    url = f"{origin(emulator)}/replicate/v1/predictions/{prediction_id}"
    return requests.get(url, headers=HEADERS, timeout=20).json()


def upload(emulator: Emulator, content: bytes = PNG, **options: Any) -> Any:
    files = {"content": ("tea.png", content, "image/png")}
    return requests.post(f"{origin(emulator)}/v1/files", files=files, headers=HEADERS, timeout=20, **options)


@pytest.mark.parametrize("prefix", ["/replicate/v1", "/v1"])
def test_an_inline_picture_is_decoded_and_shown_under_another_address(emulator: Emulator, prefix: str) -> None:
    shown = create(emulator, prefix, input_image=DATA).json()["input"]["input_image"]
    assert shown.startswith("http")
    assert len(shown) < 100
    [arrived] = emulator.predictions[0].pictures
    assert (arrived.field, arrived.way, arrived.sha256, arrived.size) == ("input_image", "data", SHA256, len(PNG))


def test_a_request_that_has_come_whole_is_carried_out_though_its_client_is_gone(
    emulator: Emulator, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    address = upload(emulator, picture(side=1500)).json()["urls"]["get"]
    body = json.dumps({"input": {"prompt": "tea", "input_image": address}})
    head = (
        "POST /v1/models/black-forest-labs/flux-kontext-pro/predictions HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((urlsplit(emulator.url).hostname, urlsplit(emulator.url).port or 80)) as client:
        client.sendall(f"{head}{body}".encode())
        eventually(lambda: emulator.posts == 1)
    eventually(lambda: emulator.accepted == 1)


def test_an_uploaded_file_is_described_listed_used_and_deleted(emulator: Emulator) -> None:
    described = upload(emulator)
    assert described.status_code == 201
    file = described.json()
    assert (file["name"], file["size"], file["checksums"]["sha256"]) == ("tea.png", len(PNG), SHA256)
    made = create(emulator, "/v1", input_image=file["urls"]["get"]).json()
    assert made["input"]["input_image"] == file["urls"]["get"]
    assert emulator.predictions[0].pictures[0].sha256 == SHA256
    listed = requests.get(f"{origin(emulator)}/v1/files", headers=HEADERS, timeout=20).json()
    assert [each["id"] for each in listed["results"]] == [file["id"]]
    assert requests.get(file["urls"]["get"], headers=HEADERS, timeout=20).json() == file
    assert requests.delete(file["urls"]["get"], headers=HEADERS, timeout=20).status_code == 204
    assert requests.get(file["urls"]["get"], headers=HEADERS, timeout=20).status_code == 404


def test_files_need_the_key_and_a_content(emulator: Emulator) -> None:
    url = f"{origin(emulator)}/v1/files"
    assert requests.post(url, files={"content": PNG}, timeout=20).status_code == 401
    assert requests.post(url, files={"other": PNG}, headers=HEADERS, timeout=20).status_code == 400


def test_a_url_on_this_machine_is_fetched_and_one_elsewhere_is_not(emulator: Emulator) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(PNG)
    with RawServer(answering(head + PNG)) as server:
        create(emulator, model="flux-2-pro", input_images=[f"{server.url}/tea.png", "https://shop.example/tea.png"])
    first, second = emulator.predictions[0].pictures
    assert (first.field, first.way, first.sha256) == ("input_images.0", "url", SHA256)
    assert (second.field, second.way) == ("input_images.1", "elsewhere")


@pytest.mark.parametrize("prefix", ["/replicate/v1", "/v1"])
@pytest.mark.parametrize("value", ["tea.png", "/data/tea.png"])
def test_a_path_is_refused_with_the_words_of_the_service(emulator: Emulator, prefix: str, value: str) -> None:
    refused = create(emulator, prefix, input_image=value)
    assert refused.status_code == 422
    assert "Does not match format 'uri'" in refused.text
    assert emulator.accepted == 0


BAD = {
    "no picture": ("data:image/png;base64,AAAA", "cannot identify image file"),
    "no base64": ("data:image/png;base64,@", "Failed to download the input file"),
    "a server that is gone": ("http://127.0.0.1:9/tea.png", "Failed to download the input file"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_picture_that_cannot_be_used_makes_the_prediction_fail(emulator: Emulator, name: str) -> None:
    value, error = BAD[name]
    made = create(emulator, input_image=value).json()
    emulator.finish(made["id"])
    ended = query(emulator, made["id"])
    assert (ended["status"], ended["error"]) == ("failed", error)


def test_what_came_in_can_be_recognised_in_what_is_drawn(emulator: Emulator) -> None:
    emulator.settings(small_pictures=False)
    file = io.BytesIO()
    Image.new("RGB", (200, 200), (255, 0, 255)).save(file, "PNG")
    uri = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    made = create(emulator, input_image=uri, output_format="png").json()
    emulator.finish(made["id"])
    ended = query(emulator, made["id"])
    drawn = Image.open(io.BytesIO(requests.get(ended["output"], timeout=20).content)).convert("RGB")
    assert drawn.getpixel((drawn.width // 2, drawn.height // 4)) == (255, 0, 255)
