"""Tables in files: JSON Lines and other JSON, CSV, Parquet. Each is read row by row, as far as its form allows."""

from __future__ import annotations

import codecs
import csv
import importlib
import io
import json
import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_provider_flux.exceptions import FluxError, FluxInputError
from airflow_provider_flux.protocol.wording import kind, names, nearest

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

_log = logging.getLogger(__name__)

PARQUET_BATCH = 1000
"""Rows of a Parquet file that are in memory at once."""

SAMPLE = 65536
"""Bytes at a file's beginning that are looked at to find out how it is written."""

LARGEST_CELL = 2**31 - 1
"""Characters; the most that Python's csv takes on every system."""

DELIMITERS: Mapping[str, str] = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""What columns of a CSV file may be separated by without being told, the likeliest first."""

ENCODING = "utf-8-sig"
"""With its BOM, which spreadsheets write."""


@dataclass(frozen=True, slots=True)
class RowsOptions:
    """How a table's file is read.

    :param delimiter: what separates the columns of a CSV file; found out if not given.
    :param encoding: of CSV and JSON; UTF-8 if not given.
    :param allow_empty: whether a file without anything in it is a table without rows, and no error.
    """

    delimiter: str | None = None
    encoding: str | None = None
    allow_empty: bool = False

    @classmethod
    def from_argument(cls, options: Any) -> RowsOptions:
        """Read an operator's ``rows_options``.

        :raises FluxInputError: naming what is wrong.
        """
        if options is None:
            return cls()
        if not isinstance(options, Mapping):
            raise FluxInputError(f"rows_options must be a mapping, not {kind(options)}. Nothing was sent.")
        unknown = [name for name in options if name not in cls.__slots__]
        if unknown:
            raise FluxInputError(
                f"rows_options: there is no {unknown[0]!r}; there are {names(cls.__slots__)}"
                f"{nearest(unknown[0], cls.__slots__)}. Nothing was sent."
            )
        return cls(
            _delimiter(options.get("delimiter")),
            _encoding(options.get("encoding")),
            _flag("allow_empty", options.get("allow_empty")),
        )


def read_table(path: str, options: RowsOptions, columns: Collection[str] | None) -> Iterator[Any]:
    """Yield the rows of a file.

    :param columns: those that are used; all if not given.
    :raises FluxInputError: if it cannot be read, saying where and why.
    :raises FluxError: if the storage has trouble that may pass.
    """
    from airflow.sdk import ObjectStoragePath

    kind_of_file = path.rpartition(".")[2].lower()
    if kind_of_file not in _READERS:
        shown = path if len(path) <= SHOWN_PATH else f"{path[:SHOWN_PATH]}…"
        raise FluxInputError(
            f"The table {shown} cannot be read: its name must end in {', '.join(_READERS)}. Nothing was sent."
        )
    read = _READERS[kind_of_file]
    if read is _read_parquet:
        _import_parquet()
    try:
        place = ObjectStoragePath(path)
        with place.open("rb") as file:
            head = file.read(SAMPLE)
        if not head.strip(b"\xef\xbb\xbf \t\r\n"):
            if options.allow_empty:
                return
            raise ValueError(  # noqa: TRY301
                "there is nothing in it, not even a header. If that is no mistake, give "
                'rows_options={"allow_empty": True}'
            )
        yield from read(place, head, options, columns)
    except FluxError:
        raise
    except UnicodeError as error:
        told = _explain_encoding(error, options.encoding, head)
        raise FluxInputError(f"The table {path} cannot be read: {told}. Nothing was sent.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise FluxInputError(f"The table {path} cannot be read: {error}. Nothing was sent.") from error
    except Exception as error:
        raise FluxError(
            f"The table {path} could not be read: {type(error).__name__}: {error}. Nothing was sent; a retry may help."
        ) from error


SHOWN_PATH = 200
"""Characters of a path that are shown, which may be a whole table by mistake."""


def check_names(found: Sequence[str]) -> None:
    """Refuse columns of the same name.

    :raises ValueError: naming them and their places.
    """
    places: dict[str, int] = {}
    for place, name in enumerate(found, 1):
        if name in places:
            what = f"the column name {name!r} stands twice, in columns" if name else "there is no name over columns"
            raise ValueError(f"{what} {places[name]} and {place}")
        places[name] = place


# JSON


def _read_json(place: ObjectStoragePath, head: bytes, options: RowsOptions, _: object) -> Iterator[Any]:
    del head
    with place.open("rb") as file, io.TextIOWrapper(file, encoding=options.encoding or ENCODING, newline="\n") as lines:
        is_first = True
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = _DECODER.decode(line)
            except json.JSONDecodeError as error:
                if not is_first:
                    raise ValueError(f"line {number} is not JSON ({error})") from error
                yield from _documents(line + lines.read(), number, error)
                return
            except _TwiceError as error:
                raise ValueError(f"line {number}: {error}") from error
            if is_first and isinstance(row, list):
                yield from _documents(line + lines.read(), number, None)
                return
            is_first = False
            yield row


def _documents(text: str, first_line: int, line_error: json.JSONDecodeError | None) -> Iterator[Any]:
    """Read what is not one row a line: an array of rows, or rows that go over several lines."""
    position, text = 0, text.strip()
    found: list[Any] = []
    while position < len(text):
        try:
            document, position = _DECODER.raw_decode(text, position)
        except json.JSONDecodeError as error:
            whole = f"{error.msg} in line {first_line + error.lineno - 1}"
            if line_error is None:
                raise ValueError(f"it begins like a JSON array and breaks off: {whole}") from error
            raise ValueError(
                f"line {first_line} is not JSON ({line_error}), and the file as a whole is not either ({whole})"
            ) from error
        except _TwiceError as error:
            raise ValueError(f"in the JSON from line {first_line} on: {error}") from error
        found.append(document)
        position += len(text[position:]) - len(text[position:].lstrip()) if position < len(text) else 0
    if len(found) == 1 and isinstance(found[0], list):
        _log.info("The table is one JSON array, which is read as a whole")
        found = found[0]
    yield from found


class _TwiceError(ValueError):
    """A JSON object that has a name twice, of which Python's parser would keep the last."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) < len(pairs):
        seen: set[str] = set()
        double = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _TwiceError(f"the name {double!r} stands twice in one object")
    return read


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


# CSV


def _read_csv(
    place: ObjectStoragePath, head: bytes, options: RowsOptions, columns: Collection[str] | None
) -> Iterator[dict[str, str]]:
    # Of this process, like every setting of this module; it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), LARGEST_CELL))
    delimiter = options.delimiter or _sniffed(place, head, options, columns)
    header: list[str] | None = None
    start = 1
    with place.open("rb") as file, io.TextIOWrapper(file, encoding=options.encoding or ENCODING, newline="") as text:
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        try:
            for cells in reader:
                at, start = start, reader.line_num + 1
                if not cells or (header is None and _SEPARATOR_LINE.fullmatch(delimiter.join(cells))):
                    continue
                if header is None:
                    header = [name.strip("\ufeff \t") for name in cells]
                    check_names(header)
                    continue
                if len(cells) != len(header):
                    raise ValueError(
                        f"line {at} does not have the {len(header)} columns of the header, but {len(cells)}"
                    )
                yield dict(zip(header, cells, strict=True))
        except csv.Error as error:
            raise ValueError(f"line {start}: {error}") from error


_SEPARATOR_LINE = re.compile(r"\ufeff?sep=(.)")
"""What tells spreadsheets the delimiter."""


def _sniffed(place: ObjectStoragePath, head: bytes, options: RowsOptions, columns: Collection[str] | None) -> str:
    """Find out what separates the columns: what gives the columns that are used, and each row as many as the header."""
    sample = codecs.getincrementaldecoder(options.encoding or ENCODING)("replace").decode(head)
    told = _SEPARATOR_LINE.match(sample)
    likely = ["\t", *DELIMITERS] if str(place).lower().endswith(".tsv") else list(DELIMITERS)
    found = told[1] if told else max(likely, key=lambda delimiter: _fit(sample, len(head) < SAMPLE, delimiter, columns))
    _log.info("The columns of table %s are taken to be separated by %s", place, DELIMITERS.get(found, repr(found)))
    return found


def _fit(sample: str, is_whole: bool, delimiter: str, columns: Collection[str] | None) -> tuple[int, bool, bool, int]:
    records: list[list[str]] = []
    is_steady = True
    try:
        records.extend(cells for cells in csv.reader(sample.splitlines(keepends=True), delimiter=delimiter) if cells)
    except csv.Error:
        is_steady = False
    # The last record of a sample may be cut.
    counted = records if is_whole or len(records) == 1 else records[:-1]
    header = [name.strip("\ufeff \t") for name in counted[0]] if counted else []
    is_steady = is_steady and len(header) > 1 and all(len(cells) == len(header) for cells in counted)
    count = len(header) if len(header) > 1 else 0
    return len(set(columns or ()) & set(header)), is_steady, delimiter == "," and count > 0, count


# Parquet


def _read_parquet(
    place: ObjectStoragePath, head: bytes, options: RowsOptions, columns: Collection[str] | None
) -> Iterator[dict[str, Any]]:
    del head, options
    parquet = _import_parquet()
    with place.open("rb") as file:
        opened = parquet.ParquetFile(file)
        found = opened.schema_arrow.names
        check_names(found)
        used = found if columns is None else [name for name in found if name in columns]
        for batch in opened.iter_batches(batch_size=PARQUET_BATCH, columns=used):
            cells = {name: _cells(batch.column(name), name) for name in used}
            for place_in_batch in range(batch.num_rows):
                # A column that nobody reads is named all the same, for errors that list what there is.
                yield {name: cells[name][place_in_batch] if name in cells else None for name in found}


def _import_parquet() -> Any:
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise FluxInputError(
            "Reading a Parquet table takes the package pyarrow: pip install 'airflow-provider-flux[parquet]'. "
            "Nothing was sent."
        ) from error


def _cells(column: Any, name: str) -> list[Any]:
    """Convert one column. One that cannot be is an error where it is written, and nowhere else."""
    from airflow_provider_flux.batch.columns import Absent

    try:
        # Older writers do not mark their texts as such.
        return [cell.decode() if isinstance(cell, bytes) else cell for cell in column.to_pylist()]
    except Exception as error:  # noqa: BLE001 (whatever a type of Arrow cannot do)
        hint = f"column {name!r} is of type {column.type}, which cannot be read ({error}); store it as text"
        return [Absent(hint=hint)] * len(column)


_Reader: TypeAlias = Callable[["ObjectStoragePath", bytes, RowsOptions, "Collection[str] | None"], "Iterator[Any]"]
_READERS: Mapping[str, _Reader] = {
    "jsonl": _read_json,
    "csv": _read_csv,
    "parquet": _read_parquet,
    "ndjson": _read_json,
    "json": _read_json,
    "tsv": _read_csv,
}


# Options


def _delimiter(value: Any) -> str | None:
    if value is None or value == "":
        return None
    delimiter = {"\\t": "\t", "tab": "\t"}.get(value, value) if isinstance(value, str) else ""
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise FluxInputError(f"rows_options: delimiter must be one character, not {value!r}. Nothing was sent.")
    return delimiter


def _encoding(value: Any) -> str | None:
    if value is None or value == "":
        return None
    try:
        name = codecs.lookup(value).name
        "".encode(name)
    except (LookupError, TypeError):
        raise FluxInputError(
            f"rows_options: encoding must be one that Python knows, such as cp1252, not {value!r}. Nothing was sent."
        ) from None
    return ENCODING if name == "utf-8" else name


def _flag(name: str, value: Any) -> bool:
    word = str(value).strip().lower()
    if word in ("true", "false", "none", ""):
        return word == "true"
    raise FluxInputError(f"rows_options: {name} must be True or False, not {value!r}. Nothing was sent.")


def _explain_encoding(error: UnicodeError, encoding: str | None, head: bytes) -> str:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        likely = "utf-16"
    else:
        likely = "utf-16-le" if head[1:2] == b"\0" else "cp1252"
    where = ""
    if encoding is None:
        lines = head.split(b"\n")
        wrong = next((number for number, line in enumerate(lines[:-1] or lines, 1) if not _is_utf8(line)), None)
        where = f" in line {wrong}" if wrong is not None else ""
    reason = f" ({error.reason})" if isinstance(error, UnicodeDecodeError) else ""
    return (
        f"it is not in {encoding or 'UTF-8'}{where}{reason}. Name its encoding, such as "
        f'rows_options={{"encoding": "{likely}"}}'
    )


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode(ENCODING)
    except UnicodeError:
        return False
    return True
