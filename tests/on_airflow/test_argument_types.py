"""What Airflow may hand over in a template field is accepted rightly, or refused before anything is paid for."""

from __future__ import annotations

import enum
import math
from collections import OrderedDict, UserList, deque
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, ObjectStoragePath, task

from airflow_provider_flux.decorators import flux_task
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import FluxError, FluxInputError
from airflow_provider_flux.operators.batch import FluxBatchOperator
from airflow_provider_flux.operators.flux import FluxPredictionOperator
from airflow_provider_flux.sensors.flux import FluxPredictionSensor
from tests.conftest import Connect
from tests.on_airflow.runs import run

SCHNELL = "black-forest-labs/flux-schnell"
MODES = [False, True]


class Task:
    """An operator that is rendered and run as Airflow does it, without Airflow's database."""

    def __init__(self, operator: type, *, native: bool = False, **options: Any) -> None:
        self.xcoms: dict[str, Any] = {}
        with DAG("types", render_template_as_native_obj=native):
            self.operator: Any = operator(task_id="make", **options)

    def whole_input(self, **params: Any) -> dict[str, Any]:
        self.operator.render_template_fields({"params": params})
        return dict(self.operator._whole_input())

    def run(self, **params: Any) -> Any:
        names = {"dag_id": "types", "run_id": "run-1", "task_id": "make"}
        instance = SimpleNamespace(**names, map_index=-1, try_number=1, max_tries=1, xcom_push=self.xcoms.__setitem__)
        context: Any = {"ti": instance, "params": params, "ds": "2026-11-27"}
        self.operator.render_template_fields(context)
        return self.operator.execute(context)


def prediction(**options: Any) -> Task:
    return Task(FluxPredictionOperator, **{"model": SCHNELL, **options})


@pytest.fixture(autouse=True)
def gateway(emulator: Emulator, connect: Connect) -> None:
    emulator.settings(small_pictures=True)
    connect(emulator.url, gateway="deerapi")


class Lazy:
    """A sequence like Airflow's lazy ones over mapped XComs: no list, and read item by item."""

    def __init__(self, *items: Any) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, place: int) -> Any:
        return self._items[place]


class Colour(str, enum.Enum):
    RED = "red"


class Number:
    """Stands for a number of numpy."""

    dtype = "int64"

    def __init__(self, value: Any) -> None:
        self._value = value

    def tolist(self) -> Any:
        return self._value


@pytest.mark.parametrize("native", MODES)
@pytest.mark.parametrize(
    "prompt",
    [
        "1984",
        "1e5",
        "0012",
        "True",
        "None",
        "[1, 2]",
        "{'a': 1}",
        "(1)",
        "'quoted'",
        "1_000",
        "0x10",
        "  2 spaces ",
        "-7",
    ],
)
def test_a_prompt_stays_the_text_that_was_written(emulator: Emulator, prompt: str, native: bool) -> None:
    for given in (
        {"prompt": prompt},
        {"prompt": "{{ params.it }}"},
        {"input": {"prompt": prompt}},
        {"input": {"prompt": "{{ params.it }}"}},
    ):
        prediction(native=native, **given).run(it=prompt)
    assert {value for made in emulator.predictions for value in made.input.values()} == {prompt}
    assert emulator.posts == 4
    other = {"prompt": "{{ params.it }}", "negative_prompt": "{{ params.it }}"}
    assert set(prediction(native=native, model="a/b", input=other).whole_input(it=prompt).values()) == {prompt}


@pytest.mark.parametrize(
    ("value", "text"), [(1984, "1984"), (19.5, "19.5"), (Decimal("1.50"), "1.50"), (True, "True"), (Colour.RED, "red")]
)
@pytest.mark.parametrize("native", MODES)
def test_a_prompt_of_another_task_that_is_no_text_is_written_out(
    emulator: Emulator, value: Any, text: str, native: bool
) -> None:
    made = prediction(native=native, prompt="x")
    made.operator.prompt = value
    made.run()
    assert emulator.predictions[0].input == {"prompt": text}


@pytest.mark.parametrize("native", MODES)
@pytest.mark.parametrize("prompt", ["{{ params.it }}", "A photo of {{ params.it }}", "{{ params.it or none }}"])
@pytest.mark.parametrize("value", [None, math.nan])
def test_a_prompt_of_nothing_is_not_paid_for(emulator: Emulator, prompt: str, native: bool, value: Any) -> None:
    """a null or missing column in a template"""
    for given in ({"prompt": prompt}, {"input": {"prompt": prompt}}):
        with pytest.raises(FluxInputError, match="prompt: a value in its template is null"):
            prediction(native=native, **given).run(it=value)
    assert emulator.posts == 0


def test_a_template_may_provide_for_nothing(emulator: Emulator) -> None:
    prediction(prompt="A photo of {{ params.it or 'a cup' }}").run(it=None)
    assert emulator.predictions[0].input == {"prompt": "A photo of a cup"}


@pytest.mark.parametrize(
    "prompt",
    [["a", "b"], {"a": 1}, {"a"}, ("a",), b"bytes", timedelta(1), object(), Lazy("a"), date(2026, 1, 1), math.nan],
)
def test_a_prompt_that_is_no_text_is_refused_in_plain_words(emulator: Emulator, prompt: Any) -> None:
    made = prediction(prompt="x")
    made.operator.prompt = prompt
    with pytest.raises(FluxInputError, match="prompt must be a text, not"):
        made.operator.execute({"ti": SimpleNamespace(xcom_push=print)})
    assert emulator.posts == 0


def test_a_prompt_of_another_task_that_gave_nothing_is_refused(emulator: Emulator) -> None:
    made = prediction(model="someone/some-model", prompt="x")
    made.operator.prompt = None
    with pytest.raises(FluxInputError, match="prompt must be a text, not nothing"):
        made.run()
    assert emulator.posts == 0


@pytest.mark.parametrize(
    ("field", "value", "sent"),
    [
        ("seed", Decimal(7), 7),
        ("seed", Number(7), 7),
        ("seed", 7.0, 7.0),
        ("output_quality", Decimal("80"), 80),
        ("extra_list", ("a", "b"), ["a", "b"]),
        ("extra_list", UserList(["a", Decimal(1)]), ["a", 1]),
        ("extra_list", deque([1]), [1]),
        ("extra_map", OrderedDict(a=(1, 2)), {"a": [1, 2]}),
        ("extra_text", Colour.RED, "red"),
    ],
)
def test_what_json_has_another_name_for_is_sent(emulator: Emulator, field: str, value: Any, sent: Any) -> None:
    prediction(input={"prompt": "x", field: value}).run()
    assert emulator.predictions[0].input == {"prompt": "x", field: sent}


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        b"x",
        timedelta(1),
        datetime(2026, 1, 1, tzinfo=timezone.utc),
        Decimal("NaN"),
        math.nan,
        range(3),
    ],
)
def test_what_json_has_no_name_for_is_refused(emulator: Emulator, value: Any) -> None:
    with pytest.raises(FluxInputError, match=r"input\.extra"):
        prediction(input={"prompt": "x", "extra": value}).run()
    assert emulator.posts == 0


@pytest.mark.parametrize("native", MODES)
def test_a_field_may_be_a_function_of_the_context(emulator: Emulator, native: bool) -> None:
    def prompt(context: Any, jinja_env: Any) -> str:
        return f"{context['params']['it']}"

    prediction(native=native, prompt=prompt).run(it=1984)
    assert emulator.predictions[0].input == {"prompt": "1984"}


def test_numbers_stay_numbers_in_a_dag_of_native_objects(emulator: Emulator) -> None:
    given = {"prompt": "{{ params.prompt }}", "seed": "{{ params.seed }}", "megapixels": "{{ params.size }}"}
    fixed = {"num_outputs": "2", "go_fast": "{{ params.fast }}", "aspect_ratio": "1:1"}
    prediction(native=True, input={**given, **fixed}).run(prompt="1984", seed=7, size=1, fast=False)
    expected = {
        "prompt": "1984",
        "seed": 7,
        "megapixels": "1",
        "num_outputs": 2,
        "go_fast": False,
        "aspect_ratio": "1:1",
    }
    assert emulator.predictions[0].input == expected


def test_a_text_of_a_model_without_a_schema_stays_a_text() -> None:
    given = {"prompt": "x", "style": "1984", "seed": "{{ params.seed }}", "tags": ["007", "{{ params.seed }}"]}
    made = prediction(native=True, model="someone/some-model", input=given).whole_input(seed=7)
    assert made == {"prompt": "x", "style": "1984", "seed": 7, "tags": ["007", 7]}


def test_an_input_that_a_template_made_a_text_of_says_what_to_do(emulator: Emulator) -> None:
    with pytest.raises(FluxInputError, match=r"not a text \(a template renders to text: give the other task's output"):
        prediction(input="{{ params.it }}").run(it={"prompt": "x"})
    prediction(native=True, input="{{ params.it }}").run(it={"prompt": "1984", "seed": 7})
    assert emulator.predictions[0].input == {"prompt": "1984", "seed": 7}


PATHS: list[Callable[[Path], Any]] = [
    str,
    Path,
    PurePosixPath,
    lambda folder: ObjectStoragePath(str(folder)),
    lambda folder: ObjectStoragePath(f"file://{folder}"),
    lambda folder: f"  {folder}\n",
    lambda folder: f"{folder}/",
    lambda folder: ObjectStoragePath(f"file://{folder}/{{{{ ds }}}}"),
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("native", MODES)
def test_pictures_are_stored_whatever_the_path_is_made_of(
    emulator: Emulator, tmp_path: Path, path: Callable[[Path], Any], native: bool
) -> None:
    given = path(tmp_path / "pictures")
    options = {"poll_interval": 0.05, "wait_for_completion": True}
    (stored,) = prediction(native=native, prompt="x", output_path=given, **options).run()
    waits = Task(
        FluxPredictionSensor,
        prediction_id=emulator.predictions[0].id,
        output_path=given,
        native=native,
        poke_interval=0.1,
    )
    (again,) = waits.run()
    for found in (stored, again):
        assert "pictures" in found
        assert Path(found.removeprefix("file://")).stat().st_size > 0
    assert emulator.posts == 1


@pytest.mark.parametrize("path", PATHS)
def test_a_batch_takes_paths_of_every_kind(emulator: Emulator, tmp_path: Path, path: Callable[[Path], Any]) -> None:
    (tmp_path / "t.csv").write_text("sku,name\na,1984\n")
    # Two of the forms add something to the path, which makes another file of it.
    rows = path(tmp_path / "t.csv")
    is_file = str(rows).strip().endswith(".csv")
    options = {"model": SCHNELL, "key": "sku", "prompt": "{{ row.name }}", "poll_interval": 0.05}
    made = Task(
        FluxBatchOperator,
        native=True,
        rows=rows if is_file else str(tmp_path / "t.csv"),
        output_path=path(tmp_path / "pictures"),
        manifest_path=path(tmp_path / "manifests").__class__(f"{tmp_path}/own.jsonl"),
        **options,
    )
    assert made.run() == f"{tmp_path}/own.jsonl"
    assert emulator.predictions[0].input == {"prompt": "1984"}
    assert list((tmp_path / "pictures").rglob("*.webp"))


@pytest.mark.parametrize("given", ["", "  ", None, 7, ["a"], {"a": 1}, b"/tmp/x", "relative/folder", timedelta(1)])
def test_a_path_that_is_none_is_refused(emulator: Emulator, tmp_path: Path, given: Any) -> None:
    waiting = prediction(prompt="x", output_path=str(tmp_path), wait_for_completion=True)
    options = {"model": SCHNELL, "prompt": "x", "key": "sku", "rows": [{"sku": "a"}]}
    batch = Task(FluxBatchOperator, output_path=str(tmp_path), **options)
    manifest = Task(FluxBatchOperator, output_path=str(tmp_path), manifest_path="x", **options)
    # As if another task had given it.
    waiting.operator.output_path = batch.operator.output_path = manifest.operator.manifest_path = given
    for made in (waiting, batch, manifest):
        with pytest.raises(FluxInputError, match=r"(output|manifest)_path .*Nothing was sent"):
            made.run()
    assert emulator.posts == 0


REFUSED: list[tuple[str, Any, str]] = [
    ("model", None, "model must be a model such as"),
    ("model", 7, "model must be a model such as"),
    ("model", [], "model must be a model such as"),
    ("webhook", "", "webhook must be an https URL"),
    ("webhook", "None", "webhook must be an https URL"),
    ("webhook", 7, "webhook must be an https URL"),
    ("webhook", "ftp://x.example", "webhook must be an https URL"),
    ("webhook", "https://", "webhook must be an https URL"),
    ("webhook_events_filter", "completed", "webhook_events_filter"),
    ("webhook_events_filter", 5, "webhook_events_filter"),
    ("webhook_events_filter", {"completed": True}, "webhook_events_filter"),
    ("webhook_events_filter", ["done"], "webhook_events_filter"),
    ("webhook_events_filter", [["completed"]], "webhook_events_filter"),
    ("flux_conn_id", None, "flux_conn_id must be the id of a connection"),
    ("flux_conn_id", 7, "flux_conn_id must be the id of a connection"),
    ("flux_conn_id", "flux_missing", "correct flux_conn_id"),
    ("input", 7, "input must be a mapping of field names to values, not a number"),
    ("input", ["prompt"], "input must be a mapping of field names to values, not a list"),
]


@pytest.mark.parametrize(("name", "value", "said"), REFUSED)
def test_a_wrong_type_is_refused_before_anything_is_sent(emulator: Emulator, name: str, value: Any, said: str) -> None:
    """a template field of any type"""
    made = prediction(prompt="x")
    setattr(made.operator, name, value)
    with pytest.raises(FluxError, match=said) as caught:
        made.run()
    assert "NoneType" not in str(caught.value)
    assert emulator.posts == 0


@pytest.mark.parametrize(
    "events", [["completed"], ("completed",), {"completed"}, UserList(["completed"]), frozenset({"completed"})]
)
def test_events_may_be_any_list(emulator: Emulator, events: Any) -> None:
    made = prediction(prompt="x", webhook=" https://x.example/hook\n", webhook_events_filter=["start"])
    made.operator.webhook_events_filter = events
    made.run()
    assert emulator.posts == 1


@pytest.mark.parametrize("native", MODES)
def test_white_space_that_a_template_leaves_does_not_matter(emulator: Emulator, native: bool) -> None:
    made = prediction(native=native, prompt="x", model=f"\n{SCHNELL} ", flux_conn_id=" {{ params.conn }}\n")
    prediction_id = made.run(conn="flux_default")
    ended = Task(FluxPredictionSensor, native=native, prediction_id="\n {{ params.it }} ", poke_interval=0.1)
    assert ended.run(it=prediction_id)
    assert emulator.posts == 1


@pytest.mark.parametrize("given", [None, 7, "", " ", ["a"], {"id": "a"}, timedelta(1)])
def test_an_id_that_is_none_is_refused(given: Any) -> None:
    made = Task(FluxPredictionSensor, prediction_id="x")
    made.operator.prediction_id = given
    with pytest.raises(FluxInputError, match="prediction_id must be the id of a prediction"):
        made.run()


def test_an_id_of_another_task_that_gave_none_is_refused() -> None:
    with pytest.raises(FluxInputError, match="prediction_id: a value in its template is null"):
        Task(FluxPredictionSensor, prediction_id="{{ params.it }}").run(it=None)


@pytest.mark.parametrize("prediction_id", ["12345", "1e10", "0012", "True"])
def test_an_id_that_looks_like_a_number_is_an_id(prediction_id: str) -> None:
    made = Task(FluxPredictionSensor, native=True, prediction_id="{{ params.it }}", timeout=0.1, poke_interval=0.1)
    with pytest.raises(Exception, match=r".*"):
        made.run(it=prediction_id)
    assert made.xcoms["prediction_id"] == prediction_id


@pytest.mark.parametrize(
    ("budget", "is_good"),
    [
        ("25", True), (25, True), (Decimal("2.5"), True), (" 1e1 ", True), (None, True), ("", True),
        ("None", False), (True, False), ("25 USD", False), (-1, False), (math.nan, False), ([25], False),
    ],
)  # fmt: skip
def test_a_budget_may_be_any_number(emulator: Emulator, tmp_path: Path, budget: Any, is_good: bool) -> None:
    is_unpriced = is_good and budget not in (None, "")
    asked = {"model": "someone/some-model" if is_unpriced else SCHNELL, "prompt": "x", "key": "sku"}
    made = Task(FluxBatchOperator, output_path=tmp_path, rows=[{"sku": "a"}], poll_interval=0.05, **asked)
    made.operator.budget_usd = budget
    if is_unpriced:
        # Nobody publishes a price of this model, which is found out only once the budget is read.
        with pytest.raises(FluxError, match="is not known"):
            made.run()
    elif is_good:
        made.run()
    else:
        with pytest.raises(FluxInputError, match="budget_usd must be a number of USD"):
            made.run()
    assert emulator.posts == (1 if budget in (None, "") else 0)


def test_rows_that_are_written_down_keep_their_texts_in_a_dag_of_native_objects(
    emulator: Emulator, tmp_path: Path
) -> None:
    rows = [{"sku": "0012", "name": "1984"}, {"sku": "1e5", "name": "True"}, {"sku": "7", "name": "{{ params.it }}"}]
    made = Task(
        FluxBatchOperator,
        native=True,
        rows=rows,
        rows_options={"delimiter": "{{ params.delimiter }}", "allow_empty": "{{ params.empty }}"},
        output_path=str(tmp_path),
        model=SCHNELL,
        key="sku",
        prompt="{{ row.name }}",
        poll_interval=0.05,
    )
    made.run(it="a cup", delimiter=";", empty=False)
    assert {sent.input["prompt"] for sent in emulator.predictions} == {"1984", "True", "a cup"}
    assert {path.name.rsplit("-", 1)[0] for path in tmp_path.glob("*.webp")} == {"0012", "1e5", "7"}


@pytest.mark.usefixtures("airflow_db")
def test_results_of_mapped_and_other_tasks_on_real_airflow(emulator: Emulator, tmp_path: Path) -> None:
    """Lazy sequences, numbers and paths come through XCom, and a table's options through a decorator."""
    (tmp_path / "t.csv").write_bytes("sku;name\na;caf\u00e9\n".encode("cp1252"))
    with DAG("typed_results", render_template_as_native_obj=True) as dag:

        @task
        def year(number: int) -> int:
            return number

        @task
        def row(number: int) -> dict[str, Any]:
            return {"sku": f"s{number}", "name": f"{number}"}

        FluxPredictionOperator(task_id="number", model=SCHNELL, prompt=year(1984))  # type: ignore[arg-type]
        FluxBatchOperator(
            task_id="mapped",
            rows=row.expand(number=[1, 2]),
            model=SCHNELL,
            key="sku",
            prompt="{{ row.name }}",
            output_path=ObjectStoragePath(f"file://{tmp_path}/mapped"),
            poll_interval=0.05,
        )

        @task.flux_batch(
            model=SCHNELL,
            key="sku",
            prompt="{{ row.name }}",
            rows_options={"encoding": "cp1252"},
            output_path=tmp_path / "decorated",
            poll_interval=0.05,
        )
        def decorated() -> Path:
            return tmp_path / "t.csv"

        decorated()

    assert run(dag).state == "success"
    assert {sent.input["prompt"] for sent in emulator.predictions} == {"1984", "1", "2", "caf\u00e9"}
    assert emulator.posts == 4


def test_the_decorator_leaves_what_its_function_returns_as_it_is(emulator: Emulator) -> None:
    with DAG("decorated_types", render_template_as_native_obj=True):

        @flux_task(model=SCHNELL, input={"megapixels": "1"})
        def lantern() -> dict[str, Any]:
            return {"prompt": "1984", "seed": Decimal(7)}

        operator = lantern().operator
    context: Any = {"ti": SimpleNamespace(xcom_push=lambda *_: None), "params": {}}
    operator.render_template_fields(context)
    operator.execute(context)
    assert emulator.predictions[0].input == {"megapixels": "1", "prompt": "1984", "seed": 7}
