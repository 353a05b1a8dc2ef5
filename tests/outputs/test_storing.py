from __future__ import annotations

import hashlib
import io
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airflow_provider_flux.exceptions import (
    AirflowFailException,
    FluxInputError,
    FluxOutputError,
    FluxOutputExpiredError,
    FluxOutputNotStoredError,
)
from airflow_provider_flux.outputs.fetching import FetchRules
from airflow_provider_flux.outputs.storing import check_output_path, store_outputs, stored_size
from tests.outputs.conftest import Gateway, Store
from tests.outputs.drawings import data_uri, drawn

HERE = FetchRules(allow_private=True)


def store(outputs, stem, **options):
    return store_outputs(outputs, str(stem), prediction_id="abc", **{"rules": HERE, **options})


def read(path: str) -> bytes:
    from airflow.sdk import ObjectStoragePath

    return ObjectStoragePath(path).read_bytes()


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_all_pictures_of_a_prediction_are_stored_on_this_machine(gateway: Gateway, tmp_path, prefix):
    urls = gateway.outputs(num_outputs=3, output_format="png")
    stored = store(urls, f"{prefix}{tmp_path}/new/folders/abc")
    assert [picture.path for picture in stored] == [f"{prefix}{tmp_path}/new/folders/abc_{n}.png" for n in range(3)]
    assert [picture.url for picture in stored] == urls
    for picture in stored:
        content = read(picture.path)
        assert (picture.size, picture.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert (picture.width, picture.height, picture.format) == (96, 96, "png")
    assert sorted(file.name for file in (tmp_path / "new/folders").iterdir()) == ["abc_0.png", "abc_1.png", "abc_2.png"]


def test_pictures_are_stored_in_s3_and_open_again_by_their_path(gateway: Gateway, s3: Store):
    stored = store(gateway.outputs(num_outputs=2), f"{s3.url}/shop/abc")
    assert [picture.path for picture in stored] == [f"{s3.url}/shop/abc_{n}.webp" for n in range(2)]
    assert s3.keys() == ["shop/abc_0.webp", "shop/abc_1.webp"]
    assert s3.get("shop/abc_0.webp")["ContentType"] == "image/webp"
    for picture in stored:
        assert hashlib.sha256(read(picture.path)).hexdigest() == picture.sha256
        assert stored_size(picture.path) == picture.size


def test_what_is_stored_goes_into_xcom_as_plain_json(gateway: Gateway, tmp_path):
    (picture,) = store(gateway.outputs(), tmp_path / "abc")
    assert json.loads(json.dumps(picture.as_dict())) == {
        "path": f"{tmp_path}/abc_0.webp",
        "url": picture.url,
        "sha256": picture.sha256,
        "size": picture.size,
        "width": 96,
        "height": 96,
        "format": "webp",
    }


def test_a_retry_overwrites_in_one_step(tmp_path):
    first, second = drawn(), drawn()
    store([data_uri(first)], tmp_path / "abc")
    place, witness = tmp_path / "abc_0.png", tmp_path / "witness"
    os.link(place, witness)
    store([data_uri(second)], tmp_path / "abc")
    assert place.read_bytes() == second
    # Written in place, the new bytes would show under the old file's other name too.
    assert witness.read_bytes() == first
    assert {file.name for file in tmp_path.iterdir()} == {"abc_0.png", "witness"}


def test_a_retry_overwrites_in_s3(s3: Store):
    first, second = drawn(), drawn("png", 50, 40)
    store([data_uri(first)], f"{s3.url}/abc")
    (picture,) = store([data_uri(second)], f"{s3.url}/abc")
    assert s3.keys() == ["abc_0.png"]
    assert s3.get("abc_0.png")["Body"].read() == second
    assert stored_size(picture.path) == len(second)


@pytest.mark.parametrize("fault", ["cut_body", "cut_unannounced", "truncated_json", "html", "endless"])
def test_a_broken_fetch_leaves_nothing_behind_and_nothing_changed(gateway: Gateway, s3: Store, tmp_path, fault):
    urls = gateway.outputs(output_format="png")
    before = drawn()
    gateway.emulator.add_fault(fault, on="file", times=None)
    for stem in (f"{tmp_path}/abc", f"{s3.url}/abc"):
        store([data_uri(before)], stem)
        with pytest.raises((FluxOutputNotStoredError, FluxOutputError)):
            store(urls, stem, expires_at=time.time(), rules=FetchRules(allow_private=True, largest_file=10_000_000))
    assert [file.name for file in tmp_path.iterdir()] == ["abc_0.png"]
    assert (tmp_path / "abc_0.png").read_bytes() == before
    assert s3.keys() == ["abc_0.png"]
    assert s3.get("abc_0.png")["Body"].read() == before
    assert gateway.emulator.posts == 1


def test_a_file_of_any_size_within_the_limit_is_stored_whole_in_s3(s3: Store):
    noise = os.urandom(12_000_000)
    head = drawn()
    big = head[:-12] + len(noise).to_bytes(4, "big") + b"noIs" + noise + bytes(4) + head[-12:]
    (picture,) = store([data_uri(big)], f"{s3.url}/big")
    assert picture.size == len(big)
    assert s3.get("big_0.png")["Body"].read() == big


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_a_data_uri_is_stored_and_not_repeated(tmp_path, kind):
    content = drawn(kind)
    (picture,) = store([data_uri(content, "application/octet-stream")], tmp_path / "abc")
    assert read(picture.path) == content
    assert (picture.url, picture.format, picture.size) == ("", kind, len(content))


def test_a_data_uri_may_be_percent_encoded_or_broken_into_lines(tmp_path):
    content = drawn()
    escaped = "".join(f"%{byte:02x}" for byte in content)
    lines = data_uri(content).replace("base64,", "base64,\n").rstrip("=")
    for uri in (f"DATA:image/png,{escaped}", lines):
        (picture,) = store([uri], tmp_path / "abc")
        assert read(picture.path) == content


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("data:image/png;base64", "no comma"),
        ("data:image/png;base64,&&&&", "not base64"),
        ("data:image/png;base64,", "an empty file"),
        (data_uri(drawn("png", 300, 300)[:-300]), "ends too early"),
        (data_uri(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"), "a text or a page"),
        (data_uri(drawn("png", 300, 300)), "larger than 5000 bytes"),
    ],
)
def test_a_data_uri_that_is_no_whole_picture_is_refused_for_good(tmp_path, uri, said):
    rules = FetchRules(largest_file=5000) if "5000" in said else HERE
    with pytest.raises(FluxOutputError, match=said) as caught:
        store([uri], tmp_path / "abc", rules=rules)
    assert isinstance(caught.value, AirflowFailException)
    assert "prediction abc" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_storage_that_fails_says_what_where_and_whose(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FluxOutputNotStoredError, match=r"Picture 0 of prediction abc.*file/abc_0") as caught:
        store([data_uri(drawn())], tmp_path / "file/abc")
    assert not isinstance(caught.value, AirflowFailException)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_bucket_that_does_not_exist_is_told(s3: Store):
    with pytest.raises(FluxOutputNotStoredError, match=r"s3://my_s3@elsewhere/abc_0\.png"):
        store([data_uri(drawn())], "s3://my_s3@elsewhere/abc")


def test_pictures_before_the_one_that_fails_are_kept_for_the_retry(gateway: Gateway, tmp_path):
    urls = gateway.outputs(num_outputs=2, output_format="png")
    gateway.emulator.add_fault("gone", on="file", skip=1, times=None)
    with pytest.raises(FluxOutputExpiredError, match="Picture 1"):
        store(urls, tmp_path / "abc")
    assert [file.name for file in tmp_path.iterdir()] == ["abc_0.png"]
    gateway.emulator.clear_rules()
    assert len(store(urls, tmp_path / "abc")) == 2


def test_the_record_beside_the_pictures_is_written_last_and_holds_no_url(gateway: Gateway, tmp_path):
    urls = [f"{url}?X-Amz-Signature=secret" for url in gateway.outputs(num_outputs=2)]
    facts = {"prompt": "ein Böötchen", "seed": 3}
    stored = store(urls, tmp_path / "abc", sidecar=facts)
    text = (tmp_path / "abc.json").read_text("utf-8")
    assert "ein Böötchen" in text
    assert "secret" not in text
    record = json.loads(text)
    assert record["seed"] == 3
    assert [picture["sha256"] for picture in record["pictures"]] == [picture.sha256 for picture in stored]
    assert [picture["path"] for picture in record["pictures"]] == [picture.path for picture in stored]
    (tmp_path / "abc.json").unlink()
    gateway.emulator.add_fault("gone", on="file", skip=1, times=None)
    with pytest.raises(FluxOutputExpiredError):
        store(urls, tmp_path / "abc", sidecar=facts)
    assert not (tmp_path / "abc.json").exists()


def test_many_threads_store_side_by_side(gateway: Gateway, s3: Store):
    outputs = [gateway.outputs(output_format="png", prompt=f"boat {number}") for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        stored = list(pool.map(lambda n: store(outputs[n], f"{s3.url}/{n}"), range(6)))
    assert s3.keys() == [f"{number}_0.png" for number in range(6)]
    for (picture,) in stored:
        assert hashlib.sha256(read(picture.path)).hexdigest() == picture.sha256


def test_the_size_of_what_is_not_there_is_none(tmp_path, s3: Store):
    for place in (f"{tmp_path}/plain", f"file://{tmp_path}/url", s3.url):
        assert stored_size(f"{place}/abc_0.png") is None
        store([data_uri(drawn())], f"{place}/abc")
        assert stored_size(f"{place}/abc_0.png") > 0


def test_a_size_is_never_from_an_old_listing(s3: Store):
    from airflow.sdk import ObjectStoragePath

    (picture,) = store([data_uri(drawn())], f"{s3.url}/folder/abc")
    folder = ObjectStoragePath(f"{s3.url}/folder")
    assert len(folder.fs.ls(folder.path)) == 1
    s3.client.put_object(Bucket="pictures", Key="folder/new.png", Body=io.BytesIO(b"123"))
    s3.client.delete_object(Bucket="pictures", Key="folder/abc_0.png")
    assert stored_size(f"{s3.url}/folder/new.png") == 3
    assert stored_size(picture.path) is None


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("pictures/here", "relative path"),
        ("", "relative path"),
        ("nowhere://bucket/x", "nowhere"),
        ("s3://no_such_connection@bucket/x", "no_such_connection"),
    ],
)
def test_a_place_that_cannot_work_is_refused_before_anything_is_paid(path, said):
    with pytest.raises(FluxInputError, match=said) as caught:
        check_output_path(path)
    assert "Nothing was sent" in str(caught.value)


def test_a_place_that_can_work_passes_and_nothing_is_written(s3: Store, tmp_path):
    for path in (str(tmp_path / "new"), f"file://{tmp_path}/new", f"{s3.url}/new"):
        check_output_path(path)
    assert list(Path(tmp_path).iterdir()) == []
    assert s3.keys() == []
