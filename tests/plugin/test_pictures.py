"""Only pictures that the task itself stored are ever served, whatever an XCom says."""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from airflow_provider_flux.plugin import picture_files
from tests.plugin.conftest import Served, picture_bytes, prediction, sha256_of

REFUSAL = "The file is gone, or is not what the task recorded."


def assert_refused(served: Served, query: dict[str, Any]) -> None:
    for small in (False, True):
        answer = served.get("/flux/picture", **query, small=small)
        assert (answer.status_code, answer.json()) == (404, {"detail": REFUSAL})


def write(folder: Path, content: bytes, name: str = "picture.png") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("kind", "media_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")])
def test_a_stored_picture_is_served_as_what_its_bytes_are(
    served: Served, tmp_path: Path, kind: str, media_type: str
) -> None:
    content = picture_bytes(kind)
    query = served.record_file(str(write(tmp_path, content, "picture.png")), sha256_of(content), format="svg")

    answer = served.get("/flux/picture", **query)

    assert answer.content == content
    assert answer.headers["content-type"] == media_type


def test_a_picture_is_named_by_a_file_address_too(served: Served, stored: tuple[Path, str]) -> None:
    path, sha256 = stored

    assert served.get("/flux/picture", **served.record_file(f"file://{path}", sha256)).status_code == 200


def test_no_browser_may_take_a_picture_for_a_page(served: Served, stored: tuple[Path, str]) -> None:
    headers = served.get("/flux/picture", **served.record_file(str(stored[0]), stored[1])).headers

    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'; sandbox"
    assert headers["cross-origin-resource-policy"] == "same-origin"


def test_a_picture_is_kept_by_its_user_s_browser_alone(served: Served, stored: tuple[Path, str]) -> None:
    query = served.record_file(str(stored[0]), stored[1])

    assert served.get("/flux/picture", **query).headers["cache-control"] == "private, max-age=31536000, immutable"
    assert served.get("/flux/state", **served.scope()).headers["cache-control"] == "no-store"
    assert served.get("/flux/picture", **{**query, "sha256": 64 * "0"}).headers["cache-control"] == "no-store"


def test_a_thumbnail_is_small_and_drawn_once(
    served: Served, stored: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    query = served.record_file(str(stored[0]), stored[1])

    answers = [served.get("/flux/picture", **query, small=True) for _ in range(3)]

    with Image.open(io.BytesIO(answers[0].content)) as image:
        assert (image.format, image.size) == ("WEBP", (480, 360))
    assert {answer.content for answer in answers} == {answers[0].content}
    assert (picture_files.thumbnail.cache_info().misses, picture_files.thumbnail.cache_info().hits) == (1, 2)


def test_no_more_thumbnails_are_kept_than_the_bound() -> None:
    assert picture_files.thumbnail.cache_info().maxsize == picture_files.THUMBNAILS_KEPT == 512


def test_without_pillow_the_whole_picture_is_served(
    served: Served, stored: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)

    answer = served.get("/flux/picture", **served.record_file(str(stored[0]), stored[1]), small=True)

    assert answer.content == stored[0].read_bytes()


def test_a_thumbnail_keeps_what_can_be_seen_through(served: Served, tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGBA", (600, 600), (10, 20, 30, 0)).save(file, "PNG")
    query = served.record_file(str(write(tmp_path, file.getvalue())), sha256_of(file.getvalue()))

    with Image.open(io.BytesIO(served.get("/flux/picture", **query, small=True).content)) as image:
        assert image.convert("RGBA").getpixel((5, 5))[3] == 0


SCRIPT = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
PAGE = b"<!doctype html><script>alert(1)</script>"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(SCRIPT, id="svg with script"),
        pytest.param(PAGE, id="page named png"),
        pytest.param(b"GIF89a" + PAGE, id="gif"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + PAGE, id="page behind a signature"),
        pytest.param(picture_bytes()[:-20], id="half a picture"),
        pytest.param(b"", id="empty file"),
    ],
)
def test_what_is_no_whole_picture_is_not_served(served: Served, tmp_path: Path, content: bytes) -> None:
    assert_refused(served, served.record_file(str(write(tmp_path, content)), sha256_of(content)))


def test_a_picture_with_a_page_behind_it_is_an_image_and_nothing_else(served: Served, tmp_path: Path) -> None:
    content = picture_bytes() + PAGE

    answer = served.get("/flux/picture", **served.record_file(str(write(tmp_path, content)), sha256_of(content)))

    assert (answer.headers["content-type"], answer.headers["x-content-type-options"]) == ("image/png", "nosniff")


def test_a_file_of_the_api_server_is_not_served_even_by_its_sha256(served: Served) -> None:
    sha256 = sha256_of(Path("/etc/passwd").read_bytes())

    for path in ("/etc/passwd", "file:///etc/passwd", "file:///tmp/../etc/passwd", "file://localhost/etc/passwd"):
        assert_refused(served, served.record_file(path, sha256))


def test_another_picture_than_the_recorded_one_is_not_served(served: Served, tmp_path: Path) -> None:
    path = write(tmp_path, picture_bytes())
    query = served.record_file(str(path), sha256_of(path.read_bytes()))
    path.write_bytes(picture_bytes(size=(100, 100)))

    assert_refused(served, query)


def test_a_picture_recorded_without_a_sha256_is_not_served(served: Served, stored: tuple[Path, str]) -> None:
    task = served.record(flux_result=prediction(stored=[{"path": str(stored[0])}]))

    assert served.get("/flux/picture", **task, sha256=stored[1]).status_code == 404


def test_folders_devices_and_pipes_are_not_waited_for(served: Served, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    for path in (tmp_path, tmp_path / "pipe", "/dev/zero", tmp_path / "missing.png"):
        assert_refused(served, served.record_file(str(path), 64 * "0"))


def test_a_file_above_the_limit_is_not_read_to_its_end(
    served: Served, stored: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_files, "LARGEST_FILE", len(stored[0].read_bytes()) - 1)

    assert_refused(served, served.record_file(str(stored[0]), stored[1]))


@pytest.mark.parametrize("side", [6_000, 60_000, 2_000_000_000])
def test_a_small_file_that_claims_a_huge_picture_is_not_drawn(served: Served, tmp_path: Path, side: int) -> None:
    content = _png_that_claims(side, side)

    assert_refused(served, served.record_file(str(write(tmp_path, content)), sha256_of(content)))


@pytest.mark.parametrize("wrap", ["{}", "simplecache::{}", "zip://picture.png::{}"])
def test_no_address_of_the_network_is_ever_asked(served: Served, wrap: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = wrap.format(f"http://127.0.0.1:{server.getsockname()[1]}/picture.png")
        assert_refused(served, served.record_file(address, 64 * "0"))

        server.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody has knocked
            server.accept()


@pytest.mark.parametrize("sha256", ["../../etc/passwd", "", 63 * "0", 64 * "g", 65 * "0"])
def test_a_request_names_a_picture_by_its_sha256_only(served: Served, sha256: str) -> None:
    assert served.get("/flux/picture", **served.task(0), sha256=sha256).status_code == 422


def test_a_path_in_the_request_counts_for_nothing(served: Served, stored: tuple[Path, str]) -> None:
    task = served.record(flux_result=prediction())

    assert served.get(f"/flux/picture?path={stored[0]}", **task, sha256=stored[1]).status_code == 404


# Batches


def manifest_line(path: Path, sha256: str, **changes: Any) -> dict[str, Any]:
    return {
        "key": "sku-1",
        "status": "succeeded",
        "path": str(path),
        "prediction_id": "p1",
        "model": "black-forest-labs/flux-dev",
        "prompt": "a cup",
        "sha256": sha256,
        **changes,
    }


def write_manifest(folder: Path, *lines: dict[str, Any], name: str = "manifest.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_a_picture_of_a_batch_is_found_through_its_manifest(
    served: Served, tmp_path: Path, stored: tuple[Path, str]
) -> None:
    manifest = write_manifest(tmp_path, manifest_line(*stored))
    named_in_figures = served.record(flux_batch={"total": 1, "done": 1, "manifest_path": manifest})
    returned = served.record(flux_batch={"total": 1, "done": 1}, return_value=manifest)

    for task in (named_in_figures, returned):
        assert served.get("/flux/picture", **task, sha256=stored[1]).content == stored[0].read_bytes()
        assert served.get("/flux/picture", **task, sha256=64 * "1").status_code == 404


@pytest.mark.parametrize("name", ["manifest.jsonl.part-0-of-4", "manifest.jsonl.map-12"])
def test_the_manifest_of_a_part_is_shown_as_well(served: Served, tmp_path: Path, name: str) -> None:
    manifest = write_manifest(tmp_path, manifest_line(tmp_path / "x", 64 * "0"), name=name)
    task = served.record(flux_batch={"total": 1, "succeeded": 1, "manifest_path": manifest})

    assert served.get("/flux/rows", **task).json()["total"] == 1


def test_rows_come_by_the_hundred_and_by_status_and_model(served: Served, tmp_path: Path) -> None:
    lines = [
        manifest_line(tmp_path / "x", 64 * "0", key=str(number), status="failed" if number % 3 == 0 else "succeeded")
        for number in range(150)
    ]
    task = served.record(flux_batch={"total": 150}, return_value=write_manifest(tmp_path, *lines))

    first = served.get("/flux/rows", **task).json()
    assert (len(first["predictions"]), first["next"], first["total"]) == (100, 100, 150)
    assert first["statuses"] == {"failed": 50, "succeeded": 100}
    assert len(served.get("/flux/rows", **task, offset=100).json()["predictions"]) == 50
    assert served.get("/flux/rows", **task, status="failed").json()["total"] == 50
    assert served.get("/flux/rows", **task, model="black-forest-labs/flux-schnell").json()["total"] == 0


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("root:x:0:0:root:/root:/bin/bash\n", id="passwd"),
        pytest.param('{"type": "service_account", "private_key": "secret"}\n', id="a key file"),
        pytest.param('["secret"]\n', id="a list"),
        pytest.param('{"key": "k", "status": "succeeded"}\n{"private_key": "secret"}\n', id="one odd line"),
    ],
)
def test_a_file_that_is_no_manifest_is_not_quoted(served: Served, tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.jsonl").write_text(content)
    task = served.record(flux_batch={"total": 1}, return_value=str(tmp_path / "manifest.jsonl"))

    answer = served.get("/flux/rows", **task)

    assert (answer.status_code, answer.json()) == (404, {"detail": REFUSAL})


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/etc/hostname", "file:///proc/self/environ", "http://127.0.0.1:9/m.jsonl"]
)
def test_only_what_is_named_like_a_manifest_is_read_as_one(served: Served, path: str) -> None:
    task = served.record(flux_batch={"total": 1}, return_value=path)

    assert served.get("/flux/rows", **task).json() == {"detail": REFUSAL}


def test_of_a_row_only_known_fields_are_handed_on(served: Served, tmp_path: Path, stored: tuple[Path, str]) -> None:
    line = manifest_line(*stored, private_key="secret", url="javascript:alert(1)", seed="7", cost_usd=float("nan"))
    task = served.record(flux_batch={"total": 1}, return_value=write_manifest(tmp_path, line))

    answer = served.get("/flux/rows", **task)

    assert "secret" not in answer.text
    assert "javascript" not in answer.text
    (row,) = answer.json()["predictions"]
    assert {"seed", "cost_usd"}.isdisjoint(row)


def _png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
