"""Run SQL on a DuckDB connection and write its result as a table, CSV, JSON or Parquet.

Rows stream in batches, so memory does not grow with the result; a table keeps only the rows that it shows.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TextIO, TypeVar, get_args

import duckdb
import pyarrow as pa

from hnas.errors import HnasError, UsageError, closest, did_you_mean
from hnas.pipeline.catalog.table_files import told
from hnas.pipeline.console.sinks import Format, open_sink
from hnas.pipeline.console.writers import Batch, Column, as_text, write_csv, write_json, write_parquet, write_table

FORMATS = get_args(Format)
_BATCH_ROWS = 10_000
_ROW_GROUP_ROWS = 122_880

T = TypeVar("T")


class _Statement(NamedTuple):
    text: str
    line: int  # of its first character in the script, from 0
    select: bool
    gives_rows: bool


def run_query(
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    *,
    format: Format = "table",  # noqa: A002  (the name of the command line's option)
    output: Path | None = None,
    stdout: TextIO | None = None,
    max_rows: int | None = None,
) -> int:
    """Execute every statement of `sql` and write the last result (`table`: each) to `output` or `stdout`.

    `max_rows` cuts the results, but for Parquet; None means tables of 40 rows on a terminal and all rows elsewhere.
    `output` appears whole or not at all: a query that fails leaves an existing file as it was.
    Statements that only change something (CREATE, SET, INSERT without RETURNING) write nothing. A reader that closes
    the pipe early ends the work quietly. Ctrl-C interrupts the query and raises KeyboardInterrupt.

    Returns the number of rows in the results that were written, those cut from a table included.

    Raises `UsageError` where the SQL does not parse or names what is not there, for an unknown format, for Parquet to
    a terminal and for a folder that does not exist; `HnasError` where execution or writing fails.
    """
    stdout = stdout or sys.stdout
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}: the formats are {', '.join(FORMATS)}")
    statements = _parse(connection, sql)
    shown = [number for number, statement in enumerate(statements) if statement.gives_rows]
    if format != "table":
        shown = shown[-1:]
    if output is not None and not shown:
        raise UsageError(f"no statement of the query gives a result to write to {output}")
    # A table name must never resolve to a variable of this program, nor a progress bar mix with the result on standard
    # output (DuckDB turns one on where Python runs without a script). In an aborted transaction nothing can be set.
    with contextlib.suppress(duckdb.Error):
        connection.execute("SET python_enable_replacements = false")
        connection.execute("SET enable_progress_bar = false")

    rows = 0
    with open_sink(output, stdout, format) if shown else contextlib.nullcontext(stdout) as sink:
        for number, statement in enumerate(statements):
            relation = _call(connection, statement, partial(connection.sql, statement.text))
            if number not in shown or (relation.columns == ["Success"] and not statement.select):
                _call(connection, statement, partial(_exhaust, relation))
                continue
            if format == "table" and number != shown[0]:
                sink.write("\n")
            rows += _write(connection, statement, relation, format, sink, max_rows)
    return rows


def view_names(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """The views and tables that a query can name, sorted; empty where the connection cannot answer.

    Names with an underscore in front are the catalog's own, such as the arrays behind `spectra`.
    """
    with contextlib.suppress(duckdb.Error):
        return [name for (name,) in connection.sql("SHOW TABLES").fetchall() if not name.startswith("_")]
    return []


def _write(
    connection: duckdb.DuckDBPyConnection,
    statement: _Statement,
    relation: duckdb.DuckDBPyRelation,
    format: Format,  # noqa: A002
    sink: Any,
    max_rows: int | None,
) -> int:
    """Write one result, batch by batch; returns its number of rows."""
    types = list(zip(relation.columns, relation.types, strict=True))
    if format == "parquet":
        reader = _call(connection, statement, partial(relation.to_arrow_reader, _ROW_GROUP_ROWS))
        return write_parquet(types, reader.schema, _read(connection, statement, reader), sink)
    texts = ", ".join(as_text(i, kind, iso_times=format == "json") for i, (_, kind) in enumerate(types, start=1))
    reader = _call(connection, statement, lambda: relation.project(texts).to_arrow_reader(_BATCH_ROWS))
    batches = ([column.to_pylist() for column in batch.columns] for batch in _read(connection, statement, reader))
    columns = [Column.of(name, kind) for name, kind in types]
    if format == "table":
        return write_table(columns, batches, sink, max_rows)
    shown = _First(batches, max_rows)
    (write_csv if format == "csv" else write_json)(columns, shown, sink)
    return shown.rows


class _First:
    """The first `limit` rows of some batches, all where it is None; `rows` counts every row that there was."""

    def __init__(self, batches: Iterator[Batch], limit: int | None) -> None:
        self._batches, self._limit = batches, limit
        self.rows = 0

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            room = None if self._limit is None else max(0, self._limit - self.rows)
            self.rows += len(batch[0])
            if room != 0:
                yield [values[:room] for values in batch]


def _exhaust(relation: duckdb.DuckDBPyRelation) -> None:
    """Run a statement to its end: a SELECT whose rows nobody sees may still fail or draw from a sequence."""
    for _ in relation.to_arrow_reader(_BATCH_ROWS):
        pass


# Statements and errors


def _parse(connection: duckdb.DuckDBPyConnection, sql: str) -> list[_Statement]:
    try:
        parsed = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise _failure(connection, error) from error
    if not parsed:
        raise UsageError("the query is empty")
    statements, end = [], 0
    for statement in parsed:
        if statement.named_parameters and statement.type != duckdb.StatementType.PREPARE:
            names = ", ".join(f"${name}" for name in sorted(statement.named_parameters))
            raise UsageError(f"the query leaves parameters open ({names}): write their values in their place")
        start = max(sql.find(statement.query, end), end)
        end = start + len(statement.query)
        select = statement.type == duckdb.StatementType.SELECT
        statements.append(_Statement(statement.query, sql.count("\n", 0, start), select, _gives_rows(statement)))
    return statements


def _gives_rows(statement: Any) -> bool:
    """Whether a statement has a result beyond the count of rows that it changed."""
    expected = statement.expected_result_type
    if duckdb.ExpectedResultType.QUERY_RESULT not in expected:
        return False
    if duckdb.ExpectedResultType.NOTHING in expected:
        return bool(statement.type == duckdb.StatementType.MULTI)  # PIVOT; the others are CREATE
    changes = duckdb.ExpectedResultType.CHANGED_ROWS in expected
    return not changes or re.search(r"\breturning\b", statement.query, re.IGNORECASE) is not None


def _failure(connection: duckdb.DuckDBPyConnection, error: Exception, statement: _Statement | None = None) -> HnasError:
    """DuckDB's error as one sentence: its first line, the place, and what would be right.

    Without a `statement` it comes from parsing.
    """
    first, *details = str(error).splitlines() or [type(error).__name__]
    if (own := told(error)) is not None:
        return own
    message = first.rstrip("!.")
    wrong_sql = isinstance(error, duckdb.ParserException | duckdb.BinderException | duckdb.CatalogException)
    if extension := re.search(r"requires the extension (\w+)|exists in the (\w+) extension", message):
        name = extension[1] or extension[2]
        return HnasError(f"{message}; hnas loads none on its own, begin the query with `INSTALL {name}; LOAD {name};`")
    if statement is not None and not wrong_sql:
        return HnasError(message)
    line = 0
    if statement is not None:
        # connection.sql leaves the place out; EXPLAIN executes nothing, and its error has it.
        line = statement.line - 1
        try:
            connection.execute(f"EXPLAIN\n{statement.text}")
        except duckdb.Error as again:
            explained, *located = str(again).splitlines()
            details = located if explained == first else details
    message += _place(details, line)
    views = view_names(connection)
    if (table := re.match(r"Catalog Error: Table with name (\S+) does not exist", first)) and views:
        return UsageError(f"{message}; the views are {', '.join(views)}{did_you_mean(table[1], views)}")
    for detail in details:
        if hint := re.fullmatch(r"(?:Candidate bindings|Did you mean):? *(.+?)\??", detail.strip()):
            return UsageError(f"{message}; did you mean {_nearest(first, hint[1])}?")
    return UsageError(message)


def _nearest(message: str, candidates: str) -> str:
    """Those of DuckDB's candidates that are near the name in its message; all of them where none is."""
    known = re.findall(r'"([^"]*)"', candidates)
    quoted = re.search(r'"([^"]*)"', message)
    near = closest(quoted[1], [name.rpartition(".")[2] for name in known]) if quoted else []
    return " or ".join(f'"{name}"' for name in near) or candidates


def _place(details: list[str], skipped_lines: int) -> str:
    """` (line L, column C)` out of DuckDB's `LINE L: text` with carets below; empty where there is none."""
    for text, carets in pairwise(details):
        if match := re.match(r"LINE (\d+): (.*)", text):
            place = f"line {int(match[1]) + skipped_lines}"
            # DuckDB cuts long lines and counts tabs and wide characters its own way: then the line alone is right.
            if match[2].isascii() and "\t" not in text and not match[2].startswith("..."):
                place += f", column {carets.index('^') - match.start(2) + 1}"
            return f" ({place})"
    return ""


def _call(connection: duckdb.DuckDBPyConnection, statement: _Statement, call: Callable[[], T]) -> T:
    """Call into DuckDB so that Ctrl-C interrupts it, and with its errors as ours.

    DuckDB keeps the thread that waits for rows inside C, where Python cannot handle a signal: another thread waits.
    """
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(call)
        try:
            return future.result()
        except KeyboardInterrupt:
            # An interrupt before the query has begun is lost, so it is repeated until the query ends.
            while not future.done():
                connection.interrupt()
                wait([future], timeout=0.05)
            raise
        except (duckdb.Error, OSError, pa.ArrowException) as error:
            raise _failure(connection, error, statement) from error


def _read(connection: duckdb.DuckDBPyConnection, statement: _Statement, reader: Any) -> Iterator[Any]:
    """The record batches of a reader."""
    while (batch := _call(connection, statement, lambda: next(reader, None))) is not None:
        yield batch
