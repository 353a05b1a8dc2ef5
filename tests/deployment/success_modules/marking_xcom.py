"""An XCom backend that marks what has gone through it."""

from __future__ import annotations

from typing import Any

from airflow.sdk.bases.xcom import BaseXCom

MARK = "went through the backend"


class MarkingXCom(BaseXCom):
    @staticmethod
    def serialize_value(value: Any, **names: Any) -> str:
        return BaseXCom.serialize_value({MARK: value}, **names)  # type: ignore[return-value]

    @staticmethod
    def deserialize_value(result: Any) -> Any:
        value = BaseXCom.deserialize_value(result)
        return value.get(MARK, value) if isinstance(value, dict) else value
