"""The views and macros of a connection, each made when a statement first names it.

DuckDB binds a view when it is made, and all views together take four times as long to bind as a connection to open.
Most statements name one or two.
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
# What is no name in a definition: texts, such as paths of files, and comments.
_NO_NAMES = re.compile(r"'(?:[^']|'')*'|--[^\n]*")
# A statement that names all that it reads and changes no name, but for the tables of pools, which have their own.
_PLAIN = re.compile(
    r"(?:\s*--[^\n]*\n)*[\s(]*"
    r"(?:(?:select|from|with|values)\b"
    r"|(?:create\s(?:or\sreplace\s)?temp|drop)\stable\s(?:run_pool|signal|pool_rows|candidates)_\d"
    r"|set\s(?:python_enable_replacements|enable_progress_bar)\b)",
    re.IGNORECASE,
)
# What lists tables and functions, or names them by a text.
_LISTS = re.compile(
    r";\s*\S|\b(?:query(?:_table)?\s*\(|(?:show|describe|summarize|information_schema)\b|(?:pragma|duckdb|pg|sqlite)_)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Definition:
    """A table, view or macro `name`: what `create` makes, once those of the `needs` that stand before it are made."""

    name: str
    needs: frozenset[str]
    create: Callable[[], object]


def statements(text: str) -> Iterator[tuple[str, str]]:
    """The CREATE statements in a text of SQL, each with the name of what it creates."""
    starts = [*_CREATES.finditer(text)]
    ends = [found.start() for found in starts[1:]] + [len(text)]
    for found, end in zip(starts, ends, strict=True):
        yield found[1], text[found.start() : end]


def names_in(text: str) -> frozenset[str]:
    """The words of a definition that may be names, in lower case."""
    return _words(_NO_NAMES.sub(" ", text))


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


class LazyConnection:
    """A DuckDB connection that makes what a statement names before it executes it: `definitions`, in an order in which
    each stands behind those it needs.

    A statement that may see or change all there is, such as SHOW TABLES or BEGIN, makes all of it first. So does one
    that fails for a name that is not there, and is tried again: DuckDB's message then has its suggestions. Everything
    but `execute` and `sql` is DuckDB's own.
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
        """Make all that is not made yet. Raises `HnasError` as `hnas.pipeline.catalog.views.connect` says."""
        self._make(frozenset(_last(definition.name) for definition in self._definitions))

    def _make(self, names: frozenset[str]) -> None:
        if not self._left or not (wanted := self._wanted(names)):
            return
        for check in self._checks:  # only the statement itself comes to files
            check.armed = False
        try:
            for position in wanted:
                self._definitions[position].create()
                self._left.discard(position)
        except duckdb.Error:
            for check in self._checks:  # a file whose columns are of other types than the views compute with
                check.verify()
            raise
        finally:
            for check in self._checks:
                check.armed = True

    def _wanted(self, names: frozenset[str]) -> list[int]:
        """The definitions of these names that are not made, and those that they need, in their order."""
        needed = set(names)
        found = []
        for position in sorted(self._left, reverse=True):
            definition = self._definitions[position]
            if _last(definition.name) in needed:
                needed |= definition.needs
                found.append(position)
        return found[::-1]


def _last(name: str) -> str:
    return name.rpartition(".")[2]


# What neither names a view nor changes what names mean.
_WITHOUT_NAMES = frozenset(("close", "description", "extract_statements", "interrupt", "register_filesystem"))
