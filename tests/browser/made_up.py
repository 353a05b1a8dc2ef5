"""Made-up results in the form that tasks push them, with real picture files."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from airflow_provider_flux.emulator.drawing import Sketch, draw

MODELS = ("black-forest-labs/flux-schnell", "black-forest-labs/flux-1.1-pro", "black-forest-labs/flux-dev")
PRICES = (0.003, 0.04, 0.025)
THINGS = (
    *("teapot", "porcelain cup", "bamboo tray", "brass kettle", "linen towel", "honey jar", "walnut board"),
    *("copper ladle", "stoneware bowl", "oak stool", "wool blanket", "glass carafe", "rye loaf", "lemon tree"),
)
SETTINGS = ("in morning light", "on a marble table", "by the sea", "in a studio", "among autumn leaves")
DRAWN = 40
"""Different files; the others repeat them, which nobody sees."""

REFUSED = "All generated images contained NSFW content. Try running it again with a different prompt."
BUSY = "Prediction interrupted; please retry (code: PA)"


def prompt_of(number: int) -> str:
    return f"A {THINGS[number % len(THINGS)]} {SETTINGS[number % len(SETTINGS)]}, catalogue photo no. {number + 1}"


def draw_pictures(folder: Path) -> list[dict[str, Any]]:
    """Draw the files; return their entries as in ``stored``."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_draw(folder, number) for number in range(DRAWN)]


def result(number: int, pictures: list[dict[str, Any]], *, ended: bool = True) -> dict[str, Any]:
    """Return a ``flux_result``: most succeed, and every 23rd fails."""
    kind = number % 3
    created = datetime.now(timezone.utc) - timedelta(seconds=40 + 900 * (number % 40))
    took = (1.2, 4.4, 3.1)[kind] + (number * 7 % 13) / 10
    record = {
        "id": f"p{number:04d}zx81kq4tw9v",
        "model": MODELS[kind],
        "status": "processing",
        "outputs": [],
        "prompt": prompt_of(number),
        "seed": 100_000 + 37 * number,
        "cost_usd": None,
        "error": None,
        "retry_helps": None,
        "metrics": {},
        "created_at": created.isoformat(),
        "started_at": created.isoformat(),
        "completed_at": None,
        "expires_at": None,
    }
    if not ended:
        return record
    completed = created + timedelta(seconds=took)
    record |= {"metrics": {"predict_time": took}, "completed_at": completed.isoformat()}
    if number % 23 == 5:
        can_pass = number % 2 == 0
        return record | {"status": "failed", "error": BUSY if can_pass else REFUSED, "retry_helps": can_pass}
    picture = pictures[number % len(pictures)]
    return record | {
        "status": "succeeded",
        "stored": [picture],
        "cost_usd": PRICES[kind],
        "outputs": [f"https://replicate.delivery/xezq/{number}/out-0.webp"],
        "expires_at": (completed + timedelta(hours=1)).isoformat(),
    }


def row(number: int, pictures: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a line of a manifest."""
    made = result(number, pictures)
    picture = (made.get("stored") or [{}])[0]
    return {
        "key": f"sku-{number:04d}",
        "status": made["status"],
        "path": picture.get("path"),
        "paths": [picture["path"]] if picture else [],
        "url": (made["outputs"] or [None])[0],
        "prediction_id": made["id"],
        "model": made["model"],
        "prompt": made["prompt"],
        "seed": made["seed"],
        "sha256": picture.get("sha256"),
        "width": picture.get("width"),
        "height": picture.get("height"),
        "format": picture.get("format"),
        "bytes": picture.get("bytes"),
        "predict_time": made["metrics"].get("predict_time"),
        "cost_usd": made["cost_usd"],
        "error": made["error"],
        "attempts": 1,
    }


def write_batch(folder: Path, pictures: list[dict[str, Any]], *, rows: int, steps: int, pause: float) -> Path:
    """Write a manifest and the script that a played batch says its figures from; return the script."""
    lines = [row(number, pictures) for number in range(rows)]
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    script = {
        "pause": pause,
        "manifest_path": f"file://{manifest}",
        "figures": [_figures(lines, rows * step // steps) for step in range(1, steps + 1)],
    }
    path = folder / "script.json"
    path.write_text(json.dumps(script))
    return path


def _figures(lines: list[dict[str, Any]], done: int) -> dict[str, Any]:
    ended = lines[:done]
    left = len(lines) - done
    failed = sum(line["status"] == "failed" for line in ended)
    return {
        "total": len(lines),
        "done": done - failed,
        "failed": failed,
        "unknown": 0,
        "kept": 0,
        "in_flight": min(16, left),
        "rate_per_minute": 92.5,
        "seconds_left": left / 92.5 * 60,
        "spent_usd": sum(line["cost_usd"] or 0 for line in ended),
        "recent": list(reversed(ended))[:24],
    }


def _draw(folder: Path, number: int) -> dict[str, Any]:
    ratio = ("1:1", "4:3", "3:4", "16:9")[number % 4]
    content = draw(Sketch(MODELS[0], prompt_of(number), {"aspect_ratio": ratio}, number, "webp"))
    path = folder / f"picture-{number}.webp"
    path.write_bytes(content)
    width, height = {"1:1": (1024, 1024), "4:3": (1152, 896), "3:4": (896, 1152), "16:9": (1344, 768)}[ratio]
    return {
        "path": f"file://{path}",
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "width": width,
        "height": height,
        "format": "webp",
    }
