"""The files behind the catalog's views, and their checks.

DuckDB asks an Arrow stream for its schema whenever it binds a statement that reads it. So a stream without rows stands
beside the files of each table in its view: asked for its schema, it verifies the files first, and a statement over
damaged files fails before it has read a row. Statements that do not come to a table cost nothing for it.
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
    """A file of a store, by its parts below the root."""

    store: Store
    parts: tuple[str, ...]


class Check:
    """An Arrow stream without rows that verifies `files` when it is asked for its schema, once `armed`."""

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
        """Verify the files now. Raises `HnasError` for the first that is damaged."""
        for file in self._files:
            file.store.verify(*file.parts)


class Records:
    """The rows that `read` gives, in `schema`, read anew for each statement that comes to them."""

    def __init__(self, schema: pa.Schema, read: Callable[[], list[dict[str, Any]]]) -> None:
        self._schema, self._read = schema, read

    def __arrow_c_schema__(self) -> Any:
        return self._schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        table = pa.Table.from_pylist(self._read(), schema=self._schema)
        return pa.RecordBatchReader.from_batches(self._schema, table.to_batches()).__arrow_c_stream__()


class _Rooted(DirFileSystem):  # type: ignore[misc, unused-ignore]
    """The files of a store by their paths below its root, each of which is a name and never a pattern."""

    cachable = False

    def __init__(self, store: Store, protocol: str) -> None:
        super().__init__(path=store.root, fs=store.fs)
        self.protocol = protocol

    def _join(self, path: str) -> str:
        return str(super()._join(path.removeprefix(f"{self.protocol}://")))

    def glob(self, path: str, **_: object) -> list[str]:
        return [path] if self.exists(path) else []


class Addresses:
    """The addresses under which a connection reads files.

    DuckDB takes `*`, `?` and `[` of a local path for a pattern, and has no way to write a backslash beside one;
    elsewhere it needs the store's own file system. Both are read through a file system whose root is the store.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._protocols: dict[int, str] = {}

    def literal(self, files: Iterable[File]) -> str:
        """The files as a list literal of SQL."""
        return f"[{', '.join(quoted(self._address(file)) for file in files)}]"

    def _address(self, file: File) -> str:
        store = file.store
        if store.local and not re.search(r"[*?\[]", store.root):
            return store.path(*file.parts)
        if id(store) not in self._protocols:
            protocol = f"hnasstore{len(self._protocols)}"
            self._connection.register_filesystem(_Rooted(store, protocol))
            self._protocols[id(store)] = protocol
        return f"{self._protocols[id(store)]}://{'/'.join(file.parts)}"


def told(error: Exception) -> HnasError | None:
    """The error of this package that DuckDB passes on in its own, or None where there is none in it.

    What a check or an array behind a view raises reaches the caller of a statement inside a `duckdb.Error`.
    """
    found = re.search(r" failed: (?:Unknown error|\w*HnasError): (.*)", str(error))
    return HnasError(found[1].partition(". Detail: ")[0]) if found else None


def quoted(text: str) -> str:
    """`text` as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"
