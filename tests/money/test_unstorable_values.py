"""What Airflow, its database, UTF-8 or JSON cannot carry is refused before it is paid for, or made storable."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import FluxError, FluxInputError, FluxPredictionError
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.outputs.sidecar import describe
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus
from airflow_provider_flux.sensors.flux import FluxPredictionSensor
from airflow_provider_flux.triggers.flux import FluxPredictionTrigger
from tests.batch.task_instance import SCHNELL, BatchTaskInstance
from tests.conftest import Connect
from tests.durable.task_instance import OperatorTaskInstance
from tests.odd_gateway import OddGateway

UNSTORABLE: dict[str, Any] = {
    "half an emoji": "cat \ud83d",
    "the other half": "\ude00 cat",
    "halves in the wrong order": "\ude00\ud83d",
    "a NUL": "cat\x00dog",
    "a NUL at the end": "cat\x00",
    "NaN": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "too large": 2**64,
    "too small": -(2**63) - 1,
    "in a list": ["fine", "\ud800"],
    "in an object": {"deep": [{"deeper": math.nan}]},
    "in a name": {"na\x00me": 1},
    "too large to be written": 10**5000,
}
STORABLE = {
    "an emoji": "cat 😀",
    "line separators": "a\u2028b\u2029c\x85d",
    "control characters": "a\x01\x1b[31mb\x7f",
    "right to left": "\u202eabc\u200f",
    "beyond the first plane": "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0010ffff",
    "combining": "e\u0301\u0302",
    "no characters": "\ufffe\uffff",
    "a byte order mark": "\ufeffcat",
}


@pytest.fixture
def gateway(emulator: Emulator, connect: Connect) -> Emulator:
    emulator.settings(small_pictures=True)
    connect(emulator.url, gateway="deerapi", read_timeout=1)
    return emulator


def task(**options: Any) -> OperatorTaskInstance:
    return OperatorTaskInstance({"task_id": "make", "model": SCHNELL, **options})


def check_storable(value: Any) -> None:
    msgspec.msgpack.encode(value)
    assert "\\u0000" not in json.dumps(value, allow_nan=False)
    json.dumps(value, ensure_ascii=False).encode()


@pytest.mark.parametrize("value", UNSTORABLE.values(), ids=UNSTORABLE)
@pytest.mark.parametrize("against_schema", [True, False])
def test_hook_and_operator_send_nothing_that_cannot_be_stored(
    gateway: Emulator, value: Any, against_schema: bool
) -> None:
    given = {"prompt": value} if isinstance(value, str) else {"prompt": "cat", "seed": value}
    with pytest.raises(FluxInputError, match=r"input\.(prompt|seed)") as refused:
        FluxHook().create_prediction(SCHNELL, given, validate_input=against_schema)
    check_storable(str(refused.value))

    instance = task(input=given, validate_input=against_schema)
    with pytest.raises(FluxInputError, match=r"input\.(prompt|seed)"):
        instance.execute()
    assert (gateway.posts, gateway.accepted) == (0, 0)
    assert not instance.xcoms


@pytest.mark.parametrize("value", UNSTORABLE.values(), ids=UNSTORABLE)
def test_a_row_that_cannot_be_stored_costs_neither_itself_nor_the_others(
    gateway: Emulator, tmp_path: Path, value: Any
) -> None:
    rows = [{"sku": "bad", "name": "x", "value": value}, {"sku": "good", "name": "cup", "value": "fine"}]
    instance = BatchTaskInstance(tmp_path, rows=rows, input=lambda row: {"value": row["value"]}, validate_input=False)
    instance.execute()

    bad, good = instance.manifest()
    assert (bad["status"], good["status"]) == ("failed", "succeeded")
    assert "input.value" in bad["error"]
    assert (gateway.posts, gateway.accepted) == (1, 1)
    check_storable([bad, good, instance.totals])


@pytest.mark.parametrize("key", [value for value in UNSTORABLE.values() if isinstance(value, str)])
def test_a_key_that_cannot_be_stored_is_refused_with_its_row(gateway: Emulator, tmp_path: Path, key: str) -> None:
    with pytest.raises(FluxInputError, match=r"row 1: the key: .* cannot be stored") as refused:
        BatchTaskInstance(tmp_path, rows=[{"sku": key, "name": "x"}]).execute()
    check_storable(str(refused.value))
    assert gateway.posts == 0


@pytest.mark.parametrize("value", STORABLE.values(), ids=STORABLE)
def test_what_can_be_stored_is_sent_as_it_is(gateway: Emulator, tmp_path: Path, value: str) -> None:
    instance = task(input={"prompt": value})
    instance.execute()
    batch = BatchTaskInstance(tmp_path, rows=[{"sku": "1", "name": value}], prompt="{{ row.name }}")
    batch.execute()

    assert gateway.posts == 2
    assert instance.xcoms["flux_result"]["prompt"] == " ".join(value.split())
    assert [listed["prompt"] for listed in batch.manifest()] == [value]
    check_storable(dict(instance.xcoms))


@pytest.mark.parametrize("text", ["\ud83d", "a\x00b"])
def test_other_texts_that_cannot_be_stored_are_refused_as_well(gateway: Emulator, text: str) -> None:
    given = {"prompt": "cat"}
    for refused in (
        lambda: FluxHook().create_prediction(f"owner/{text}", given),
        lambda: FluxHook().create_prediction(SCHNELL, given, webhook=f"https://example.com/{text}"),
        lambda: task(input=given, output_path=f"/tmp/{text}", wait_for_completion=True).execute(),
        lambda: FluxPredictionSensor(task_id="see", prediction_id=text).execute({"ti": None}),  # type: ignore[typeddict-item]
    ):
        with pytest.raises(FluxInputError, match="cannot be stored") as error:
            refused()
        check_storable(str(error.value))
    assert gateway.posts == 0


ODD_RESPONSES = {
    "NaN in the metrics": ('"metrics": {"predict_time": NaN, "x": [Infinity, -Infinity]}', ""),
    "a number beyond all": ('"metrics": {"predict_time": 1e999, "cost": 99999999999999999999999999}', ""),
    "half an emoji in the metrics": ('"metrics": {"note\\ud83d": "\\ude00"}', ""),
    "NUL in the model": ('"metrics": {"note": "a\\u0000b"}, "model": "a\\u0000"', ""),
    "half an emoji in the error": ('"metrics": {}', "went wrong \\ud83d"),
    "NUL in the error": ('"metrics": {"predict_time": 0.5}', "went\\u0000wrong"),
    "a seed beyond 64 bits": ('"metrics": {}, "input": {"prompt": "cat", "seed": 1180591620717411303424}', ""),
    "half an emoji in the echo": ('"metrics": {}, "input": {"prompt": "cat \\ud83d"}', ""),
    "half an emoji in the logs": ('"metrics": {}, "logs": "\\ud83d\\u0000"', ""),
}


@pytest.fixture(params=ODD_RESPONSES.values(), ids=ODD_RESPONSES)
def odd(request: pytest.FixtureRequest, connect: Connect) -> Iterator[tuple[OddGateway, str]]:
    fields, error = request.param
    ended = (
        f'{{"id": "%(id)s", "status": "{"failed" if error else "succeeded"}", "error": "{error}",'
        f' "output": ["%(picture)s"], {fields}}}'
    )
    created = '{"id": "p%(n)d", "status": "starting", "metrics": {"x": NaN, "y": "\\ud83d\\u0000"}}'
    with OddGateway(created, ended) as gateway:
        connect(gateway.url, gateway="deerapi", read_timeout=1, allow_private_outputs=True)
        yield gateway, error


def test_a_worker_stores_what_a_gateway_says_whatever_it_says(odd: tuple[OddGateway, str]) -> None:
    gateway, error = odd
    """values that Airflow, its database or JSON cannot carry"""
    instance = task(input={"prompt": "cat"}, wait_for_completion=True)
    if error:
        with pytest.raises(FluxPredictionError) as failed:
            instance.execute()
        check_storable(str(failed.value))
    else:
        instance.execute()
    check_storable(dict(instance.xcoms))
    assert gateway.posts == 1


async def test_a_trigger_ends_in_an_event_that_can_be_stored(odd: tuple[OddGateway, str]) -> None:
    now = time.time()
    trigger = FluxPredictionTrigger(
        prediction_id="p1",
        flux_conn_id="flux_default",
        model=SCHNELL,
        submitted_at=now,
        deadline=now + 10,
        poll_interval=0.05,
    )
    (event,) = [event async for event in trigger.run()]
    check_storable(event.payload)
    assert event.payload["status"] == ("failed" if odd[1] else "succeeded")


def test_a_batch_goes_on_the_next_day_whatever_a_gateway_said(odd: tuple[OddGateway, str], tmp_path: Path) -> None:
    gateway, error = odd
    instance = BatchTaskInstance(tmp_path, rows=[{"sku": "1", "name": "cat"}])
    for run in (instance.execute, instance.next_run):
        if error:
            with pytest.raises(FluxError) as failed:
                run()
            check_storable(str(failed.value))
        else:
            run()
        check_storable(instance.manifest())
    assert gateway.posts == (2 if error else 1)


def test_a_manifest_with_a_bare_nan_from_an_older_version_is_read(gateway: Emulator, tmp_path: Path) -> None:
    instance = BatchTaskInstance(tmp_path, rows=[{"sku": "1", "name": "cat"}])
    instance.execute()
    manifest = tmp_path / "manifest.jsonl"
    listed = json.loads(manifest.read_text("utf-8"))
    manifest.write_text(json.dumps({**listed, "predict_time": math.nan, "error": "\ud83d"}) + "\n", "utf-8")

    instance.next_run()

    assert gateway.posts == 1
    check_storable(instance.manifest())


def test_a_sidecar_holds_what_can_be_stored() -> None:
    prediction = Prediction(id="p", status=PredictionStatus.SUCCEEDED, metrics={"predict_time": math.nan})
    check_storable(describe(prediction, gateway="deerapi", model=SCHNELL, input={"prompt": "cat \ud83d"}))
