"""The store: one folder (or fsspec URL) of Parquet, Zarr and JSON, in which everything appears whole or not at all.

store.json                           the version of this layout
architectures/<space>/*.parquet      arch, canonical, static columns
runs/<run>/run.json                  every setting that determines a number, and how it was computed
runs/<run>/batch.npz                 the images and labels that the run's numbers were computed on
runs/<run>/requests/*.parquet        the architectures that were asked for, with their canonical forms
runs/<run>/metrics/*.parquet         a row for each canonical architecture
runs/<run>/ntk.zarr                  eigenvalues (n, m), and Gram matrices (n, m, m) on request
runs/<run>/drivers/                  the precomputes that work on the run; see `pipeline.drivers`
accuracies/<source>/*.parquet        arch, dataset, epochs, seed, accuracies, seconds
curves/<source>/*.parquet            the same, measured on the way, with the epoch
proxies/<source>/*.parquet           training-free scores that others computed
searches/<search>/search.json, queries.parquet
spaces/                              what a space has worked out once; see `hnas.spaces.Cache`
"""

from __future__ import annotations

import contextlib
import errno
import glob
import io
import json
import os
import tempfile
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from hnas.errors import HnasError, UsageError
from pipeline.leftovers import create_part, sweep_parts

STORE_VERSION = 1
DEFAULT_STORE = "data/store"


def store_location(given: str | None) -> str:
    """The store that a command means: what was given, else `$HNAS_STORE`, else `data/store`."""
    return given or os.environ.get("HNAS_STORE") or DEFAULT_STORE


def digest(*parts: str, size: int = 8) -> str:
    """A hexadecimal digest of `size` bytes over the parts in order."""
    hashed = blake2b(digest_size=size)
    for part in parts:
        hashed.update(part.encode())
        hashed.update(b"\0")
    return hashed.hexdigest()


class Store:
    """A store at `location`, a local folder or an fsspec URL. Opening one neither reads nor writes anything.

    Paths are given in parts below the root: `store.path("runs", run, "run.json")`. Every write raises `HnasError`
    where the disk is full or the place cannot be written, and leaves what was there before.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        try:
            self.fs, self.root = fsspec.core.url_to_fs(location)
        except (ValueError, ImportError) as error:
            raise UsageError(
                f"the store {location!r} cannot be opened: {error}; give a folder or an fsspec URL"
            ) from error
        self.local = "file" in self.fs.protocol or "local" in self.fs.protocol
        if self.local and Path(self.root).exists() and not Path(self.root).is_dir():
            raise UsageError(f"the store {location!r} is a file; a store is a folder")

    def path(self, *parts: str) -> str:
        """The path of `parts` below the root, in the filesystem's own terms."""
        return "/".join([self.root.rstrip("/"), *parts])

    def url(self, *parts: str) -> str:
        """The same as an address that any process can open, with its protocol where it is not local."""
        path = self.path(*parts)
        return path if self.local else str(self.fs.unstrip_protocol(path))

    def exists(self, *parts: str) -> bool:
        """Whether there is a file or folder at `parts`."""
        return bool(self.fs.exists(self.path(*parts)))

    def pattern(self, *parts: str) -> str:
        """Like `url`, with the root's own `*`, `?` and `[` taken literally, so that only `parts` are a pattern."""
        location = self.url(*parts)
        tail = "/".join(parts)
        return glob.escape(location.removesuffix(tail)) + tail

    def glob(self, *parts: str) -> list[str]:
        """The paths that match the pattern, sorted."""
        if self.local:
            # As fsspec finds them, in half its time: opening a store asks some thirty times.
            return sorted(glob.glob(self.pattern(*parts), include_hidden=True))  # noqa: PTH207 (keeps strings)
        return sorted(str(found) for found in self.fs.glob(self.pattern(*parts)))

    def names(self, *folder: str) -> list[str]:
        """The names of what is in a folder, in any order; none where there is no such folder.

        Raises `HnasError` where it cannot be read.
        """
        path = self.path(*folder)
        try:
            if self.local:
                with os.scandir(path) as found:
                    return [entry.name for entry in found]
            return [str(entry).rstrip("/").split("/")[-1] for entry in self.fs.ls(path, detail=False)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise HnasError(f"{path} cannot be read: {_reason(error)}") from error

    def check_version(self) -> None:
        """Raise `HnasError` where the store was written in another layout than this package reads."""
        if not self.exists("store.json"):
            if self.exists("runs") or self.exists("accuracies"):
                raise HnasError(f"{self.location} has runs but no store.json; it is no hnas store, or it is damaged")
            return
        version = self.read_json("store.json").get("version")
        if version != STORE_VERSION:
            raise HnasError(
                f"the store {self.location} has version {version!r}, this hnas reads version {STORE_VERSION}; "
                "use the hnas that wrote it, or another --store"
            )

    def prepare(self) -> None:
        """Check the version, mark the folder as a store if it is new, and remove what killed commands left aside."""
        self.check_version()
        if self.local:
            sweep_parts(Path(self.root))
        if not self.exists("store.json"):
            self.write_json({"version": STORE_VERSION}, "store.json")

    def read_bytes(self, *parts: str) -> bytes:
        """The content of a file. Raises `HnasError` where it is missing or cannot be read."""
        path = self.path(*parts)
        try:
            return bytes(self.fs.cat_file(path))
        except OSError as error:
            raise HnasError(f"{path} cannot be read: {_reason(error)}") from error

    def write_bytes(self, content: bytes, *parts: str) -> None:
        """Write a file aside and rename it into place; an object store's own put is whole already."""
        path = self.path(*parts)
        with self.writing(path):
            if not self.local:
                self.fs.pipe_file(path, content)
                return
            with self.aside(*parts) as aside:
                aside.file.write(content)
                aside.seal()
                aside.keep()

    @contextlib.contextmanager
    def aside(self, *parts: str) -> Iterator[Aside]:
        """A file to write piece by piece, which takes its place at `parts` when it is kept, and is gone otherwise.

        Until then it lies in the root of a local store, or in the system's temporary folder where the store is remote.
        Refusals of the operating system pass through: `writing` turns them into a sentence.
        """
        root = Path(self.root) if self.local else None
        made = _make_folder(root) if root else []
        try:
            handle, name = create_part(root or Path(tempfile.gettempdir()))
            lock = os.dup(handle)  # keeps the file's lock when the file is sealed
            aside = Aside(self, self.path(*parts), name, os.fdopen(handle, "wb"))
            try:
                yield aside
            finally:
                os.close(lock)
                with contextlib.suppress(OSError):
                    aside.file.close()  # flushes once more what a full disk refused
                with contextlib.suppress(OSError):
                    aside.name.unlink(missing_ok=True)
        except BaseException:
            for folder in made:
                with contextlib.suppress(OSError):  # somebody else has put something into it
                    folder.rmdir()
            raise

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[None]:
        """Turn the operating system's refusals to write at `path` into one sentence."""
        try:
            yield
        except OSError as error:
            advice = "free some space, or use another --store" if error.errno == errno.ENOSPC else "use another --store"
            raise HnasError(f"{path} cannot be written: {_reason(error)}; {advice}") from error

    def read_json(self, *parts: str) -> dict[str, Any]:
        """The JSON object in a file. Raises `HnasError` where it is not one."""
        try:
            value = json.loads(self.read_bytes(*parts))
        except ValueError as error:
            raise HnasError(
                f"{self.path(*parts)} is not valid JSON ({error}); it was damaged after it was written"
            ) from error
        if not isinstance(value, dict):
            raise HnasError(f"{self.path(*parts)} does not hold a JSON object; it was damaged after it was written")
        return value

    def write_json(self, value: dict[str, Any], *parts: str) -> None:
        """Write a JSON object, readable by people."""
        self.write_bytes((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode(), *parts)

    def read_tables(self, columns: list[str], *pattern: str) -> pa.Table | None:
        """The given columns of all Parquet files that match the pattern, or None where there is none."""
        tables = [self._read_table(columns, path) for path in self.glob(*pattern)]
        return pa.concat_tables(tables) if tables else None

    def read_table(self, columns: list[str], *parts: str) -> pa.Table:
        """The given columns of a Parquet file. Raises `HnasError` where it is missing or damaged."""
        return self._read_table(columns, self.path(*parts))

    def _read_table(self, columns: list[str], path: str) -> pa.Table:
        # Not pq.read_table, which takes five times as long for a small file.
        try:
            with self.fs.open(path, "rb") as file:
                table = pq.ParquetFile(file).read(columns=columns, use_threads=False)
            return table.select(columns)
        except (pa.ArrowException, OSError, KeyError) as error:
            reason = str(error).splitlines()[0].split(". ")[0] if str(error) else type(error).__name__
            raise HnasError(f"{path} cannot be read: {reason}; delete it, and its rows are computed again") from error

    def write_table(self, table: pa.Table, *parts: str) -> None:
        """Write a Parquet file."""
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        self.write_bytes(buffer.getvalue(), *parts)


class Aside:
    """A file on its way into the store; see `Store.aside`."""

    def __init__(self, store: Store, path: str, name: Path, file: BinaryIO) -> None:
        self._store, self._path = store, path
        self.name, self.file = name, file

    def seal(self) -> None:
        """Everything is written: bring it to the disk, so that a full one is noticed before anything is replaced."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()

    def keep(self) -> None:
        """Put the sealed file into its place, whole at once."""
        if self._store.local:
            Path(self._path).parent.mkdir(parents=True, exist_ok=True)
            self.name.chmod(0o666 & ~_umask())
            self.name.replace(self._path)
        else:
            self._store.fs.put_file(str(self.name), self._path)


def _make_folder(folder: Path) -> list[Path]:
    """Make `folder` with its parents; returns those that were not there before, innermost first."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
