"""The rows of a table, one at a time: a list, or a file of any size on any storage that Airflow knows."""

from __future__ import annotations

import csv
import importlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_provider_flux.exceptions import FluxInputError

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

Row: TypeAlias = Mapping[str, Any]

PARQUET_BATCH = 1000
"""Rows of a Parquet file that are in memory at once."""

_PART_FIELDS = {"path", "part", "parts"}


@dataclass(frozen=True, slots=True)
class Table:
    """Where the rows come from.

    :param rows: a list of rows, or the path of a file.
    :param part: which part of the table is meant, from 0.
    :param parts: how many parts there are.
    """

    rows: Sequence[Row] | str
    part: int = 0
    parts: int = 1

    @classmethod
    def from_argument(cls, rows: Any) -> Table:
        """Read an operator's ``rows``.

        :raises FluxInputError: if it is none of the things it can be.
        """
        if isinstance(rows, Mapping) and set(rows) == _PART_FIELDS:
            return cls(str(rows["path"]), int(rows["part"]), int(rows["parts"]))
        if isinstance(rows, Sequence) and not isinstance(rows, (str, bytes)):
            return cls(rows)
        if isinstance(rows, str):
            return cls(rows)
        # A lazy sequence of a mapped task's results, or an ObjectStoragePath.
        return cls(str(rows) if hasattr(rows, "protocol") else _as_list(rows))

    @property
    def suffix(self) -> str:
        """What is added to the name of whatever belongs to this part alone; empty for a whole table."""
        return "" if self.parts == 1 else part_suffix(self.part, self.parts)

    def holds(self, index: int) -> bool:
        """Tell whether a row of the table belongs to this part.

        :param index: the row's place in the table, from 0.
        """
        return index % self.parts == self.part

    def read(self) -> Iterator[Row]:
        """Yield every row of the whole table, in its order.

        :raises FluxInputError: if it cannot be read, naming the row.
        """
        rows = self.rows if not isinstance(self.rows, str) else _read_file(self.rows)
        for index, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise FluxInputError(
                    f"Row {index + 1} of the table is {type(row).__name__}, not a mapping of columns to values. "
                    "Nothing was sent."
                )
            yield row


def split_rows(path: str, parts: int) -> list[dict[str, Any]]:
    """Split a file of rows into parts, for as many mapped tasks: ``.expand(rows=split_rows(path, 4))``.

    Reads nothing, so that it can be called where a DAG is parsed. Rows go to the parts in turn.

    :param path: a ``.jsonl``, ``.csv`` or ``.parquet`` file, anything ``ObjectStoragePath`` takes. May be a template.
    :param parts: how many.
    :raises ValueError: if there would be no part.
    """
    if parts < 1:
        raise ValueError(f"parts must be 1 or more, not {parts!r}")
    return [{"path": path, "part": part, "parts": parts} for part in range(parts)]


def part_suffix(part: int, parts: int) -> str:
    """Return what is added to the name of what belongs to one part of a table."""
    return f".part-{part}-of-{parts}"


def _as_list(rows: Any) -> list[Row]:
    try:
        return list(rows)
    except TypeError:
        raise FluxInputError(
            f"rows must be a list of rows, the path of a table, or a part made by split_rows, not "
            f"{type(rows).__name__}. Nothing was sent."
        ) from None


def _read_file(path: str) -> Iterator[Row]:
    from airflow.sdk import ObjectStoragePath

    kind = path.rpartition(".")[2].lower()
    if kind not in _READERS:
        raise FluxInputError(
            f"The table {path} is none that can be read: its name must end in {', '.join(_READERS)}. Nothing was sent."
        )
    try:
        yield from _READERS[kind](ObjectStoragePath(path))
    except (OSError, ValueError) as error:
        raise FluxInputError(f"The table {path} cannot be read: {error}. Nothing was sent.") from error


def _read_jsonl(path: ObjectStoragePath) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise ValueError(f"line {number} is not JSON ({error})") from error


def _read_csv(path: ObjectStoragePath) -> Iterator[Row]:
    # With its BOM, which spreadsheets write.
    with path.open("rb") as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        reader = csv.DictReader(text, strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(f"line {reader.line_num} does not have the {len(reader.fieldnames or ())} columns")
                yield row
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error}") from error


def _read_parquet(path: ObjectStoragePath) -> Iterator[Row]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise FluxInputError(
            "Reading a Parquet table takes the package pyarrow: pip install 'airflow-provider-flux[parquet]'. "
            "Nothing was sent."
        ) from error
    with path.open("rb") as file:
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=PARQUET_BATCH):
            yield from batch.to_pylist()


_READERS = {"jsonl": _read_jsonl, "csv": _read_csv, "parquet": _read_parquet}
