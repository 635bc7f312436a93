"""The views and macros of a connection, each created when a statement first uses it.

DuckDB binds a view when it is created, and binding all views takes four times as long as opening a connection. Most
statements use one or two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import duckdb

from hnas.pipeline.catalog.table_files import Check

T = TypeVar("T")

_CREATES = re.compile(r"^CREATE (?:TABLE|VIEW|MACRO) ([\w.]+)", re.MULTILINE)
# The parts of a definition that contain no names: string literals, such as file paths, and comments.
_NO_NAMES = re.compile(r"'(?:[^']|'')*'|--[^\n]*")
# A statement that names everything it reads and changes no name, except the tables of pools, which have unique names.
_PLAIN = re.compile(
    r"(?:\s*--[^\n]*\n)*[\s(]*"
    r"(?:(?:select|from|with|values)\b"
    r"|(?:create\s(?:or\sreplace\s)?temp|drop)\stable\s(?:run_pool|signal|pool_rows|candidates)_\d"
    r"|set\s(?:python_enable_replacements|enable_progress_bar)\b)",
    re.IGNORECASE,
)
# Statements that list tables and functions, or refer to them by a string.
_LISTS = re.compile(
    r";\s*\S|\b(?:query(?:_table)?\s*\(|(?:show|describe|summarize|information_schema)\b|(?:pragma|duckdb|pg|sqlite)_)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Definition:
    """A table, view or macro `name`, created by `create` after those earlier definitions that it `needs`."""

    name: str
    needs: frozenset[str]
    create: Callable[[], object]


def statements(text: str) -> Iterator[tuple[str, str]]:
    """Yield the CREATE statements in SQL text, each with the name of what it creates."""
    starts = [*_CREATES.finditer(text)]
    ends = [match.start() for match in starts[1:]] + [len(text)]
    for match, end in zip(starts, ends, strict=True):
        yield match[1], text[match.start() : end]


def names_in(text: str) -> frozenset[str]:
    """Return the words of a definition that may be names, in lower case."""
    return _words(_NO_NAMES.sub(" ", text))


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


class LazyConnection:
    """A DuckDB connection that creates what a statement uses before executing it.

    `definitions` are ordered so that each comes after those it needs. A statement that may see or change everything,
    such as SHOW TABLES or BEGIN, first creates all of them. So does a statement that fails for an unknown name; it is
    then retried, so that DuckDB's message includes its suggestions. Everything except `execute` and `sql` is DuckDB's
    own.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, definitions: list[Definition], checks: list[Check]
    ) -> None:
        self._connection, self._checks = connection, checks
        self._definitions = definitions
        self._left = set(range(len(definitions)))

    def execute(self, query: Any, parameters: object = None) -> duckdb.DuckDBPyConnection:
        """See `duckdb.DuckDBPyConnection.execute`."""
        return self._call(self._connection.execute, query, parameters)

    def sql(self, query: Any, **options: Any) -> duckdb.DuckDBPyRelation:
        """See `duckdb.DuckDBPyConnection.sql`."""
        return self._call(partial(self._connection.sql, **options), query)

    def __getattr__(self, name: str) -> Any:
        if name not in _WITHOUT_NAMES and not name.startswith("fetch"):
            self.make_all()
        return getattr(self._connection, name)

    def _call(self, function: Callable[..., T], query: Any, *parameters: object) -> T:
        if isinstance(query, str) and _PLAIN.match(query) and not _LISTS.search(query):
            self._make(_words(query))
        else:
            self.make_all()
        try:
            return function(query, *parameters)
        except (duckdb.CatalogException, duckdb.BinderException):
            if not self._left:
                raise
            self.make_all()
            return function(query, *parameters)

    def make_all(self) -> None:
        """Create everything not created yet. Raises `HnasError` as `hnas.pipeline.catalog.views.connect` does."""
        self._make(frozenset(_last(definition.name) for definition in self._definitions))

    def _make(self, names: frozenset[str]) -> None:
        if not self._left or not (positions := self._positions_of(names)):
            return
        for check in self._checks:  # only the statement itself reads files
            check.armed = False
        try:
            for position in positions:
                self._definitions[position].create()
                self._left.discard(position)
        except duckdb.Error:
            for check in self._checks:  # a file whose columns have other types than the views expect
                check.verify()
            raise
        finally:
            for check in self._checks:
                check.armed = True

    def _positions_of(self, names: frozenset[str]) -> list[int]:
        """Return the definitions of these names that are not created yet, and those that they need, in order."""
        needed = set(names)
        positions = []
        for position in sorted(self._left, reverse=True):
            definition = self._definitions[position]
            if _last(definition.name) in needed:
                needed |= definition.needs
                positions.append(position)
        return positions[::-1]


def _last(name: str) -> str:
    return name.rpartition(".")[2]


# Attributes that neither name a view nor change the meaning of names.
_WITHOUT_NAMES = frozenset(("close", "description", "extract_statements", "interrupt", "register_filesystem"))
