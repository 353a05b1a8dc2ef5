"""How a picture travels, by storage, gateway and size; and that nothing which opens it is told to anybody."""

from __future__ import annotations

import functools
import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import FluxInputError
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.inputs.sending import input_to_send
from airflow_provider_flux.inputs.transfer import Possible, Transfer, choose
from tests.batch.task_instance import BatchTaskInstance
from tests.conftest import KEY, Connect
from tests.durable.task_instance import OperatorTaskInstance
from tests.inputs.pictures import of_bytes
from tests.outputs.conftest import Store

KONTEXT = "black-forest-labs/flux-kontext-pro"
FLUX_2 = "black-forest-labs/flux-2-pro"

SIZES = {"small": 20_000, "middle": 1_000_000, "large": 8_200_000}
picture_of = functools.cache(of_bytes)


CHOICES = [
    (100_000, True, True, "auto", Transfer.INLINE),
    (100_000, False, False, "auto", Transfer.INLINE),
    (191_900, True, True, "auto", Transfer.INLINE),
    (192_100, True, True, "auto", Transfer.UPLOAD),
    (1_000_000, True, False, "auto", Transfer.UPLOAD),
    (1_000_000, False, True, "auto", Transfer.SIGNED),
    (1_000_000, False, False, "auto", Transfer.INLINE),
    (100_000_001, True, True, "auto", Transfer.SIGNED),
    (1_000_000, True, True, "inline", Transfer.INLINE),
    (100, True, True, "upload", Transfer.UPLOAD),
    (100, False, True, "upload", None),
    (100, True, True, "signed", Transfer.SIGNED),
    (100, True, False, "signed", None),
]


@pytest.mark.parametrize(("size", "uploads", "signs", "wanted", "transfer"), CHOICES)
def test_the_way_is_chosen_by_size_gateway_and_storage(
    size: int, uploads: bool, signs: bool, wanted: str, transfer: Transfer | None
) -> None:
    assert choose(size, Possible(uploads=uploads, signs=signs), wanted) is transfer


WAYS = [
    ("deerapi", "local", "small", "auto", "data"),
    ("deerapi", "local", "middle", "auto", "data"),
    ("deerapi", "local", "large", "auto", "data"),
    ("deerapi", "s3", "small", "auto", "data"),
    ("deerapi", "s3", "middle", "auto", "url"),
    ("deerapi", "s3", "large", "auto", "url"),
    ("deerapi", "s3", "small", "signed", "url"),
    ("deerapi", "s3", "middle", "inline", "data"),
    ("replicate", "local", "small", "auto", "data"),
    ("replicate", "local", "middle", "auto", "file"),
    ("replicate", "local", "large", "auto", "file"),
    ("replicate", "s3", "small", "auto", "data"),
    ("replicate", "s3", "middle", "auto", "file"),
    ("replicate", "s3", "large", "auto", "file"),
    ("replicate", "local", "small", "upload", "file"),
    ("replicate", "s3", "middle", "signed", "url"),
    ("replicate", "local", "large", "inline", "data"),
]


@dataclass
class Pipeline:
    """A gateway, and the storages that a pipeline has."""

    emulator: Emulator
    connect: Connect
    folder: Path
    s3: Store

    def put(self, storage: str, content: bytes) -> str:
        """Put a picture into a storage, and return its path."""
        if storage == "s3":
            self.s3.client.put_object(Bucket="pictures", Key="in/photo.png", Body=content)
            return f"{self.s3.url}/in/photo.png"
        (self.folder / "photo.png").write_bytes(content)
        return str(self.folder / "photo.png")

    def use(self, gateway: str) -> None:
        prefix = {"path_prefix": "/v1"} if gateway == "replicate" else {}
        self.connect(self.emulator.url, gateway=gateway, read_timeout=10, **prefix)


@pytest.fixture
def pipeline(emulator: Emulator, connect: Connect, tmp_path: Path, s3: Store) -> Pipeline:
    return Pipeline(emulator, connect, tmp_path, s3)


@pytest.mark.parametrize("case", WAYS, ids="-".join)
def test_a_picture_arrives_whole_whichever_way_it_goes(
    case: tuple[str, str, str, Any, str], pipeline: Pipeline, capfd: pytest.CaptureFixture[str]
) -> None:
    gateway, storage, size, wanted, way = case
    emulator = pipeline.emulator
    pipeline.use(gateway)
    content = picture_of(SIZES[size])
    path = pipeline.put(storage, content)
    FluxHook().create_prediction(KONTEXT, {"prompt": "tea", "input_image": path}, input_transfer=wanted)
    told = capfd.readouterr().out
    [prediction] = emulator.predictions
    [arrived] = prediction.pictures
    assert arrived.way == way
    if (way, size) == ("data", "large"):
        assert 100_000 < arrived.size <= 7_500_000
        assert "made smaller" in told
    else:
        assert arrived.size == len(content)
    assert emulator.posts == emulator.accepted == 1
    assert told.count(path) == 1
    assert emulator.foreign_requests_with_authorization == 0
    for secret in ("base64,", "X-Amz", "Signature", "/v1/files/", KEY):
        assert secret not in told


def test_many_pictures_of_one_input_share_the_room_of_a_request(pipeline: Pipeline) -> None:
    pipeline.use("deerapi")
    emulator, tmp_path = pipeline.emulator, pipeline.folder
    paths = []
    for number in range(4):
        path = tmp_path / f"{number}.png"
        path.write_bytes(picture_of(2_500_000 + number))
        paths.append(str(path))
    FluxHook().create_prediction(FLUX_2, {"prompt": "tea", "input_images": paths})
    [prediction] = emulator.predictions
    assert [picture.field for picture in prediction.pictures] == [f"input_images.{number}" for number in range(4)]
    assert sum(picture.size for picture in prediction.pictures) <= 7_500_000


def test_urls_go_as_they_are(pipeline: Pipeline) -> None:
    pipeline.use("deerapi")
    emulator = pipeline.emulator
    for url in ("https://shop.example/tea.png?size=1", f"{emulator.url}/nothing"):
        FluxHook().create_prediction(KONTEXT, {"prompt": "tea", "input_image": url})
        assert emulator.predictions[-1].input["input_image"] == url


def test_a_signed_url_that_the_gateway_cannot_reach_is_not_sent(pipeline: Pipeline) -> None:
    # As of a gateway elsewhere, which cannot reach the S3 server of this machine.
    pipeline.use("deerapi")
    path, hook = pipeline.put("s3", picture_of(20_000)), FluxHook()
    elsewhere = replace(hook.access.gateway, origin="https://api.deerapi.com")
    read = hook.read_input(KONTEXT, {"prompt": "tea", "input_image": path})
    with pytest.raises(FluxInputError, match=r"signs a URL that the gateway cannot reach: its scheme is 'http'"):
        input_to_send(read, elsewhere, wanted="signed", deadline=0.0, ask=lambda _: None, log=logging.getLogger("test"))


CLOSED = [
    ("deerapi", "local", "upload", "this gateway takes no files"),
    ("deerapi", "local", "signed", "its storage signs no URL"),
    ("replicate", "local", "signed", "its storage signs no URL"),
]


@pytest.mark.parametrize("case", CLOSED, ids=lambda case: "-".join(case[:3]))
def test_a_way_that_is_closed_is_told_before_anything_is_sent(
    case: tuple[str, str, Any, str], pipeline: Pipeline
) -> None:
    gateway, storage, wanted, words = case
    pipeline.use(gateway)
    path, emulator = pipeline.put(storage, picture_of(20_000)), pipeline.emulator
    with pytest.raises(FluxInputError, match=words):
        FluxHook().create_prediction(KONTEXT, {"prompt": "tea", "input_image": path}, input_transfer=wanted)
    assert emulator.posts == 0


def test_without_pillow_a_picture_that_is_too_large_says_what_to_install(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.use("deerapi")
    emulator, tmp_path = pipeline.emulator, pipeline.folder
    path = tmp_path / "photo.png"
    path.write_bytes(picture_of(8_200_000))
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(FluxInputError, match=r"airflow-provider-flux\[pictures\]"):
        FluxHook().create_prediction(KONTEXT, {"prompt": "tea", "input_image": str(path)})
    assert emulator.posts == 0


def test_a_picture_that_changes_after_it_was_checked_is_not_sent(pipeline: Pipeline) -> None:
    pipeline.use("deerapi")
    emulator, tmp_path = pipeline.emulator, pipeline.folder
    path = tmp_path / "photo.png"
    path.write_bytes(picture_of(20_000))
    hook = FluxHook()
    submission = hook.submission(KONTEXT, hook.read_input(KONTEXT, {"prompt": "tea", "input_image": str(path)}))
    path.write_bytes(picture_of(21_000))
    with pytest.raises(FluxInputError, match="has changed since it was checked"):
        hook.run_submission(submission)
    assert emulator.posts == 0


def test_an_upload_that_fails_costs_nothing_and_is_told(pipeline: Pipeline) -> None:
    pipeline.use("replicate")
    emulator, tmp_path = pipeline.emulator, pipeline.folder
    emulator.add_fault("500", on="upload", times=None)
    path = tmp_path / "photo.png"
    path.write_bytes(picture_of(1_000_000))
    instance = OperatorTaskInstance(
        {"task_id": "make", "model": KONTEXT, "input": {"prompt": "tea", "input_image": str(path)}, "timeout": 3}
    )
    with pytest.raises(Exception, match="upload of a picture"):
        instance.execute()
    assert emulator.accepted == 0
    assert instance.store.kept.get("flux_submission") in (None, {})
    emulator.reset()
    instance.options["timeout"] = 60
    instance.retry()
    assert emulator.accepted == 1


@pytest.mark.parametrize(("gateway", "storage"), [("deerapi", "s3"), ("replicate", "local"), ("deerapi", "local")])
def test_what_opens_a_picture_is_kept_nowhere(
    gateway: str, storage: str, pipeline: Pipeline, capfd: pytest.CaptureFixture[str]
) -> None:
    pipeline.use(gateway)
    tmp_path = pipeline.folder
    path = pipeline.put(storage, picture_of(1_000_000))
    instance = OperatorTaskInstance(
        {
            "task_id": "make",
            "model": KONTEXT,
            "input": {"prompt": "tea", "input_image": path},
            "wait_for_completion": True,
            "output_path": str(tmp_path / "operator"),
            "output_sidecar": True,
        }
    )
    rows = [{"sku": "a", "photo": path}]
    batch = BatchTaskInstance(
        tmp_path / "batch",
        rows=rows,
        model=KONTEXT,
        prompt="tea",
        input={"input_image": "{{ row.photo }}"},
        write_sidecars=True,
    )
    instance.execute()
    batch.execute()
    told = [
        capfd.readouterr().out,
        json.dumps(instance.xcoms),
        json.dumps(instance.store.kept),
        json.dumps(batch.xcoms),
    ]
    for folder in ("operator", "batch"):
        files = [file for file in (tmp_path / folder).rglob("*") if file.is_file()]
        told += [file.read_text("utf-8", "replace") for file in files]
    for secret in ("base64,", "X-Amz", "Signature=", "/v1/files/", KEY):
        found = [text[max(0, text.find(secret) - 150) : text.find(secret) + 20] for text in told if secret in text]
        assert found == []
    assert json.loads(batch.manifest()[0]["input"])["input_image"]["path"] == path
    assert instance.xcoms["flux_result"]["inputs"][0]["path"] == path
