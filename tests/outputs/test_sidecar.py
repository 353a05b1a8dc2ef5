from __future__ import annotations

import json

from airflow_provider_flux.outputs.sidecar import describe
from airflow_provider_flux.protocol.prediction import Prediction, PredictionStatus
from tests.outputs.drawings import data_uri, drawn


def test_the_facts_tell_how_a_picture_came_about():
    prediction = Prediction(
        id="abc",
        status=PredictionStatus.SUCCEEDED,
        model="replicate/internal",
        outputs=("https://replicate.delivery/out-0.webp?sig=1",),
        metrics={"predict_time": 1.5},
        created_at=1_780_000_000.25,
    )
    facts = describe(
        prediction, gateway="DeerAPI", model="black-forest-labs/flux-dev", input={"prompt": "a boat", "seed": 7}
    )
    assert json.loads(json.dumps(facts)) == {
        "prediction_id": "abc",
        "gateway": "DeerAPI",
        "model": "black-forest-labs/flux-dev",
        "prompt": "a boat",
        "seed": 7,
        "input": {"prompt": "a boat", "seed": 7},
        "metrics": {"predict_time": 1.5},
        "created_at": "2026-05-28T20:26:40.250+00:00",
        "started_at": None,
        "completed_at": None,
    }


def test_the_facts_hold_no_picture_and_no_signature():
    prediction = Prediction(id="abc", status=PredictionStatus.SUCCEEDED)
    uri = data_uri(drawn())
    given = {
        "prompt": "why? https://example.com/?q=1 is no picture",
        "image": "https://me:secret@store.example.com/in.png?sig=secret",
        "input_images": [uri, "http://store.example.com/b.png#x"],
        "extra": {"deep": uri},
    }
    shown = describe(prediction, gateway="Replicate", model="m/x", input=given)["input"]
    assert shown["prompt"] == given["prompt"]
    assert shown["image"] == "https://store.example.com/in.png"
    note = f"data:image/png;base64, ({len(uri)} characters)"
    assert shown["input_images"] == [note, "http://store.example.com/b.png"]
    assert shown["extra"] == {"deep": note}
