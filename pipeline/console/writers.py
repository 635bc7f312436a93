"""Writes rows as a table, CSV, JSON or Parquet.

DuckDB converts every value to text, column by column, in the query itself (`as_text`): it knows all its types (infinite
timestamps, 128-bit integers, time zones), and its floats round-trip. Python only quotes and aligns. `COPY … TO` is no
alternative: it works for queries, but not for INSERT … RETURNING or PRAGMA; its Parquet rounds 128-bit integers,
including every sum of integers, to doubles; and its CSV has blank lines for NULL and lists that no parser reads.

Non-finite numbers are `inf`, `-inf`, `nan` in tables and CSV. JSON has no such numbers, so they become the strings
"inf", "-inf", "nan", also inside lists and structs. CSV holds lists and structs as JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import IO, Any, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.parquet as pq
from rich.cells import cell_len
from rich.console import Console

from hnas.errors import UsageError
from hnas.pipeline.io.printable import printable
from hnas.pipeline.io.terminal_tables import LEAST_TEXT, cut, fitted, hidden_columns, terminal_width

TERMINAL_ROWS = 40

_INTEGERS = {f"{sign}{size}int" for sign in ("", "u") for size in ("tiny", "small", "big", "huge")}
_EXACT = {*_INTEGERS, "integer", "uinteger", "bignum", "decimal"}
_NESTED = {"list", "array", "struct", "map", "union", "variant"}
_TIMES = {"timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns", "timestamp with time zone"}
# Arrow representations of these types lose their meaning, or Parquet cannot store them.
_NOT_IN_PARQUET = {"interval", "union", "variant", "bit", "uhugeint", "bignum", "time with time zone"}

Batch = list[list[str | None]]


class Column(NamedTuple):
    """A result column: its name and kind of text, one of exact (a number), float, boolean, nested and text."""

    name: str
    kind: str

    @classmethod
    def of(cls, name: str, duckdb_type: Any) -> Column:
        """Return the column for a DuckDB type."""
        type_name = duckdb_type.id
        if type_name in _NESTED or str(duckdb_type) == "JSON":
            return cls(name, "nested")
        if type_name in _EXACT:
            return cls(name, "exact")
        return cls(name, {"float": "float", "double": "float", "boolean": "boolean"}.get(type_name, "text"))


def as_text(position: int, duckdb_type: Any, *, iso_times: bool) -> str:
    """Return the SQL expression of column `position` (from 1) as text; NULL stays NULL.

    `iso_times` writes timestamps in ISO 8601, with a `T` and minutes in the offset.
    """
    value = f"#{position}"
    text = f"CAST({value} AS VARCHAR)"
    kind = Column.of("", duckdb_type).kind
    if kind == "float":
        return f"CASE WHEN isnan({value}) THEN 'nan' ELSE {text} END"  # otherwise a negative NaN becomes '-nan'
    if kind == "nested":
        return f"CAST(to_json({value}) AS VARCHAR)"
    if iso_times and duckdb_type.id in _TIMES:
        text = f"replace({text}, ' ', 'T')"
        if duckdb_type.id.endswith("zone"):
            text = rf"regexp_replace({text}, '([+-]\d\d)$', '\1:00')"
    return text


_JSON_STRING_OR_NON_FINITE = re.compile(r'"(?:[^"\\]|\\.)*"|-?\b(?:Infinity|inf|nan)\b', re.IGNORECASE | re.DOTALL)


def _valid_json(text: str) -> str:
    """Turn the bare Infinity and NaN in DuckDB's JSON into strings, as elsewhere in this module."""

    def quoted(match: re.Match[str]) -> str:
        token = match[0]
        if token.startswith('"'):
            return token
        return '"nan"' if "nan" in token.lower() else '"-inf"' if token.startswith("-") else '"inf"'

    return _JSON_STRING_OR_NON_FINITE.sub(quoted, text)


def write_csv(columns: list[Column], batches: Iterable[Batch], sink: TextIO) -> int:
    """Write CSV with RFC 4180 quoting and bare newlines; NULL is empty, an empty string is `""`."""

    def field(text: str | None) -> str:
        if text is None:
            return null
        if text == "" or any(mark in text for mark in ',"\r\n'):
            return '"' + text.replace('"', '""') + '"'
        return text

    # Most readers do not count a blank line as a row.
    null = '""' if len(columns) == 1 else ""
    sink.write(",".join(field(column.name) for column in columns) + "\n")
    rows = 0
    for batch in batches:
        texts = [
            [None if text is None else _valid_json(text) for text in values] if column.kind == "nested" else values
            for column, values in zip(columns, batch, strict=True)
        ]
        sink.writelines(",".join(map(field, row)) + "\n" for row in zip(*texts, strict=True))
        rows += len(batch[0])
    return rows


def write_json(columns: list[Column], batches: Iterable[Batch], sink: TextIO) -> int:
    """Write one array with one object per line; repeated names get a suffix (`a_1`)."""

    def value(kind: str, text: str | None) -> str:
        if text is None:
            return "null"
        if kind == "nested":
            return _valid_json(text)
        if kind in ("exact", "boolean") or (kind == "float" and text not in ("inf", "-inf", "nan")):
            return text
        return json.dumps(text, ensure_ascii=False)

    keys = [json.dumps(name, ensure_ascii=False) + ": " for name in _unique([column.name for column in columns])]
    rows = 0
    for batch in batches:
        members = [
            [key + value(column.kind, text) for text in values]
            for key, column, values in zip(keys, columns, batch, strict=True)
        ]
        for row in zip(*members, strict=True):
            sink.write(("[" if rows == 0 else ",\n ") + "{" + ", ".join(row) + "}")
            rows += 1
    sink.write("]\n" if rows else "[]\n")
    return rows


def write_parquet(
    columns: list[tuple[str, Any]], schema: pa.Schema, batches: Iterable[pa.RecordBatch], sink: IO[bytes]
) -> int:
    """Write one row group per batch with unchanged types; `columns` lists names and DuckDB types.

    Raises `UsageError` for a type that Parquet cannot hold.
    """
    for name, duckdb_type in columns:
        if duckdb_type.id in _NOT_IN_PARQUET:
            raise _no_parquet_type(name, str(duckdb_type))
    schema = pa.schema(
        [field.with_name(name) for field, name in zip(schema, _unique([name for name, _ in columns]), strict=True)]
    )
    try:
        writer = pq.ParquetWriter(sink, schema)
    except pa.ArrowNotImplementedError as error:
        raise UsageError(f"Parquet cannot hold this result: {str(error).splitlines()[0]}") from error
    rows = 0
    with writer:
        for batch in batches:
            writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
            rows += batch.num_rows
    return rows


def _no_parquet_type(name: str, duckdb_type: str) -> UsageError:
    return UsageError(f'Parquet has no type for column "{name}" ({duckdb_type}); cast it, for example to VARCHAR')


def _unique(names: list[str]) -> list[str]:
    """Return the names, with suffixes for repeated ones: a, a_1, a_2."""
    unique: list[str] = []
    for name in names:
        candidate, again = name, 0
        while candidate in unique:
            again += 1
            candidate = f"{name}_{again}"
        unique.append(candidate)
    return unique


def write_table(columns: list[Column], batches: Iterable[Batch], sink: TextIO, max_rows: int | None) -> int:
    """Write aligned columns, numbers right-aligned, floats with six significant digits.

    A terminal gets colours, 40 rows unless `max_rows` is given, and text columns cut to fit its width. Anything else
    gets complete cells and, without `max_rows`, all rows.
    """
    terminal = Console(file=sink) if sink.isatty() else None
    if max_rows is None and terminal is not None:
        max_rows = TERMINAL_ROWS
    shown: list[tuple[str | None, ...]] = []
    rows = 0
    for batch in batches:
        room = len(batch[0]) if max_rows is None else max(0, max_rows - len(shown))
        texts = [
            [_cell(column.kind, text) for text in values[:room]] for column, values in zip(columns, batch, strict=True)
        ]
        shown.extend(zip(*texts, strict=True))
        rows += len(batch[0])

    names = tuple(printable(column.name, lines=True).replace("\n", " ") for column in columns)
    widths = [max(map(_width, cells)) for cells in zip(names, *shown, strict=True)]
    if terminal is not None:
        # Numbers are never cut, but their headers are.
        numbers = [max(map(_width, cells), default=0) for cells in zip(*shown, strict=True)] or [0] * len(widths)
        least = [
            min(wide, max(LEAST_TEXT, 0 if column.kind in ("text", "nested") else number))
            for column, wide, number in zip(columns, widths, numbers, strict=True)
        ]
        widths = fitted(widths, least, terminal_width(sink))
    colours = terminal is not None and terminal.color_system is not None and not terminal.no_color
    unicode = _can_encode("─…", sink)

    def lines(row: tuple[str | None, ...], style: str = "") -> Iterator[str]:
        """Yield the lines of a row: several if a text has line breaks (EXPLAIN draws its plan that way)."""
        for parts in zip_longest(*(("NULL" if cell is None else cell).split("\n") for cell in row), fillvalue=""):
            padded = []
            for column, cell, part, width in zip(columns, row, parts, widths, strict=False):
                part = cut(part, width, mark="…" if unicode else "~")
                space = " " * (width - cell_len(part))
                part = space + part if column.kind in ("exact", "float") else part + space
                mark = "\x1b[2m" if cell is None else style
                padded.append(f"{mark}{part}\x1b[0m" if colours and mark else part)
            yield "  ".join(padded).rstrip() + "\n"

    sink.writelines(lines(names, "\x1b[1m"))
    sink.write("  ".join(("─" if unicode else "-") * width for width in widths) + "\n")
    for row in shown:
        sink.writelines(lines(row))
    if more := rows - len(shown):
        sink.write(f"{'…' if unicode else '...'} {more:,} more {'row' if more == 1 else 'rows'} ({rows:,} in all)\n")
    if terminal is not None and len(widths) < len(columns):
        hint = hidden_columns(len(widths), names, "--format csv has all")
        sink.write(cut(hint if unicode else hint.replace("…", "..."), terminal_width(sink) or len(hint)) + "\n")
    return rows


def _cell(kind: str, text: str | None) -> str | None:
    if text is None or kind in ("exact", "boolean"):
        return text
    if kind == "float":
        return f"{float(text):.6g}"
    return printable(_valid_json(text) if kind == "nested" else text, lines=True)


def _width(cell: str | None) -> int:
    return 4 if cell is None else max(map(cell_len, cell.split("\n"))) if "\n" in cell else cell_len(cell)


def _can_encode(text: str, sink: TextIO) -> bool:
    try:
        text.encode(sink.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
