"""A picture is known by what it holds: it is paid for once, whichever way it went and wherever it lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.exceptions import TaskDeferred

from airflow_provider_flux.batch import list_lookups
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import FluxBudgetError, FluxInputError, FluxSubmissionUnknownError
from airflow_provider_flux.protocol import lookup
from tests.batch.task_instance import BatchTaskInstance
from tests.conftest import Connect
from tests.durable.task_instance import OperatorTaskInstance
from tests.inputs.pictures import of_bytes, picture

KONTEXT = "black-forest-labs/flux-kontext-pro"
FLEX = "black-forest-labs/flux-2-flex"
LOST = ("reset_after_accept", "hang_after_accept", "502_after_accept", "truncated_after_accept")
SMALL, LARGE = picture(), of_bytes(600_000)
OTHER = picture(seed=99)


@pytest.fixture(autouse=True)
def impatient_lookups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look into the gateway's list after tenths of seconds instead of a minute."""
    monkeypatch.setattr(list_lookups, "SHORTEST_PAUSE", 0.1)
    monkeypatch.setattr(lookup, "LOOKS_AFTER", (0.05, 0.1, 0.5))


@pytest.fixture
def deerapi(emulator: Emulator, connect: Connect) -> Emulator:
    connect(emulator.url, gateway="deerapi", read_timeout=5)
    return emulator


@pytest.fixture
def replicate(emulator: Emulator, connect: Connect) -> Emulator:
    connect(emulator.url, gateway="replicate", path_prefix="/v1", read_timeout=3)
    return emulator


def task(path: Path, **options: Any) -> OperatorTaskInstance:
    given = {"prompt": "on a white background", "input_image": str(path)}
    return OperatorTaskInstance({"task_id": "make", "model": KONTEXT, "input": given, **options})


def batch(folder: Path, photos: dict[str, Path], **options: Any) -> BatchTaskInstance:
    rows = [{"sku": sku, "photo": str(photo)} for sku, photo in photos.items()]
    defaults = {"model": KONTEXT, "prompt": "on a white background", "input": {"input_image": "{{ row.photo }}"}}
    return BatchTaskInstance(folder, rows=rows, **{**defaults, **options})


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


class TestABatch:
    def test_a_photo_that_has_moved_is_the_same_input(self, deerapi: Emulator, tmp_path: Path) -> None:
        """a photo that moves, changes or is gone"""
        batch(tmp_path / "out", {"a": put(tmp_path / "1.png", SMALL)}).execute()
        moved = batch(tmp_path / "out", {"a": put(tmp_path / "moved" / "2.png", SMALL)})
        moved.next_run()
        assert moved.statuses() == ["kept"]
        assert deerapi.posts == 1

    def test_another_photo_at_the_same_path_is_a_changed_input(self, deerapi: Emulator, tmp_path: Path) -> None:
        photo = put(tmp_path / "1.png", SMALL)
        made = batch(tmp_path / "out", {"a": photo})
        made.execute()
        put(photo, OTHER)
        made.next_run()
        assert made.statuses() == ["succeeded"]
        put(photo, SMALL)
        made.next_run()
        assert made.statuses() == ["kept"]
        assert deerapi.posts == 2

    @pytest.mark.parametrize("fault", LOST)
    def test_a_lost_create_of_an_uploaded_photo_is_found_in_the_list(
        self, fault: str, replicate: Emulator, tmp_path: Path
    ) -> None:
        """a lost answer about a picture that went in"""
        replicate.add_fault(fault, on="create")
        photos = {sku: put(tmp_path / f"{sku}.png", of_bytes(600_000 + 3_000 * at)) for at, sku in enumerate("abc")}
        made = batch(tmp_path / "out", photos, max_in_flight=1)
        made.execute()
        assert made.statuses() == ["succeeded"] * 3
        assert replicate.posts == replicate.accepted == 3
        known = {prediction.id: prediction.pictures[0].sha256 for prediction in replicate.predictions}
        for line in made.manifest():
            assert known[line["prediction_id"]] in line["input"]

    def test_a_create_that_made_nothing_is_sent_again_beside_others_of_the_same_prompt(
        self, replicate: Emulator, tmp_path: Path
    ) -> None:
        photos = {sku: put(tmp_path / f"{sku}.png", of_bytes(600_000 + 3_000 * at)) for at, sku in enumerate("abcd")}
        replicate.add_fault("reset_before_accept", on="create", skip=2)
        made = batch(tmp_path / "out", photos, max_in_flight=1)
        made.execute()
        assert made.statuses() == ["succeeded"] * 4
        assert replicate.accepted == 4

    def test_a_lost_create_of_an_inline_photo_is_never_sent_again_blindly(
        self, replicate: Emulator, tmp_path: Path
    ) -> None:
        # The service shows an address of its own in the place of what was sent.
        replicate.add_fault("reset_after_accept", on="create")
        made = batch(tmp_path / "out", {"a": put(tmp_path / "a.png", SMALL), "b": put(tmp_path / "b.png", OTHER)})
        made.execute()
        assert sorted(made.statuses()) == ["succeeded", "unknown"]
        made.retry()
        assert replicate.posts == replicate.accepted == 2

    def test_megapixels_that_go_in_count_in_the_budget(self, replicate: Emulator, tmp_path: Path) -> None:
        # 0.06 USD for each megapixel in and out: 0.12 a row.
        options = {"model": FLEX, "input": {"input_images": ["{{ row.photo }}"]}, "max_in_flight": 1}
        photos = {sku: put(tmp_path / f"{sku}.png", SMALL) for sku in "abc"}
        made = batch(tmp_path / "out", photos, budget_usd=0.25, **options)
        with pytest.raises(FluxBudgetError, match=r"would cost 0\.1200 more"):
            made.execute()
        assert replicate.posts == 2
        assert [line["cost_usd"] for line in made.manifest()][:2] == [0.12, 0.12]

    def test_a_bad_photo_is_an_error_of_its_row_alone(self, deerapi: Emulator, tmp_path: Path) -> None:
        photos = {
            "a": put(tmp_path / "a.png", SMALL),
            "b": tmp_path / "missing.png",
            "c": put(tmp_path / "c.png", OTHER),
        }
        made = batch(tmp_path / "out", photos)
        made.execute()
        assert made.statuses() == ["succeeded", "failed", "succeeded"]
        assert deerapi.posts == 2
        put(tmp_path / "missing.png", LARGE)
        made.next_run()
        assert made.statuses() == ["kept", "succeeded", "kept"]
        assert deerapi.posts == 3

    def test_a_null_photo_is_no_prediction_of_the_prompt_alone(self, deerapi: Emulator, tmp_path: Path) -> None:
        made = batch(tmp_path / "out", {"a": put(tmp_path / "a.png", SMALL)})
        made.options["rows"] = [*made.options["rows"], {"sku": "b", "photo": None}, {"sku": "c", "photo": ""}]
        made.execute()
        assert made.statuses() == ["succeeded", "failed", "failed"]
        assert deerapi.posts == 1

    def test_photos_of_a_model_that_is_not_known_are_named_by_input_files(
        self, deerapi: Emulator, tmp_path: Path
    ) -> None:
        made = batch(
            tmp_path / "out",
            {"a": put(tmp_path / "a.png", SMALL)},
            input={"aspect_ratio": "1:1"},
            input_files={"input_image": "{{ row.photo }}"},
        )
        made.execute()
        assert made.statuses() == ["succeeded"]
        assert [arrived.field for arrived in deerapi.predictions[0].pictures] == ["input_image"]

    def test_lineage_tells_of_the_folders_that_photos_came_from(self, deerapi: Emulator, tmp_path: Path) -> None:
        made = batch(tmp_path / "out", {sku: put(tmp_path / "in" / f"{sku}.png", SMALL) for sku in "ab"})
        made.execute()
        lineage = made.operator.get_openlineage_facets_on_complete(None)
        assert lineage is not None
        assert [(told.namespace, told.name) for told in lineage.inputs] == [("file", str(tmp_path / "in"))]


class TestAnOperator:
    def test_lineage_tells_of_the_photo(self, deerapi: Emulator, tmp_path: Path) -> None:
        photo = put(tmp_path / "a.png", SMALL)
        made = task(photo, wait_for_completion=True, output_path=str(tmp_path / "out"))
        made.execute()
        lineage = made.operator.get_openlineage_facets_on_complete(None)
        assert [(told.namespace, told.name) for told in lineage.inputs] == [("file", str(photo))]

    def test_a_retry_goes_on_with_the_prediction_of_the_same_photo(self, deerapi: Emulator, tmp_path: Path) -> None:
        made = task(put(tmp_path / "a.png", SMALL), wait_for_completion=False)
        made.execute()
        made.retry()
        assert deerapi.posts == 1

    def test_a_path_may_be_an_object(self, deerapi: Emulator, tmp_path: Path) -> None:
        photo = put(tmp_path / "a.png", SMALL)
        made = task(photo, wait_for_completion=False)
        for path in (photo, ObjectStoragePath(f"file://{photo}"), [photo]):
            model, field = (FLEX, "input_images") if isinstance(path, list) else (KONTEXT, "input_image")
            made.options.update(model=model, input={"prompt": "on a white background", field: path})
            made.retry()
            assert deerapi.predictions[-1].pictures[0].size == len(SMALL)
        # The content is the same, so is the prediction; that of another model is another one.
        assert deerapi.posts == 2

    def test_another_photo_is_another_prediction(self, deerapi: Emulator, tmp_path: Path) -> None:
        photo = put(tmp_path / "a.png", SMALL)
        made = task(photo, wait_for_completion=False)
        made.execute()
        put(photo, OTHER)
        made.retry()
        assert deerapi.posts == 2
        assert sum(request.kind == "cancel" for request in deerapi.requests) == 1

    @pytest.mark.parametrize("fault", LOST)
    def test_a_lost_create_of_an_uploaded_photo_is_found_in_the_list(
        self, fault: str, replicate: Emulator, tmp_path: Path
    ) -> None:
        for number in range(3):
            task(put(tmp_path / f"{number}.png", of_bytes(600_000 + 3_000 * number))).execute()
        replicate.add_fault(fault, on="create")
        made = task(put(tmp_path / "a.png", LARGE))
        prediction_id = made.execute()
        [found] = [prediction for prediction in replicate.predictions if prediction.id == prediction_id]
        assert found.pictures[0].size == len(LARGE)
        assert replicate.posts == replicate.accepted == 4

    def test_after_a_worker_died_during_the_create_the_retry_finds_the_uploaded_photos_prediction(
        self, replicate: Emulator, tmp_path: Path
    ) -> None:
        made = task(put(tmp_path / "a.png", LARGE))
        made.die_during_post(replicate)
        made.retry()
        assert replicate.posts == replicate.accepted == 1

    def test_of_an_inline_photo_nobody_can_know_and_nothing_is_sent_again(
        self, replicate: Emulator, tmp_path: Path
    ) -> None:
        replicate.add_fault("reset_after_accept", on="create")
        made = task(put(tmp_path / "a.png", SMALL))
        for attempt in (made.execute, made.retry):
            with pytest.raises(FluxSubmissionUnknownError) as unknown:
                attempt()
            assert replicate.predictions[0].id in str(unknown.value)
        assert replicate.posts == replicate.accepted == 1

    def test_a_task_that_resumes_does_not_read_its_photo_again(self, deerapi: Emulator, tmp_path: Path) -> None:
        photo = put(tmp_path / "a.png", SMALL)
        made = task(photo, wait_for_completion=True, deferrable=True, wait_before_defer=0)
        deerapi.add_outcome("stuck")
        with pytest.raises(TaskDeferred) as deferred:
            made.execute()
        deerapi.finish(deerapi.predictions[0].id)
        photo.unlink()
        event = deferred.value.trigger.pending.event("succeeded")  # type: ignore[attr-defined]
        urls = made.resume("execute_complete", {"event": event})
        assert len(urls) == 1
        assert made.xcoms["flux_result"]["inputs"][0]["path"] == str(photo)
        assert deerapi.posts == 1

    def test_a_photo_that_is_gone_before_the_first_try_costs_nothing(self, deerapi: Emulator, tmp_path: Path) -> None:
        with pytest.raises(FluxInputError, match="no such file"):
            task(tmp_path / "gone.png").execute()
        assert deerapi.posts == 0
