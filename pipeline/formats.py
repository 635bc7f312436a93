"""Run SQL on a DuckDB connection and write its result as a table, CSV, JSON or Parquet.

Rows stream in batches, so memory does not grow with the result; a table keeps only the rows that it shows.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TextIO, TypeVar

import duckdb
import pyarrow as pa

from hnas.errors import HnasError, UsageError
from pipeline.result_writers import Column, as_text, write_csv, write_json, write_parquet, write_table
from pipeline.table_files import told

FORMATS = ("table", "csv", "json", "parquet")
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
    format: str = "table",  # noqa: A002  (the name of the command line's option)
    output: Path | None = None,
    stdout: TextIO | None = None,
    max_rows: int | None = None,
) -> int:
    """Execute every statement of `sql` and write the last result (`table`: each) to `output` or `stdout`.

    `max_rows` cuts tables, no other format; None means 40 rows on a terminal and all rows elsewhere.
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
        connection.execute("SET python_enable_replacements = false; SET enable_progress_bar = false")

    rows = 0
    with _sink(output, stdout, binary=format == "parquet") if shown else contextlib.nullcontext(stdout) as sink:
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
    format: str,  # noqa: A002
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
    if format == "csv":
        return write_csv(columns, batches, sink)
    if format == "json":
        return write_json(columns, batches, sink)
    return write_table(columns, batches, sink, max_rows)


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
    if re.match(r"Catalog Error: Table with name ", first) and views:
        return UsageError(f"{message}; the views are {', '.join(views)}")
    for detail in details:
        if hint := re.fullmatch(r"(?:Candidate bindings|Did you mean):? *(.+?)\??", detail.strip()):
            return UsageError(f"{message}; did you mean {hint[1]}?")
    return UsageError(message)


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


# Where the result goes


@contextlib.contextmanager
def _sink(output: Path | None, stdout: TextIO, *, binary: bool) -> Iterator[Any]:
    """The open file that a result is written to: bytes for Parquet, text otherwise."""
    if output is not None:
        with _file(output, binary) as file:
            yield file
        return
    if binary and (stdout.isatty() or not hasattr(stdout, "buffer")):
        raise UsageError("Parquet is binary: name a file with --output, or send standard output to one")
    try:
        stdout.flush()
        yield stdout.buffer if binary else stdout
        stdout.flush()
    except BrokenPipeError:
        # `| head` has seen enough.
        _discard_rest(stdout)
    except OSError as error:
        _discard_rest(stdout)
        raise HnasError(f"cannot write to standard output: {error.strerror or error}") from error
    except UnicodeEncodeError as error:
        raise HnasError(
            f"standard output is {error.encoding} and cannot hold {error.object[error.start]!r}: "
            "set PYTHONIOENCODING=utf-8 or use --output"
        ) from error


def _discard_rest(stdout: TextIO) -> None:
    """What stdout still buffers goes nowhere: Python would try to write it at exit, and complain."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stdout.fileno())
        os.close(null)


@contextlib.contextmanager
def _file(output: Path, binary: bool) -> Iterator[Any]:
    """`output`, written aside and renamed when complete; pipes and devices (/dev/null) are written as they are."""
    target = output.resolve()
    if target.is_dir():
        raise UsageError(f"{output} is a folder: --output names a file")
    if not target.parent.is_dir():
        raise UsageError(f"the folder {output.parent} of --output does not exist: make it first")
    device = target.exists() and not target.is_file()
    aside = target if device else target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") if binary else aside.open("w", encoding="utf-8", newline="") as file:
            yield file
        if not device:
            if target.exists():
                shutil.copymode(target, aside)
            aside.replace(target)
    except OSError as error:
        raise HnasError(f"cannot write {output}: {error.strerror or error}") from error
    finally:
        if not device:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
