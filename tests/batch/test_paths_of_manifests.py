"""Manifests are found by every kind of path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from airflow.sdk import ObjectStoragePath

from airflow_provider_flux.batch.manifest import COLUMNS, merge_manifests, read_manifest


@pytest.mark.parametrize("kind", [str, Path, lambda path: ObjectStoragePath(f"file://{path}")])
def test_a_manifest_may_be_named_by_a_path_object(tmp_path: Path, kind: type) -> None:
    for part in range(2):
        line = json.dumps({**COLUMNS, "row": part + 1, "key": f"k{part}", "status": "succeeded"})
        (tmp_path / f"m.jsonl.part-{part}-of-2").write_text(f"{line}\n")

    merged = merge_manifests(kind(tmp_path / "m.jsonl"), 2)

    assert (merged["total"], json.dumps(merged) != "") == (2, True)
    assert [listed["key"] for listed in read_manifest(kind(tmp_path / "m.jsonl"))] == ["k0", "k1"]
