from __future__ import annotations

import io

import pytest

from airflow_provider_flux.outputs.pictures import (
    NotAPictureError,
    Picture,
    TruncatedPictureError,
    recognise,
)
from tests.outputs.drawings import KINDS, drawn


def told(content: bytes) -> Picture:
    return recognise(io.BytesIO(content))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (30, 20), (1344, 768)])
def test_format_and_size_are_read_from_the_bytes(kind, size):
    assert told(drawn(kind, *size)) == Picture(kind, *size)


@pytest.mark.parametrize("options", [{"lossless": True}, {"alpha": True}])
def test_every_kind_of_webp_is_read(options):
    assert told(drawn("webp", 301, 203, **options)) == Picture("webp", 301, 203)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
def test_a_picture_without_its_end_is_refused(kind, share):
    whole = drawn(kind, 400, 300)
    with pytest.raises(TruncatedPictureError):
        told(whole[: int(len(whole) * share)])


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_whole_whatever_comes_after_its_end(kind):
    assert told(drawn(kind) + b"\0" * 100) == Picture(kind, 30, 20)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html></html>", "a text or a page"),
        (b"\xef\xbb\xbf\n <svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "a text or a page"),
        (b'{"detail": "not found"}', "a text or a page"),
        (b"GIF89a" + bytes(60), "begins with"),
        (b"RIFF\x10\0\0\0WAVEfmt " + bytes(60), "begins with"),
        (b"%PDF-1.7" + bytes(60), "begins with"),
        (b"\0\0\0\x1cftypavif" + bytes(60), "a file of the kind AVIF"),
        (b"\x89PN", "begins with"),
    ],
)
def test_anything_else_is_refused_and_named(content, said):
    with pytest.raises(NotAPictureError, match=said):
        told(content)


def test_a_picture_without_a_size_is_refused():
    with pytest.raises(NotAPictureError, match="without a size"):
        told(b"\xff\xd8\xff\xd9")
    with pytest.raises(NotAPictureError, match="without a size"):
        told(drawn("png").replace((30).to_bytes(4, "big") + (20).to_bytes(4, "big"), bytes(8), 1))
