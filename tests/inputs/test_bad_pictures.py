"""Whatever is wrong with a picture is told before anything is paid, with its field and its path."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import FluxInputError, FluxStorageError
from airflow_provider_flux.hooks.flux import FluxHook
from tests.batch.task_instance import BatchTaskInstance
from tests.conftest import Connect
from tests.durable.task_instance import OperatorTaskInstance
from tests.inputs.pictures import animated, claiming, picture
from tests.outputs.conftest import Store

KONTEXT = "black-forest-labs/flux-kontext-pro"
FLUX_2 = "black-forest-labs/flux-2-pro"

Place = Callable[[Path], str]


@pytest.fixture(autouse=True)
def gateway(emulator: Emulator, connect: Connect) -> None:
    connect(emulator.url, gateway="deerapi", read_timeout=5)


def file(content: bytes, name: str = "tea.png") -> Place:
    def put(folder: Path) -> str:
        (folder / name).write_bytes(content)
        return str(folder / name)

    return put


def folder(path: Path) -> str:
    (path / "folder.png").mkdir()
    return str(path / "folder.png")


def pipe(path: Path) -> str:
    os.mkfifo(path / "pipe.png")
    return str(path / "pipe.png")


PNG, JPEG = picture(), picture("JPEG")
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
TIFF = picture("TIFF")

REFUSED: dict[str, tuple[Any, str]] = {
    "missing": (lambda path: str(path / "nothing.png"), "no such file"),
    "in a folder that is missing": (lambda path: str(path / "a" / "b.png"), "no such file"),
    "empty": (file(b""), "an empty file"),
    "a folder": (folder, "a folder, not a file"),
    "a pipe": (pipe, "no regular file"),
    "a page named .png": (file(b"<!DOCTYPE html><html>"), "a text or a page"),
    "JSON named .png": (file(b'{"error": "no such key"}'), "a text or a page"),
    "an SVG": (file(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "tea.svg"), "a text or a page"),
    "a HEIC": (file(HEIC, "tea.heic"), "a file of the kind HEIC"),
    "a TIFF": (file(TIFF, "tea.tiff"), "no picture of a kind that models take"),
    "a PDF": (file(b"%PDF-1.7\n", "tea.pdf"), "no picture of a kind that models take"),
    "a PNG cut in half": (file(PNG[: len(PNG) // 2]), "not whole"),
    "a JPEG cut in half": (file(JPEG[: len(JPEG) // 2], "tea.jpg"), "not whole"),
    "a webp cut in half": (file(picture("WEBP")[:500], "tea.webp"), "not whole"),
    "a GIF cut in half": (file(animated()[:-20], "tea.gif"), "not whole"),
    "50,000 x 50,000 pixels claimed": (file(claiming(50_000, 50_000)), "50000 x 50000 pixels"),
    "a PNG without a size": (file(claiming(0, 0)), "without a size"),
    "a relative path": ("tea.png", "a relative path"),
    "an unknown scheme": ("shop://photos/tea.png", "cannot be opened"),
    "a connection that is missing": ("s3://nobody@photos/tea.png", "cannot be opened"),
    "an empty text": ("", "is empty"),
    "blanks": ("  \n", "is empty"),
    "a number": (7, "not of type|allowed: string"),
    "null": (None, "leave the field out"),
    "a data: URI of nothing": ("data:image/png;base64,", "an empty file"),
    "a data: URI that is no base64": ("data:image/png;base64,@@@", "not base64"),
    "a data: URI without a comma": ("data:image/png;base64", "no comma"),
    "a data: URI cut in half": (
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg==",
        "not whole|without a size|ends too early",
    ),
}


def place(value: Any, path: Path) -> Any:
    return value(path) if callable(value) else value


@pytest.mark.parametrize("name", REFUSED)
def test_a_picture_that_cannot_be_used_is_refused_by_hook_operator_and_row(
    name: str, emulator: Emulator, tmp_path: Path
) -> None:
    """a picture from a storage as an input"""
    value, words = REFUSED[name]
    given = place(value, tmp_path)
    with pytest.raises(FluxInputError, match=words) as told:
        FluxHook().create_prediction(KONTEXT, {"prompt": "tea", "input_image": given})
    assert "input_image" in str(told.value)
    if isinstance(given, str) and given.strip() and not given.startswith("data:"):
        assert given in str(told.value)
    with pytest.raises(FluxInputError, match=words):
        OperatorTaskInstance(
            {"task_id": "make", "model": KONTEXT, "input": {"prompt": "tea", "input_image": given}}
        ).execute()
    row = {"sku": "a", "name": "tea", "photo": given}
    batch = BatchTaskInstance(tmp_path / "out", rows=[row], model=KONTEXT, input={"input_image": "{{ row.photo }}"})
    with pytest.raises(Exception, match="Row 'a'"):
        batch.execute()
    assert batch.statuses() == ["failed"]
    assert "input_image" in batch.manifest()[0]["error"]
    assert (emulator.posts, emulator.accepted) == (0, 0)


def test_a_file_of_64_mb_and_more_is_refused_before_it_is_read(emulator: Emulator, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    with large.open("wb") as sparse:
        sparse.truncate(65_000_000)
    with pytest.raises(FluxInputError, match=r"65\.0 MB, and 64 MB are the most"):
        FluxHook().create_prediction(KONTEXT, {"prompt": "tea", "input_image": str(large)})
    assert emulator.posts == 0


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A photo that its owner may not read."""
    path = tmp_path / "tea.png"
    path.write_bytes(PNG)
    path.chmod(0)
    return path


@pytest.fixture
def as_nobody() -> Iterator[Callable[[], None]]:
    """Root may read everything, so the tests go on as nobody for a while. Return what ends that."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield lambda: os.seteuid(user)
    os.seteuid(user)


def test_a_file_that_may_not_be_read_is_told_and_works_with_a_retry(
    emulator: Emulator, photo: Path, as_nobody: Callable[[], None]
) -> None:
    instance = OperatorTaskInstance(
        {"task_id": "make", "model": KONTEXT, "input": {"prompt": "tea", "input_image": str(photo)}}
    )
    with pytest.raises(FluxStorageError, match="PermissionError"):
        instance.execute()
    as_nobody()
    photo.chmod(0o600)
    instance.retry()
    assert emulator.posts == 1


def test_a_bucket_that_is_gone_is_told(emulator: Emulator, s3: Store) -> None:
    with pytest.raises(FluxInputError, match="its bucket is gone"):
        FluxHook().create_prediction(KONTEXT, {"prompt": "tea", "input_image": "s3://my_s3@gone/tea.png"})
    assert emulator.posts == 0


LISTS: dict[str, tuple[Any, str]] = {
    "an empty list": ([], "input_images is empty"),
    "an empty text in it": ([""], "input_images.0 is empty"),
    "a null in it": ([None], "input_images.0"),
    "a missing one beside a good one": (["GOOD", "MISSING"], r"input_images\.1: .*no such file"),
    "nine": (["GOOD"] * 9, "too long|at most|allowed"),
}


@pytest.mark.parametrize("name", LISTS)
def test_in_a_list_the_place_is_told(name: str, emulator: Emulator, tmp_path: Path) -> None:
    given, words = LISTS[name]
    paths = {"GOOD": file(PNG)(tmp_path), "MISSING": str(tmp_path / "nothing.png")}
    with pytest.raises(FluxInputError, match=words):
        FluxHook().create_prediction(
            FLUX_2, {"prompt": "tea", "input_images": [paths.get(item, item) for item in given]}
        )
    assert emulator.posts == 0


FIELDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "a field of another model": ("black-forest-labs/flux-schnell", {"input_image": "/data/tea.png"}, "input_image"),
    "a model that is not known": ("acme/restyle", {"photo": "s3://my_s3@photos/tea.png"}, "input_files={'photo'"),
    "a field whose name is nearly right": (KONTEXT, {"input_imge": "/data/tea.png"}, "did you mean input_image"),
    "a list of a model that is not known": ("acme/restyle", {"photos": ["/data/tea.jpg"]}, "input_files={'photos'"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_path_in_a_field_that_is_not_known_to_be_a_picture_is_refused(name: str, emulator: Emulator) -> None:
    model, given, words = FIELDS[name]
    with pytest.raises(FluxInputError, match=words):
        FluxHook().create_prediction(model, {"prompt": "tea", **given})
    assert emulator.posts == 0


TAKEN: dict[str, bytes] = {
    "a JPEG": JPEG,
    "a progressive JPEG": picture("JPEG", progressive=True),
    "a CMYK JPEG": picture("JPEG", mode="CMYK"),
    "a grey PNG": picture(mode="L"),
    "a PNG with alpha": picture(mode="RGBA"),
    "a webp": picture("WEBP"),
    "a GIF": picture("GIF", mode="P"),
    "an animated GIF": animated(),
    "a single pixel": picture(side=1, seed=0),
}


@pytest.mark.parametrize("name", TAKEN)
def test_pictures_of_every_kind_arrive_as_they_are(name: str, emulator: Emulator, tmp_path: Path) -> None:
    path = file(TAKEN[name])(tmp_path)
    FluxHook().create_prediction(KONTEXT, {"prompt": "tea", "input_image": path})
    [arrived] = emulator.predictions[0].pictures
    assert (arrived.field, arrived.size) == ("input_image", len(TAKEN[name]))
    assert emulator.posts == emulator.accepted == 1


NAMES = (
    "a cup of tea.png",
    "100%.png",
    "tea#1.png",
    "tea?.png",
    "Grüße 茶.png",
    'it\'s "tea".png',
    "tea.PNG",
    "tea",
    "[tea]*.png",
    "..tea.png",
    "+&=tea.png",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_may_have_any_name_on_disk_and_in_a_bucket(
    name: str, emulator: Emulator, tmp_path: Path, s3: Store
) -> None:
    (tmp_path / name).write_bytes(PNG)
    s3.client.put_object(Bucket="pictures", Key=f"in/{name}", Body=PNG)
    for path in (str(tmp_path / name), f"{s3.url.removesuffix('/')}/in/{name}"):
        FluxHook().create_prediction(KONTEXT, {"prompt": "tea", "input_image": path})
        [arrived] = emulator.predictions[-1].pictures
        assert arrived.size == len(PNG)
    assert emulator.posts == 2
