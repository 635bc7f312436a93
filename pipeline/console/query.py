"""Runs SQL on a DuckDB connection and writes its result as a table, CSV, JSON or Parquet.

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
from hnas.pipeline.catalog.table_files import file_error
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
    """Execute every statement of `sql` and write the last result (for `table`: each result) to `output` or `stdout`.

    `max_rows` limits the rows of each result, except for Parquet; None means 40 rows for tables on a terminal and all
    rows elsewhere. `output` is written atomically: if a query fails, an existing file is unchanged.
    Statements that only change something (CREATE, SET, INSERT without RETURNING) write nothing. If the reader of a pipe
    closes it early, the work ends quietly. Ctrl-C interrupts the query and raises KeyboardInterrupt.

    Returns the number of rows in the written results, including those cut from a table.

    Raises `UsageError` for SQL that does not parse or refers to unknown names, an unknown format, Parquet to a
    terminal, and a folder that does not exist; `HnasError` if execution or writing fails.
    """
    stdout = stdout or sys.stdout
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}; choose from {', '.join(FORMATS)}")
    statements = _parse(connection, sql)
    shown = [number for number, statement in enumerate(statements) if statement.gives_rows]
    if format != "table":
        shown = shown[-1:]
    if output is not None and not shown:
        raise UsageError(f"no statement of the query returns a result to write to {output}")
    # A table name must never resolve to a variable of this program, and a progress bar must not mix with the result
    # (DuckDB enables one if Python runs without a script). In an aborted transaction, settings cannot be changed.
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
    """Return the views and tables that a query can name, sorted; empty if the connection cannot answer.

    Names that begin with an underscore are internal to the catalog, such as the arrays behind `spectra`.
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
    """Write one result batch by batch and return its number of rows."""
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
    """The first `limit` rows of some batches (all if None); `rows` counts every row."""

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
    """Run a statement to its end: a SELECT whose rows are not shown may still fail or draw from a sequence."""
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
            raise UsageError(f"the query has unbound parameters ({names}); write values in their place")
        start = max(sql.find(statement.query, end), end)
        end = start + len(statement.query)
        select = statement.type == duckdb.StatementType.SELECT
        text = _to_its_end(statement.query)
        statements.append(_Statement(text, sql.count("\n", 0, start), select, _gives_rows(statement)))
    return statements


def _to_its_end(query: str) -> str:
    """Return a statement up to its semicolon: a comment behind one is not allowed in a subquery."""
    text = query.encode()
    operators = (place for place, kind in duckdb.tokenize(query) if kind == duckdb.token_type.operator)
    return text[: next((place for place in operators if text[place : place + 1] == b";"), None)].decode()


def _gives_rows(statement: Any) -> bool:
    """Return whether a statement has a result other than the number of changed rows."""
    expected = statement.expected_result_type
    if duckdb.ExpectedResultType.QUERY_RESULT not in expected:
        return False
    if duckdb.ExpectedResultType.NOTHING in expected:
        return bool(statement.type == duckdb.StatementType.MULTI)  # PIVOT; the others are CREATE
    changes = duckdb.ExpectedResultType.CHANGED_ROWS in expected
    return not changes or re.search(r"\breturning\b", statement.query, re.IGNORECASE) is not None


def _failure(connection: duckdb.DuckDBPyConnection, error: Exception, statement: _Statement | None = None) -> HnasError:
    """Convert DuckDB's error to one sentence: its first line, the position, and what would be right.

    Without a `statement`, the error comes from parsing.
    """
    first, *details = str(error).splitlines() or [type(error).__name__]
    if (own := file_error(error)) is not None:
        return own
    message = first.rstrip("!.")
    wrong_sql = isinstance(error, duckdb.ParserException | duckdb.BinderException | duckdb.CatalogException)
    if extension := re.search(r"requires the extension (\w+)|exists in the (\w+) extension", message):
        name = extension[1] or extension[2]
        return HnasError(f"{message}; hnas loads no extensions: begin the query with `INSTALL {name}; LOAD {name};`")
    if statement is not None and not wrong_sql:
        return HnasError(message)
    line = 0
    if statement is not None:
        # connection.sql omits the position; EXPLAIN executes nothing, and its error includes the position.
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
    """Return those of DuckDB's candidates that resemble the name in its message, or all if none does."""
    names = re.findall(r'"([^"]*)"', candidates)
    quoted = re.search(r'"([^"]*)"', message)
    near = closest(quoted[1], [name.rpartition(".")[2] for name in names]) if quoted else []
    return " or ".join(f'"{name}"' for name in near) or candidates


def _place(details: list[str], skipped_lines: int) -> str:
    """Return ` (line L, column C)` from DuckDB's `LINE L: text` with a caret below; empty if there is none."""
    for text, carets in pairwise(details):
        if match := re.match(r"LINE (\d+): (.*)", text):
            place = f"line {int(match[1]) + skipped_lines}"
            # DuckDB cuts long lines and counts tabs and wide characters differently; then only the line is right.
            if match[2].isascii() and "\t" not in text and not match[2].startswith("..."):
                place += f", column {carets.index('^') - match.start(2) + 1}"
            return f" ({place})"
    return ""


def _call(connection: duckdb.DuckDBPyConnection, statement: _Statement, call: Callable[[], T]) -> T:
    """Call into DuckDB, making Ctrl-C interrupt it, and convert its errors.

    DuckDB keeps the thread that waits for rows inside C, where Python cannot handle a signal, so another thread waits.
    """
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(call)
        try:
            return future.result()
        except KeyboardInterrupt:
            # An interrupt before the query has started is lost, so repeat it until the query ends.
            while not future.done():
                connection.interrupt()
                wait([future], timeout=0.05)
            raise
        except (duckdb.Error, OSError, pa.ArrowException) as error:
            raise _failure(connection, error, statement) from error


def _read(connection: duckdb.DuckDBPyConnection, statement: _Statement, reader: Any) -> Iterator[Any]:
    """Yield the record batches of a reader."""
    while (batch := _call(connection, statement, lambda: next(reader, None))) is not None:
        yield batch
