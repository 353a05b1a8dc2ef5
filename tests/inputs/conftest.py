"""Pictures that a pipeline has, in every storage and of every kind."""

from __future__ import annotations

from tests.outputs.conftest import s3, s3_server

__all__ = ["s3", "s3_server"]
