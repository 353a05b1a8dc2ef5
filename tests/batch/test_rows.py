"""Reading a table, and splitting it."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_flux.batch.rows import Table, split_rows
from airflow_provider_flux.exceptions import FluxInputError
from tests.batch.task_instance import table, write_table

ROWS = table(10)


def read(rows: Any) -> list[Any]:
    return [dict(row) for row in Table.from_argument(rows).read()]


def test_a_list_is_read_as_it_is() -> None:
    assert read(ROWS) == ROWS


def test_json_lines_keep_their_types_and_empty_lines_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    path.write_text('{"sku": "a", "seed": 7, "tags": ["x"]}\n\n  \n{"sku": "ü", "seed": null}\n', "utf-8")

    assert read(str(path)) == [{"sku": "a", "seed": 7, "tags": ["x"]}, {"sku": "ü", "seed": None}]
    assert read(f"file://{path}") == read(str(path))


def test_csv_of_a_spreadsheet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes('\ufeffsku,name\r\na,"two\r\nlines, and a comma"\r\nb,ü\r\n'.encode())

    assert read(str(path)) == [{"sku": "a", "name": "two\r\nlines, and a comma"}, {"sku": "b", "name": "ü"}]


def test_parquet_is_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "table.parquet")

    assert read(str(tmp_path / "table.parquet")) == ROWS


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)

    with pytest.raises(FluxInputError, match=r"pip install 'airflow-provider-flux\[parquet\]'"):
        read(str(tmp_path / "table.parquet"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("table.jsonl", '{"sku": "a"}\n{"sku": \n', "line 2 is not JSON"),
        ("table.jsonl", "[1, 2]\n", "Row 1 of the table is a number"),
        ("table.csv", "sku,name\na\n", "line 2 does not have the 2 columns"),
        ("table.csv", "sku,name\na,b,c\n", "line 2 does not have the 2 columns"),
        ("table.csv", 'sku\n"a', "unexpected end of data"),
        ("table.txt", "", "must end in jsonl, csv, parquet"),
    ],
)
def test_a_table_that_cannot_be_read_says_where(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)

    with pytest.raises(FluxInputError, match=said):
        read(str(tmp_path / name))


def test_a_file_is_read_row_by_row(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    path.write_text('{"sku": "a"}\nnot JSON\n')

    rows = Table.from_argument(str(path)).read()

    assert next(rows) == {"sku": "a"}
    with pytest.raises(FluxInputError):
        next(rows)


@pytest.mark.parametrize("parts", [1, 3, 4, 20])
def test_the_parts_of_a_table_hold_each_row_once(tmp_path: Path, parts: int) -> None:
    path = write_table(tmp_path / "table.jsonl", ROWS)
    tables = [Table.from_argument(part) for part in split_rows(path, parts)]

    held = [[index for index, _ in enumerate(part.read()) if part.holds(index)] for part in tables]

    assert sorted(itertools.chain(*held)) == list(range(len(ROWS)))
    assert len({part.suffix for part in tables}) == parts


def test_splitting_reads_nothing_so_that_a_dag_can_be_parsed() -> None:
    assert split_rows("s3://nowhere/{{ ds }}.jsonl", 2) == [
        {"path": "s3://nowhere/{{ ds }}.jsonl", "part": 0, "parts": 2},
        {"path": "s3://nowhere/{{ ds }}.jsonl", "part": 1, "parts": 2},
    ]
    with pytest.raises(ValueError, match="parts must be 1 or more"):
        split_rows("table.jsonl", 0)
