"""The interactive SQL shell of `hnas sql`: statements and dot commands from a terminal or a script."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO, cast

import duckdb
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import PygmentsLexer
from prompt_toolkit.output.defaults import create_output
from pygments.lexers.sql import SqlLexer

from hnas.errors import HnasError, UsageError, did_you_mean
from hnas.pipeline.console.query import run_query, view_names
from hnas.pipeline.console.sinks import Format
from hnas.pipeline.console.writers import TERMINAL_ROWS
from hnas.pipeline.io.printable import printable

PROMPT = "  hnas> "
CONTINUATION = "   ...> "
SHELL_FORMATS = ("table", "csv", "json")
HELP = """\
A statement ends with a semicolon and may take several lines.
.help                      this text
.tables                    the views that a query can name
.schema [VIEW]             their columns and types
.format [table|csv|json]   how results are written
.rows [N|all]              how many rows of a result are shown
.timer on|off              show how long each statement took
.quit                      leave (so does Ctrl-D)
Tab completes; Ctrl-C clears the line or interrupts a running query.
"""
_ALL_ROWS = sys.maxsize
# Maximum number of characters in a statement: more come from a file that is not a script, or that never ends.
_LONGEST_STATEMENT = 2**24
DOT_COMMANDS = (".help", ".tables", ".schema", ".format", ".rows", ".timer", ".quit")

# Complete strings, quoted names, dollar quotes and comments; then an opening mark without its end; then the semicolon.
_TOKEN = re.compile(
    r"""(?P<comment>--[^\n]*|/\*.*?\*/)
    | \b[eE]'(?:\\.|''|[^'\\])*' | '(?:''|[^'])*' | "(?:""|[^"])*" | (?P<tag>\$\w*\$).*?(?P=tag)
    | (?P<open>['"]|\$\w*\$|/\*)
    | (?P<end>;)""",
    re.VERBOSE | re.DOTALL,
)


def run_shell(
    connection: duckdb.DuckDBPyConnection,
    *,
    format: str = "table",  # noqa: A002
    stdin: TextIO,
    stdout: TextIO,
    stderr: TextIO,
) -> None:
    """Read statements and dot commands until the end of `stdin` or `.quit`, and write each result to `stdout`.

    On a terminal, an error is one line on `stderr` and the shell continues. A script (`stdin` is not a terminal) stops
    at its first `HnasError` or `UsageError`, with the line in the script if DuckDB reports one.

    Raises `UsageError` for a format other than table, csv and json: Parquet files cannot be concatenated.
    """
    shell = _Shell(connection, stdout, stderr)
    shell.set_format(format)
    if stdin.isatty():
        shell.talk()
    else:
        shell.follow(stdin)


def split_statements(text: str) -> tuple[list[str], str]:
    """Return the complete statements of `text`, each with its semicolon and leading text, and the unfinished rest."""
    statements, start = [], 0
    for token in _TOKEN.finditer(text):
        if token["open"]:
            break
        if token["end"]:
            statements.append(text[start : token.end()])
            start = token.end()
    return statements, text[start:]


def is_blank(text: str) -> bool:
    """Return whether `text` holds nothing but spaces, comments and semicolons."""
    return not _TOKEN.sub(lambda token: "" if token["comment"] or token["end"] else token[0], text).strip()


class _Shell:
    """The state of a session: output format, row limit, and timer."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, stdout: TextIO, stderr: TextIO) -> None:
        self._connection = connection
        self._stdout = stdout
        self._stderr = stderr
        self._format: Format = "table"
        self._timer = False
        self._rows: int | None = None  # None: the default of `run_query`

    def talk(self) -> None:
        """Run the shell on a terminal until Ctrl-D or `.quit`."""
        completer = SqlCompleter(self._connection)
        if self._stdout.isatty():
            self._rows = TERMINAL_ROWS
        session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=CONTINUATION,
            lexer=PygmentsLexer(SqlLexer),
            history=_history(),
            completer=completer,
            key_bindings=_enter_at_the_end(),
            # If results are redirected to a file, the prompt must not go there.
            output=None if self._stdout.isatty() or not self._stderr.isatty() else create_output(self._stderr),
        )
        while True:
            try:
                text = session.prompt()
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            try:
                if not self._obey(text):
                    return
            except KeyboardInterrupt:
                self._print_line("interrupted")
            except HnasError as error:
                self._print_line(f"error: {' '.join(str(error).split())}")
            completer.forget()

    def follow(self, script: TextIO) -> None:
        """Execute a script line by line until its first error."""
        pending, first_line = "", 0
        for number, line in enumerate(iter(lambda: script.readline(_LONGEST_STATEMENT), "")):
            if not pending:
                if is_blank(line):
                    continue
                first_line = number
                if line.lstrip().startswith("."):
                    if not self._obey(line):
                        return
                    continue
            pending += line
            if len(pending) >= _LONGEST_STATEMENT:
                raise UsageError(
                    f"the statement on line {first_line + 1} of standard input has more than 16 million characters; "
                    "give a script of SQL"
                )
            if ";" in line:
                statements, rest = split_statements(pending)
                for statement in statements:
                    self._execute(statement, first_line)
                    first_line += statement.count("\n")
                pending = "" if is_blank(rest) else rest
        self._execute(pending, first_line)

    def set_format(self, name: str) -> None:
        if name not in SHELL_FORMATS:
            raise UsageError(
                f"the shell cannot write {name!r}; choose from {', '.join(SHELL_FORMATS)}"
                f"{did_you_mean(name, SHELL_FORMATS)}"
            )
        self._format = cast(Format, name)

    def _obey(self, text: str) -> bool:
        """Execute a dot command or SQL; return False to end the shell."""
        if text.lstrip().startswith("."):
            return self._dot(text.split())
        statements, rest = split_statements(text)
        line = 0
        for statement in [*statements, rest]:
            self._execute(statement, line)
            line += statement.count("\n")
        return True

    def _execute(self, statement: str, line: int) -> None:
        """Run one statement whose text begins on `line` (from 0) of the input."""
        if is_blank(statement):
            return
        began = time.perf_counter()
        # Empty lines replace the preceding input, so that an error reports the right line.
        rows = run_query(
            self._connection,
            "\n" * line + statement,
            format=self._format,
            stdout=self._stdout,
            max_rows=self._rows,
        )
        if self._rows is not None and rows > self._rows and self._format != "table":
            self._print_line(f"{rows - self._rows:,} more rows ({rows:,} in all); .rows all shows them")
        if self._timer:
            self._print_line(f"{time.perf_counter() - began:.3f} s")

    def _dot(self, words: list[str]) -> bool:
        match [word.rstrip(";") for word in words]:
            case [".quit" | ".exit"]:
                return False
            case [".help"]:
                self._stdout.write(HELP)
            case [".tables"]:
                self._stdout.writelines(f"{name}\n" for name in view_names(self._connection))
            case [".schema", *name]:
                self._schema(" ".join(name).strip('"'))
            case [".format"]:
                self._stdout.write(f"{self._format}\n")
            case [".format", name]:
                self.set_format(name)
            case [".rows"]:
                self._stdout.write("all\n" if self._rows in (None, _ALL_ROWS) else f"{self._rows}\n")
            case [".rows", "all"]:
                self._rows = _ALL_ROWS
            case [".rows", number] if number.isdecimal() and 0 < int(number) < _ALL_ROWS:
                self._rows = int(number)
            case [".timer", "on" | "off" as state]:
                self._timer = state == "on"
            case _:
                hint = did_you_mean(words[0], DOT_COMMANDS)
                raise UsageError(f"unknown command {' '.join(words)!r}; .help lists the commands{hint}")
        self._stdout.flush()
        return True

    def _schema(self, name: str) -> None:
        """Print the columns of one view, or of every view if `name` is empty."""
        views = list_columns(self._connection)
        if name and name not in views:
            raise UsageError(f"unknown view {name!r}; choose from {', '.join(views)}{did_you_mean(name, views)}")
        for view in [name] if name else views:
            width = max(map(len, (column for column, _ in views[view])))
            self._stdout.write(f"{view}\n")
            self._stdout.writelines(f"  {column.ljust(width)}  {kind}\n" for column, kind in views[view])

    def _print_line(self, line: str) -> None:
        self._stderr.write(f"{printable(line)}\n")
        self._stderr.flush()


def list_columns(connection: duckdb.DuckDBPyConnection) -> dict[str, list[tuple[str, str]]]:
    """Return the columns (name, type) of every view and table, in order."""
    views: dict[str, list[tuple[str, str]]] = {}
    rows = connection.sql(
        "SELECT table_name, column_name, data_type FROM duckdb_columns() "
        "WHERE NOT internal AND NOT starts_with(table_name, '_') ORDER BY table_name, column_index"
    ).fetchall()
    for view, column, kind in rows:
        views.setdefault(view, []).append((column, kind))
    return views


def _history() -> History:
    """Return the history file, `$HNAS_HISTORY` or one under ~/.local/state; in memory if it cannot be written."""
    try:
        named = os.environ.get("HNAS_HISTORY")
        path = Path(named) if named else Path.home() / ".local" / "state" / "hnas" / "sql_history"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a"):
            pass
    except (OSError, RuntimeError):  # RuntimeError: no home directory
        return InMemoryHistory()
    return FileHistory(str(path))


def _enter_at_the_end() -> KeyBindings:
    """Make Enter submit a complete statement, a dot command or empty input, and otherwise begin a new line."""
    bindings = KeyBindings()

    @bindings.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        statements, rest = split_statements(buffer.text)
        if is_blank(buffer.text) or buffer.text.lstrip().startswith(".") or (statements and is_blank(rest)):
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n")

    return bindings


class SqlCompleter(Completer):
    """Completes column and view names, SQL keywords, and dot commands at the start of the input."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._names: tuple[dict[str, list[str]], list[str]] | None = None

    def forget(self) -> None:
        """Forget the names, which a statement may have changed."""
        self._names = None

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        """Yield columns and views before keywords; after `view.`, the columns of that view."""
        before = document.text_before_cursor
        if re.fullmatch(r"\s*\.\w*", before):
            typed = before.strip()
            yield from (Completion(name, -len(typed)) for name in DOT_COMMANDS if name.startswith(typed))
            return
        match = re.search(r"(?:(\w+)\.)?(\w*)$", before)
        view, typed = (match[1], match[2]) if match else (None, "")
        if not typed and not view and not complete_event.completion_requested:
            return
        views, keywords = self._lookup()
        if view is not None:
            names, keywords = views.get(view) or _merged(views), []
        else:
            names = sorted({*views, *_merged(views)})
            if typed.islower():
                keywords = [word.lower() for word in keywords]
        for name in names:
            if name.lower().startswith(typed.lower()):
                yield Completion(_quoted(name), -len(typed), display_meta="view" if name in views else "column")
        for word in keywords:
            if word.lower().startswith(typed.lower()) and word.lower() not in names:
                yield Completion(word, -len(typed))

    def _lookup(self) -> tuple[dict[str, list[str]], list[str]]:
        if self._names is None:
            try:
                views = {
                    view: [name for name, _ in columns] for view, columns in list_columns(self._connection).items()
                }
                rows = self._connection.sql("SELECT upper(keyword_name) FROM duckdb_keywords() ORDER BY 1").fetchall()
                self._names = views, [word for (word,) in rows]
            except duckdb.Error:  # an aborted transaction answers nothing until ROLLBACK
                return {}, []
        return self._names


def _merged(views: dict[str, list[str]]) -> list[str]:
    return sorted({name for columns in views.values() for name in columns})


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) else '"' + name.replace('"', '""') + '"'
