"""The rows of a table, one at a time: a list, or a file of any size on any storage that Airflow knows."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from airflow_provider_flux.batch.table_files import RowsOptions, read_table
from airflow_provider_flux.exceptions import FluxInputError
from airflow_provider_flux.protocol.wording import kind
from airflow_provider_flux.tasks.arguments import path_argument

Row: TypeAlias = Mapping[str, Any]

_PART_FIELDS = {"path", "part", "parts"}


@dataclass(frozen=True, slots=True)
class Table:
    """Where the rows come from.

    :param rows: a list of rows, or the path of a file.
    :param part: which part of the table is meant, from 0.
    :param parts: how many parts there are.
    :param options: how a file is read.
    """

    rows: Sequence[Row] | str
    part: int = 0
    parts: int = 1
    options: RowsOptions = field(default_factory=RowsOptions)

    @classmethod
    def from_argument(cls, rows: Any, options: Any = None) -> Table:
        """Read an operator's ``rows``.

        :param options: its ``rows_options``.
        :raises FluxInputError: if it is none of the things it can be.
        """
        read = RowsOptions.from_argument(options)
        if isinstance(rows, Mapping):
            if set(rows) != _PART_FIELDS:
                raise FluxInputError("rows is a single mapping; give a list of rows, also of one. Nothing was sent.")
            return cls(path_argument("rows", rows["path"]), int(rows["part"]), int(rows["parts"]), read)
        if isinstance(rows, str) and rows.lstrip().startswith(("[", "{")):
            raise FluxInputError(
                "rows is the text of a list: a template renders to text. Give the other task's output itself, such as "
                "rows=load.output, or set render_template_as_native_obj=True on the DAG. Nothing was sent."
            )
        if _is_path(rows):
            return cls(path_argument("rows", rows), options=read)
        is_list = isinstance(rows, Sequence) and not isinstance(rows, (bytes, bytearray))
        return cls(rows if is_list else _as_list(rows), options=read)

    @property
    def suffix(self) -> str:
        """What is added to the name of whatever belongs to this part alone; empty for a whole table."""
        return "" if self.parts == 1 else part_suffix(self.part, self.parts)

    def holds(self, index: int) -> bool:
        """Tell whether a row of the table belongs to this part.

        :param index: the row's place in the table, from 0.
        """
        return index % self.parts == self.part

    def read(self, columns: Collection[str] | None = None) -> Iterator[Row]:
        """Yield every row of the whole table, in its order.

        :param columns: those that are used; all if not given. A file may leave the others empty.
        :raises FluxInputError: if it cannot be read, naming the row.
        """
        rows = self.rows if not isinstance(self.rows, str) else read_table(self.rows, self.options, columns)
        for index, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise FluxInputError(
                    f"Row {index + 1} of the table is {kind(row)}, not a mapping of columns to values. "
                    "Nothing was sent."
                )
            yield row


def split_rows(path: str | os.PathLike[str], parts: int) -> list[dict[str, Any]]:
    """Split a file of rows into parts, for as many mapped tasks: ``.expand(rows=split_rows(path, 4))``.

    Reads nothing, so that it can be called where a DAG is parsed. Rows go to the parts in turn.

    :param path: a file as ``rows`` takes it. May be a template.
    :param parts: how many.
    :raises ValueError: if there would be no part.
    """
    if parts < 1:
        raise ValueError(f"parts must be 1 or more, not {parts!r}")
    text = path_argument("path", path) if _is_path(path) and not isinstance(path, str) else path
    return [{"path": text, "part": part, "parts": parts} for part in range(parts)]


def part_suffix(part: int, parts: int) -> str:
    """Return what is added to the name of what belongs to one part of a table."""
    return f".part-{part}-of-{parts}"


def is_table(rows: Any) -> bool:
    """Tell whether something looks like what ``rows`` takes."""
    if isinstance(rows, Mapping):
        return set(rows) == _PART_FIELDS
    is_list = isinstance(rows, Sequence) and not isinstance(rows, (bytes, bytearray))
    return is_list or _is_path(rows) or any(hasattr(rows, name) for name in _FRAMES)


def _is_path(rows: Any) -> bool:
    return isinstance(rows, (str, os.PathLike)) or hasattr(rows, "protocol")


_FRAMES: Mapping[str, tuple[str, ...]] = {"to_dicts": (), "to_pylist": (), "to_dict": ("records",)}
"""How the frames of polars, pyarrow and pandas become lists of rows."""


def _as_list(rows: Any) -> Sequence[Row]:
    if hasattr(rows, "columns"):
        names = [str(name) for name in getattr(rows, "column_names", rows.columns)]
        _check_names(names)
    if rows is None or isinstance(rows, (bytes, bytearray)):
        raise _no_table(rows)
    try:
        for name, arguments in _FRAMES.items():
            if hasattr(rows, name):
                return list(getattr(rows, name)(*arguments))
        return list(rows)
    except TypeError:
        raise _no_table(rows) from None


def _check_names(names: Sequence[str]) -> None:
    from airflow_provider_flux.batch.table_files import check_names

    try:
        check_names(names)
    except ValueError as error:
        raise FluxInputError(f"The table cannot be used: {error}. Nothing was sent.") from error


def _no_table(rows: Any) -> FluxInputError:
    return FluxInputError(
        f"rows must be a list of rows, the path of a table, or a part made by split_rows, not {kind(rows)}. "
        "Nothing was sent."
    )
