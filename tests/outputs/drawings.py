"""Real picture files, small ones."""

from __future__ import annotations

import base64
import io

KINDS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}


def drawn(
    kind: str = "png", width: int = 30, height: int = 20, *, lossless: bool = False, alpha: bool = False
) -> bytes:
    from PIL import Image

    picture = Image.effect_noise((width, height), 80).convert("RGBA" if alpha else "RGB")
    buffer = io.BytesIO()
    picture.save(buffer, KINDS[kind], **({"lossless": lossless} if kind == "webp" else {}))
    return buffer.getvalue()


def data_uri(content: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
