"""The files behind the catalog's views, and their verification.

DuckDB asks an Arrow stream for its schema whenever it binds a statement that reads the stream. Each view therefore
includes, next to the files of its table, an empty stream that verifies the files when asked for its schema. A statement
over damaged files thus fails before it reads a row, and statements that do not use a table pay nothing for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
from fsspec.implementations.dirfs import DirFileSystem

from hnas.errors import HnasError
from hnas.pipeline.store.store import Store


@dataclass(frozen=True)
class File:
    """A file of a store, by its path parts below the root."""

    store: Store
    parts: tuple[str, ...]


class Check:
    """An empty Arrow stream that verifies `files` when it is asked for its schema, once it is `armed`."""

    def __init__(self, column: str, files: list[File]) -> None:
        self.armed = False
        self._files = files
        self._schema = pa.schema([(column, pa.string())])

    def __arrow_c_schema__(self) -> Any:
        if self.armed:
            self.verify()
        return self._schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        return pa.RecordBatchReader.from_batches(self._schema, []).__arrow_c_stream__()

    def verify(self) -> None:
        """Verify the files now. Raises `HnasError` for the first damaged one."""
        for file in self._files:
            file.store.verify(*file.parts)


class Records:
    """The rows returned by `read`, in `schema`, read anew for each statement that uses them."""

    def __init__(self, schema: pa.Schema, read: Callable[[], list[dict[str, Any]]]) -> None:
        self._schema, self._read = schema, read

    def __arrow_c_schema__(self) -> Any:
        return self._schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        table = pa.Table.from_pylist(self._read(), schema=self._schema)
        return pa.RecordBatchReader.from_batches(self._schema, table.to_batches()).__arrow_c_stream__()


class _Rooted(DirFileSystem):  # type: ignore[misc, unused-ignore]
    """The files of a store by their paths below its root, which are always names, never patterns."""

    cachable = False

    def __init__(self, store: Store, protocol: str) -> None:
        super().__init__(path=store.root, fs=store.fs)
        self.protocol = protocol

    def _join(self, path: str) -> str:
        return str(super()._join(path.removeprefix(f"{self.protocol}://")))

    def glob(self, path: str, **_: object) -> list[str]:
        return [path] if self.exists(path) else []


class Addresses:
    """Addresses under which a connection reads files.

    DuckDB reads `*`, `?` and `[` in a local path as a pattern and has no escape for them; other stores need their
    own file system. In both cases, files are read through a file system whose root is the store.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._protocols: dict[int, str] = {}

    def literal(self, files: Iterable[File]) -> str:
        """Return the files as an SQL list literal."""
        return f"[{', '.join(quoted(self._address(file)) for file in files)}]"

    def _address(self, file: File) -> str:
        store = file.store
        if store.local and not re.search(r"[*?\[]", path := store.path(*file.parts)):
            return path
        if id(store) not in self._protocols:
            protocol = f"hnasstore{len(self._protocols)}"
            self._connection.register_filesystem(_Rooted(store, protocol))
            self._protocols[id(store)] = protocol
        return f"{self._protocols[id(store)]}://{'/'.join(file.parts)}"


def file_error(error: Exception) -> HnasError | None:
    """Return the hnas error inside an error of DuckDB, or None.

    DuckDB wraps what a check or an array behind a view raises in a `duckdb.Error`.
    """
    found = re.search(r" failed: (?:Unknown error|\w*HnasError): (.*)", str(error))
    return HnasError(found[1].partition(". Detail: ")[0]) if found else None


def quoted(text: str) -> str:
    """Return `text` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"
