"""Tables as people have them: read, or refused before anything is paid for, saying what is wrong."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_flux.batch.rows import Table, split_rows
from airflow_provider_flux.emulator import Emulator
from airflow_provider_flux.exceptions import FluxInputError
from tests.batch.task_instance import BatchTaskInstance
from tests.conftest import Connect

TWO = [{"sku": "a", "name": "cup"}, {"sku": "b", "name": "pot"}]


def read(path: Any, options: Any = None, columns: Any = None) -> list[Any]:
    return [dict(row) for row in Table.from_argument(path, options).read(columns)]


def wide(count: int) -> bytes:
    return b"sku;name\n" + b"".join(b"%d;thing %d, large\n" % (number, number) for number in range(count))


READ: list[tuple[str, bytes, dict[str, Any] | None, list[dict[str, Any]]]] = [
    ("t.csv", b"sku,name\na,cup\nb,pot\n", None, TWO),
    ("t.csv", b"sku;name\na;cup\nb;pot\n", None, TWO),
    ("t.csv", b"sku\tname\na\tcup\nb\tpot\n", None, TWO),
    ("t.csv", b"sku|name\na|cup\nb|pot\n", None, TWO),
    ("t.tsv", b"sku\tname\na\tcup\nb\tpot\n", None, TWO),
    ("t.CSV", b"sku,name\na,cup\nb,pot", None, TWO),
    ("t.csv", b"sep=;\nsku;name\na;cup\nb;pot\n", None, TWO),
    ("t.csv", b"\n\nsku,name\na,cup\n\nb,pot\n\n", None, TWO),
    ("t.csv", b" sku , name\na,cup\nb,pot\n", None, TWO),
    ("t.csv", b'\xef\xbb\xbf"sku","name"\r\n"a","cup"\r\n"b","pot"\r\n', None, TWO),
    ("t.csv", b"sku;name\r\na;cup\r\nb;pot\r\n", None, TWO),
    ("t.csv", b"sku^name\na^cup\nb^pot\n", {"delimiter": "^"}, TWO),
    ("t.csv", b"sku\tname\na\tcup\nb\tpot\n", {"delimiter": "\\t"}, TWO),
    ("t.csv", b"sku;price\na;1,50\nb;2,50\n", None, [{"sku": "a", "price": "1,50"}, {"sku": "b", "price": "2,50"}]),
    ("t.csv", b"sku,alts\na,x;y;z\n", None, [{"sku": "a", "alts": "x;y;z"}]),
    ("t.csv", b'sku;name\na;"cup; blue\nand white"\n', None, [{"sku": "a", "name": "cup; blue\nand white"}]),
    ("t.csv", b"sku\na\nb\n", None, [{"sku": "a"}, {"sku": "b"}]),
    ("t.csv", b"sku,name\n", None, []),
    ("t.csv", b",sku\n0,a\n", None, [{"": "0", "sku": "a"}]),
    ("t.csv", "sku,name\na,caf\u00e9\n".encode("cp1252"), {"encoding": "cp1252"}, [{"sku": "a", "name": "caf\u00e9"}]),
    ("t.csv", "sku,name\na,caf\u00e9\n".encode("utf-16"), {"encoding": "utf-16"}, [{"sku": "a", "name": "caf\u00e9"}]),
    ("t.csv", "\ufeffsku,name\na,cup\n".encode(), {"encoding": "UTF8"}, [{"sku": "a", "name": "cup"}]),
    ("t.jsonl", '{"sku": "caf\u00e9"}\n'.encode("latin-1"), {"encoding": "latin-1"}, [{"sku": "caf\u00e9"}]),
    ("t.jsonl", b'\xef\xbb\xbf{"sku": "a"}\r\n{"sku": "b"}\r\n', None, [{"sku": "a"}, {"sku": "b"}]),
    ("t.jsonl", json.dumps(TWO).encode(), None, TWO),
    ("t.jsonl", json.dumps(TWO, indent=2).encode(), None, TWO),
    ("t.json", b"\n" + json.dumps(TWO, indent=2).encode() + b"\n", None, TWO),
    ("t.ndjson", b"".join(json.dumps(row).encode() + b"\n" for row in TWO), None, TWO),
    ("t.jsonl", b"".join(json.dumps(row, indent=1).encode() + b"\n" for row in TWO), None, TWO),
    ("t.jsonl", b"[]", None, []),
    ("t.jsonl", '{"sku": "a\u2028b"}\n'.encode(), None, [{"sku": "a\u2028b"}]),
    ("t.csv", b"", {"allow_empty": True}, []),
    ("t.jsonl", b" \n", {"allow_empty": "true"}, []),
    ("t.parquet", b"", {"allow_empty": True}, []),
]


@pytest.mark.parametrize(("name", "content", "options", "rows"), READ)
def test_a_table_is_read(
    tmp_path: Path, name: str, content: bytes, options: dict[str, Any] | None, rows: list[dict[str, Any]]
) -> None:
    (tmp_path / name).write_bytes(content)

    assert read(str(tmp_path / name), options) == rows


REFUSED: list[tuple[str, bytes, Any, str]] = [
    ("t.csv", b"", None, r'there is nothing in it.*rows_options=\{"allow_empty": True\}'),
    ("t.csv", b"\xef\xbb\xbf\r\n", None, "there is nothing in it"),
    ("t.jsonl", b"", None, "there is nothing in it"),
    ("t.jsonl", b"\n\n", {"allow_empty": False}, "there is nothing in it"),
    ("t.parquet", b"", None, "there is nothing in it"),
    ("t.csv", b"sku,name,name\na,b,c\n", None, "the column name 'name' stands twice, in columns 2 and 3"),
    ("t.csv", b"sku;name; name\na;b;c\n", None, "'name' stands twice"),
    ("t.csv", b"\xef\xbb\xbfsku,sku\na,b\n", None, "'sku' stands twice"),
    ("t.csv", b"sku,,\na,b,c\n", None, "there is no name over columns 2 and 3"),
    ("t.csv", b"sku\tsku\na\tb\n", None, "'sku' stands twice"),
    ("t.jsonl", b'{"sku": "a"}\n{"sku": "b", "sku": "c"}\n', None, "line 2: the name 'sku' stands twice"),
    ("t.jsonl", b'{"sku": "a", "deep": {"x": 1, "x": 2}}\n', None, "line 1: the name 'x' stands twice"),
    ("t.json", b'[\n{"sku": "a", "sku": "b"}]', None, "the name 'sku' stands twice"),
    ("t.csv", b'sku,name\na,"one\ntwo\nthree"\nb\n', None, "line 5 does not have the 2 columns of the header, but 1"),
    ("t.csv", b'sku,name\na,"one\ntwo"\nb,"open\nto the end', None, "line 4: unexpected end of data"),
    ("t.csv", b'sku,name\na,x\nb,"y"z\n', None, "line 3: "),
    ("t.csv", b"sku,name\na,caf\xe9\n", None, r'not in UTF-8 in line 2 .*rows_options=\{"encoding": "cp1252"\}'),
    ("t.csv", b"sku;name\nb;x\na;\x93cup\x94\n", None, "not in UTF-8 in line 3 .*cp1252"),
    ("t.csv", "sku,name\na,b\n".encode("utf-16"), None, r'not in UTF-8.*"encoding": "utf-16"'),
    ("t.csv", "sku,name\na,\u00e9\n".encode("utf-16-le"), None, "utf-16-le"),
    ("t.jsonl", '{"sku": "\u00e9"}\n'.encode("cp1252"), None, "not in UTF-8 in line 1 .*cp1252"),
    ("t.jsonl", '{"sku": "a"}\n'.encode("utf-16"), None, "not in UTF-8.*utf-16"),
    ("t.csv", b"sku,name\na,\xff\n", {"encoding": "ascii"}, "not in ascii"),
    ("t.jsonl", b'[{"sku": "a"},\n{"sku": ', None, "the file as a whole is not either .*in line 2"),
    ("t.jsonl", b'{"sku": "a"\n{"sku": "b"}\n', None, "line 1 is not JSON"),
    ("t.jsonl", b'{"sku": "a"}\n"text"\n', None, "Row 2 of the table is a text"),
    ("t.jsonl", b"null\n", None, "Row 1 of the table is nothing"),
    ("t.jsonl", b"sku,name\na,b\n", None, "line 1 is not JSON"),
    ("t.parquet", b"sku,name\n", None, "cannot be read"),
    ("t.xlsx", b"x", None, "must end in jsonl, csv, parquet"),
    ("missing.csv", b"", None, "No such file"),
    ("t.csv", b"a,b\n", {"delimeter": ";"}, "there is no 'delimeter'.*did you mean delimiter"),
    ("t.csv", b"a,b\n", {"delimiter": ";;"}, "delimiter must be one character"),
    ("t.csv", b"a,b\n", {"delimiter": 1}, "delimiter must be one character"),
    ("t.csv", b"a,b\n", {"encoding": "windows"}, "encoding must be one that Python knows"),
    ("t.csv", b"a,b\n", {"encoding": 1252}, "encoding must be one that Python knows"),
    ("t.csv", b"a,b\n", {"encoding": "base64"}, "encoding must be one that Python knows"),
    ("t.csv", b"a,b\n", {"allow_empty": "perhaps"}, "allow_empty must be True or False"),
    ("t.csv", b"a,b\n", "delimiter=;", "rows_options must be a mapping, not a text"),
]


@pytest.mark.parametrize(("name", "content", "options", "said"), REFUSED)
def test_a_table_that_is_refused_says_why(tmp_path: Path, name: str, content: bytes, options: Any, said: str) -> None:
    if name != "missing.csv":
        (tmp_path / name).write_bytes(content)

    with pytest.raises(FluxInputError, match=said) as caught:
        read(str(tmp_path / name), options)
    assert str(caught.value).endswith("Nothing was sent.")


@pytest.mark.parametrize(
    ("content", "columns", "names"),
    [
        (b"sku;name, colour\na;cup, red\n", {"sku"}, ["sku", "name, colour"]),
        (b"sku,list;of;things\na,1;2;3\n", {"sku"}, ["sku", "list;of;things"]),
        (b"sku|name;en|name;de\na|cup|Tasse\n", {"sku", "name;en"}, ["sku", "name;en", "name;de"]),
        (wide(9000), {"sku"}, ["sku", "name"]),
        (wide(9000), None, ["sku", "name"]),
    ],
)
def test_the_columns_that_are_used_tell_the_delimiter(
    tmp_path: Path, content: bytes, columns: Any, names: list[str]
) -> None:
    (tmp_path / "t.csv").write_bytes(content)

    assert list(read(str(tmp_path / "t.csv"), None, columns)[0]) == names


def test_the_log_says_what_was_found_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "t.csv").write_bytes(b"sku;name\na;cup\n")
    with caplog.at_level(logging.INFO):
        read(str(tmp_path / "t.csv"))
    assert "separated by semicolons" in caplog.text


def test_a_cell_of_a_megabyte_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"sku,name\na,{'x' * 1_000_000}\n")
    assert len(read(str(tmp_path / "t.csv"))[0]["name"]) == 1_000_000


@pytest.fixture
def parquet(tmp_path: Path) -> Any:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def write(columns: dict[str, Any]) -> str:
        path = tmp_path / "t.parquet"
        parquet.write_table(arrow.table(list(columns.values()), names=list(columns)), path)
        return str(path)

    return write


def odd_column() -> Any:
    """Return times that Python's own cannot hold."""
    import pyarrow

    return pyarrow.array([1_700_000_000_000_000_001] * 2, pyarrow.timestamp("ns"))


def test_a_column_that_nobody_uses_does_not_refuse_a_parquet_table(parquet: Any) -> None:
    path = parquet({"sku": ["a", "b"], "name": ["cup", "pot"], "odd": odd_column()})

    assert [row["name"] for row in read(path, None, {"sku", "name"})] == ["cup", "pot"]
    # Nor where it is not known which are used.
    assert [row["name"] for row in read(path)] == ["cup", "pot"]
    assert list(read(path, None, {"sku"})[0]) == ["sku", "name", "odd"]


def test_texts_that_are_stored_as_bytes_are_texts(parquet: Any) -> None:
    assert read(parquet({"sku": [b"a", "\u00e9".encode()]})) == [{"sku": "a"}, {"sku": "\u00e9"}]


def test_columns_of_the_same_name_refuse_a_parquet_table(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(arrow.table([["a"], ["b"]], names=["sku", "sku"]), tmp_path / "t.parquet")
    with pytest.raises(FluxInputError, match="'sku' stands twice"):
        read(str(tmp_path / "t.parquet"))


def test_an_odd_column_that_is_used_is_the_error_of_its_rows(
    emulator: Emulator, connect: Connect, tmp_path: Path, parquet: Any
) -> None:
    connect(emulator.url, gateway="deerapi")
    path = parquet({"sku": ["a", "b"], "odd": odd_column()})
    with pytest.raises(Exception, match="all 2 failed"):
        BatchTaskInstance(tmp_path, rows=path, prompt="{{ row.odd }}").execute()
    assert emulator.posts == 0


LISTS: list[tuple[Any, str]] = [
    (None, "not nothing"),
    (7, "not a number"),
    (b"sku", "not bytes"),
    ("", "rows is empty"),
    ("  ", "rows is empty"),
    ({"sku": "a"}, "a single mapping"),
    ([["a", "b"]], "Row 1 of the table is a list"),
    (["a"], "Row 1 of the table is a text"),
    ([{"sku": "a"}, None], "Row 2 of the table is nothing"),
    (str(TWO), "rows is the text of a list"),
    (json.dumps(TWO), "rows is the text of a list"),
    (timedelta(1), "not an object of type timedelta"),
]


@pytest.mark.parametrize(("rows", "said"), LISTS)
def test_what_is_no_table_is_refused_in_plain_words(rows: Any, said: str) -> None:
    with pytest.raises(FluxInputError, match=said):
        read(rows)


class Frame:
    """Stands for a frame of pandas."""

    def __init__(self, columns: list[str], rows: list[list[Any]]) -> None:
        self.columns = columns
        self._rows = rows

    def to_dict(self, orient: str) -> list[dict[str, Any]]:
        assert orient == "records"
        return [dict(zip(self.columns, row, strict=True)) for row in self._rows]


def test_frames_are_tables() -> None:
    assert read(Frame(["sku", "name"], [["a", "cup"], ["b", "pot"]])) == TWO
    with pytest.raises(FluxInputError, match="'sku' stands twice"):
        read(Frame(["sku", "sku"], [["a", "b"]]))
    arrow = pytest.importorskip("pyarrow")
    assert read(arrow.Table.from_pylist(TWO)) == TWO


def test_paths_may_be_objects(tmp_path: Path) -> None:
    from airflow.sdk import ObjectStoragePath

    (tmp_path / "t.csv").write_bytes(b"sku,name\na,cup\nb,pot\n")
    path = tmp_path / "t.csv"
    for given in (path, ObjectStoragePath(str(path)), ObjectStoragePath(f"file://{path}"), f" {path}\n"):
        assert read(given) == TWO
        assert read(split_rows(given, 1)[0]) == TWO
    assert json.dumps(split_rows(path, 2))


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (b"", None),
        (b"sku,name,name\na,b,c\n", None),
        (b"sku,name\na,caf\xe9\n", None),
        (b'sku,name\na,"one\ntwo"\nb\n', None),
        (b"sku;name\na;b\n", {"delimiter": ","}),
    ],
)
def test_nothing_is_paid_for_a_table_that_is_refused(
    emulator: Emulator, connect: Connect, tmp_path: Path, content: bytes, options: Any
) -> None:
    """a table as people have it"""
    connect(emulator.url, gateway="deerapi")
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(FluxInputError, match="Nothing was sent"):
        BatchTaskInstance(tmp_path, rows=str(tmp_path / "t.csv"), rows_options=options).execute()
    assert emulator.posts == 0
