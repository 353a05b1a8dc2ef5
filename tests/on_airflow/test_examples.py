"""The example DAGs at work, on real Airflow against the emulator."""

from __future__ import annotations

import hashlib
import importlib.util
import sqlite3
import threading
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from airflow.utils.state import TaskInstanceState
from PIL import Image

from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.emulator.drawing import Sketch, draw
from tests.batch.task_instance import read_lines
from tests.conftest import Connect
from tests.on_airflow.runs import _store, run
from tests.outputs.conftest import Store

pytestmark = pytest.mark.usefixtures("airflow_db")

EXAMPLES = Path(__file__).parents[2] / "example_dags"


@pytest.fixture(autouse=True)
def gateway(emulator: Emulator, connect: Connect) -> None:
    emulator.settings(small_pictures=False)
    connect(emulator.url, gateway="deerapi", read_timeout=2)


def example(name: str) -> ModuleType:
    """Import an example anew."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_drawn_as_asked(
    emulator: Emulator, listed: Mapping[str, Any], *, prompt: str, given: Mapping[str, Any], size: tuple[int, int]
) -> None:
    """Check that the file of a manifest's row is the very picture that the gateway draws of what the row asks for."""
    (prediction,) = [made for made in emulator.predictions if made.id == listed["prediction_id"]]
    assert prediction.input == {"prompt": prompt, **given}
    kind = given["output_format"]
    file = Path(listed["path"])
    with Image.open(file) as image:
        assert (image.format, image.size) == ({"jpg": "JPEG"}.get(kind, kind.upper()), size)
    seed = given.get("seed", prediction.seed)
    sketch = Sketch(model="flux-schnell", prompt=prompt, given=given, seed=seed, file_format=kind)
    assert file.read_bytes() == draw(sketch)


CATALOGUE = {
    "TEA-01": ("teapot", "green enamel", "1:1", "png", 11, (1024, 1024)),
    "CUP-07": ("cup", "white porcelain", "4:3", "webp", 12, (1152, 896)),
    "TRAY-3": ("tray", "round, of bamboo", "16:9", "jpg", 13, (1344, 768)),
    "JUG-22": ("jug", "blue glass", "3:4", "webp", 14, (896, 1152)),
}


@pytest.fixture
def products(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("airflow.providers.sqlite", reason="the catalogue's demo table takes Airflow's SQLite provider")
    database = tmp_path / "products.db"
    monkeypatch.setenv("AIRFLOW_CONN_PRODUCTS_DB", f"sqlite://{database}")
    return database


def pictures_of(database: Path) -> dict[str, str]:
    with closing(sqlite3.connect(database)) as connection:
        return dict(connection.execute("SELECT sku, picture FROM products").fetchall())


def test_the_catalogue_gets_a_picture_for_each_row_and_its_path_in_the_table(
    emulator: Emulator, tmp_path: Path, products: Path
) -> None:
    dag = example("flux_product_catalogue").flux_product_catalogue()

    finished = run(dag, output_path=str(tmp_path / "pictures"))

    assert finished.state == "success"
    manifest = {listed["key"]: listed for listed in read_lines(Path(finished.xcom("make_pictures")))}
    assert pictures_of(products) == {sku: manifest[sku]["path"] for sku in CATALOGUE}
    for sku, (name, look, shape, kind, seed, size) in CATALOGUE.items():
        prompt = f"A {name}, {look}, product photo on a plain background"
        given = {"aspect_ratio": shape, "output_format": kind, "seed": seed}
        assert_drawn_as_asked(emulator, manifest[sku], prompt=prompt, given=given, size=size)
    assert (emulator.posts, emulator.accepted) == (4, 4)
    assert emulator.foreign_requests_with_authorization == 0


def test_the_catalogue_makes_only_what_has_changed_when_it_runs_again(
    emulator: Emulator, tmp_path: Path, products: Path
) -> None:
    emulator.settings(small_pictures=True)
    dag = example("flux_product_catalogue").flux_product_catalogue()
    run(dag, output_path=str(tmp_path / "pictures"))
    before = pictures_of(products)
    with closing(sqlite3.connect(products)) as connection:
        connection.execute("UPDATE products SET look = 'yellow enamel' WHERE sku = 'TEA-01'")
        connection.commit()

    finished = run(dag, output_path=str(tmp_path / "pictures"))

    assert finished.state == "success"
    assert emulator.posts == 5
    after = pictures_of(products)
    assert {sku for sku in before if after[sku] != before[sku]} == {"TEA-01"}
    assert all(Path(path).is_file() for path in after.values())


def test_the_menu_pays_for_what_is_new_and_its_asset_schedules_the_dag_that_reads_it(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = example("flux_batch_incremental")
    monkeypatch.setattr(module, "OUTPUT_PATH", str(tmp_path))
    consumer = module.flux_batch_consumer()
    _store(consumer)

    monkeypatch.setattr(module, "SPECIALS", ["dumplings"] * 7)
    first = run(module.flux_batch_incremental())
    assert (first.state, emulator.posts) == ("success", 4)
    monkeypatch.setattr(module, "SPECIALS", ["a bean stew"] * 7)
    second = run(module.flux_batch_incremental())
    assert (second.state, emulator.posts) == ("success", 5)
    assert waiting_for_a_run(module.MENU.name) == ["flux_batch_consumer"]

    read = run(consumer)

    manifest = {listed["key"]: listed for listed in read_lines(tmp_path / "manifest.jsonl")}
    assert read.state == "success"
    assert read.xcom("print_menu") == {key: listed["path"] for key, listed in manifest.items()}
    assert {key: listed["status"] for key, listed in manifest.items()} == {
        "soup": "kept",
        "pasta": "kept",
        "dessert": "kept",
        "special": "succeeded",
    }
    for key, look in {**module.DISHES, "special": "a bean stew"}.items():
        assert_drawn_as_asked(
            emulator,
            manifest[key],
            prompt=f"{look}, seen from above on a wooden table, food photo",
            given={"aspect_ratio": "4:3", "output_format": "webp"},
            size=(1152, 896),
        )


def waiting_for_a_run(asset: str) -> list[str]:
    """Return the DAGs of which Airflow's scheduler is going to make a run because of an asset."""
    from airflow.models.asset import AssetDagRunQueue, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        queued = select(AssetDagRunQueue.target_dag_id).join(AssetModel, AssetModel.id == AssetDagRunQueue.asset_id)
        return list(session.scalars(queued.where(AssetModel.name == asset)))


def test_mapped_batches_make_one_manifest_of_the_whole_table(emulator: Emulator, tmp_path: Path) -> None:
    dag = example("flux_mapped_batches").flux_mapped_batches()

    finished = run(dag, table=str(tmp_path / "table.jsonl"), output_path=str(tmp_path / "pictures"))

    assert finished.state == "success"
    assert finished.states("make_pictures") == ["success"] * 3
    rows = read_lines(tmp_path / "table.jsonl")
    manifest = read_lines(Path(finished.xcom("merge")["manifest_path"]))
    assert [listed["key"] for listed in manifest] == [row["id"] for row in rows]
    for row, listed in zip(rows, manifest, strict=True):
        assert_drawn_as_asked(
            emulator,
            listed,
            prompt=f"{row['animal']} at the edge of a wood, watercolour",
            given={"aspect_ratio": "1:1", "output_format": "webp"},
            size=(1024, 1024),
        )
    assert (emulator.posts, finished.xcom("merge")["succeeded"]) == (8, 8)


@pytest.mark.skipif(
    not hasattr(TaskInstanceState, "AWAITING_INPUT"),
    reason="the dag.test() of this Airflow cannot run the trigger that waits for a person; version 3.3 needs none",
)
@pytest.mark.parametrize(("choice", "outcome"), [("Approve", "success"), ("Reject", "skipped")])
def test_a_person_sees_the_pictures_and_only_what_is_approved_is_published(
    emulator: Emulator, tmp_path: Path, choice: str, outcome: str
) -> None:
    emulator.settings(small_pictures=True)
    dag = example("flux_approve_before_publish").flux_approve_before_publish()
    with Person(dag.dag_id, choice) as person:
        finished = run(dag, output_path=str(tmp_path / "posters"), published_path=str(tmp_path / "published"))

    assert finished.state == "success"
    assert finished.states("publish") == [outcome]
    result = finished.xcom("make_posters", "flux_result")
    images = [f"![Poster {number}]({url})" for number, url in enumerate(result["outputs"], 1)]
    assert person.question.splitlines()[-2:] == images
    assert result["prompt"] in person.question
    stored = [Path(path).read_bytes() for path in finished.xcom("make_posters")]
    published = [Path(path).read_bytes() for path in finished.xcom("publish") or ()]
    assert published == (stored if choice == "Approve" else [])
    assert (emulator.posts, len(stored)) == (1, 2)


@pytest.mark.skipif(
    not hasattr(TaskInstanceState, "AWAITING_INPUT"),
    reason="the dag.test() of this Airflow cannot run the trigger that waits for a person; version 3.3 needs none",
)
@pytest.mark.parametrize("storage", ["folder", "s3"])
def test_photos_from_a_folder_or_a_bucket_are_restyled_approved_and_published(
    emulator: Emulator, tmp_path: Path, s3: Store, storage: str
) -> None:
    emulator.settings(small_pictures=True)
    photos = {photo.stem: photo.read_bytes() for photo in (EXAMPLES / "photos").iterdir()}
    where = {}
    if storage == "s3":
        for name, content in photos.items():
            s3.client.put_object(Bucket="pictures", Key=f"shelf/{name}.jpg", Body=content)
        where = {"photos": f"{s3.url}/shelf"}
    dag = example("flux_restyle_photos").flux_restyle_photos()
    with Person(dag.dag_id, "Approve") as person:
        finished = run(dag, output_path=str(tmp_path / "made"), published_path=str(tmp_path / "published"), **where)

    assert finished.state == "success"
    assert person.question.startswith("6 photos have a new background")
    assert {file.stem for file in (tmp_path / "published").iterdir()} == set(photos)
    given = {prediction.pictures[0].sha256 for prediction in emulator.predictions}
    assert given == {hashlib.sha256(content).hexdigest() for content in photos.values()}
    assert emulator.posts == emulator.accepted == 6


class Person:
    """Answers the question of a run as the UI does it: by the API server's own code, in the database of the run.

    :ivar question: what the task asks.
    """

    def __init__(self, dag_id: str, choice: str) -> None:
        self.question = ""
        self._dag_id = dag_id
        self._choice = choice
        self._leaves = threading.Event()
        self._thread = threading.Thread(target=self._answer)

    def __enter__(self) -> Person:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaves.set()
        self._thread.join()

    def _answer(self) -> None:
        from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
        from airflow.api_fastapi.core_api.datamodels.hitl import UpdateHITLDetailPayload
        from airflow.api_fastapi.core_api.routes.public.hitl import update_hitl_detail
        from airflow.models.hitl import HITLDetail
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session
        from sqlalchemy import select

        asked = (
            select(TaskInstance, HITLDetail.body)
            .join(HITLDetail, HITLDetail.ti_id == TaskInstance.id)
            .where(
                TaskInstance.dag_id == self._dag_id,
                TaskInstance.state.in_(["awaiting_input", "deferred"]),
                HITLDetail.responded_at.is_(None),
            )
        )
        while not self._leaves.wait(0.2):
            with create_session() as session:
                found = session.execute(asked).first()
                if found is None:
                    continue
                instance, self.question = found
                update_hitl_detail(
                    dag_id=self._dag_id,
                    dag_run_id=instance.run_id,
                    task_id=instance.task_id,
                    update_hitl_detail_payload=UpdateHITLDetailPayload(chosen_options=[self._choice]),
                    user=SimpleAuthManagerUser(username="person", role="admin"),
                    session=session,
                )
                return


@pytest.mark.parametrize("gateway", ["deerapi", "cometapi", "replicate"])
@pytest.mark.parametrize("out", [0, 1, 2])
def test_another_model_makes_the_picture_while_one_is_out(
    gateway: str, out: int, emulator: Emulator, connect: Connect
) -> None:
    connect(emulator.url, gateway=gateway, read_timeout=2)
    models = [f"black-forest-labs/{name}" for name in ("flux-2-pro", "flux-1.1-pro", "flux-schnell")]
    for model in models[:out]:
        emulator.add_fault("503_model_not_found", on="create", model=model, times=None)

    finished = run(example("flux_with_fallbacks").flux_with_fallbacks())

    assert finished.state == "success"
    assert finished.xcom("tell") == f"{models[out]} at {gateway}"
    passed_over = finished.xcom("make_picture", "flux_result")["passed_over"]
    assert [(way["model"], way["gateway"], way["reason"]) for way in passed_over] == [
        (model, gateway, "unavailable") for model in models[:out]
    ]
    assert emulator.accepted == 1
