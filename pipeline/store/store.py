"""The store: one folder (or fsspec URL) of Parquet, Zarr and JSON files, all written atomically.

store.json                           the version of this layout
architectures/<space>/*.parquet      arch, canonical, static columns
runs/<run>/run.json                  every setting that determines a number, and how the run was computed
runs/<run>/batch.npz                 the images and labels on which the run was computed
runs/<run>/requests/*.parquet        the requested architectures with their canonical forms
runs/<run>/metrics/*.parquet         one row per canonical architecture
runs/<run>/ntk.zarr                  eigenvalues (n, m), and Gram matrices (n, m, m) on request
runs/<run>/scores/*.parquet          scores beside the metrics; see `hnas.pipeline.store.scores`
runs/<run>/further.npz               images beside the batch, for those scores
runs/<run>/drivers/                  the precomputes working on the run; see `hnas.pipeline.store.claim_log`
accuracies/<source>/*.parquet        arch, dataset, epochs, seed, accuracies, seconds
curves/<source>/*.parquet            the same from intermediate evaluations, with the epoch
trainings/<source>/                  trainings made by hnas; see `hnas.pipeline.store.trainings`
proxies/<source>/*.parquet           training-free scores computed by others
searches/<search>/search.json, queries.parquet
comparisons/<comparison>/            searches by the hundred; see `hnas.pipeline.store.comparisons`
latency/                             parts of an unfinished `hnas latency`
spaces/                              cached results of spaces; see `hnas.spaces.Cache`

Each file has a checksum (see `hnas.pipeline.io.checksums`) that is verified when it is read. A store contains no
symbolic links: nothing is written or deleted through one, so nothing outside the store is ever touched.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import tempfile
from collections.abc import Collection, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from hnas.errors import HnasError, UsageError
from hnas.pipeline.io.checksums import DamagedError, opened_json, parquet_bytes, sealed_json, verify_parquet
from hnas.pipeline.io.printable import is_text, printable
from hnas.pipeline.store.partial_writes import create_part, sweep_parts

STORE_VERSION = 1
DEFAULT_STORE = "data/store"
# The column whose values determine the names of parts in a folder; see `digest`.
_NAMED_BY = {"metrics": "canonical", "requests": "arch", "architectures": "arch"}
# The text columns of a run's parts; all other columns in these folders hold numbers.
_TEXTS = {"metrics": ("canonical", "status"), "scores": ("canonical",)}
# Nested file systems: their addresses are determined by the content of a file, and they cannot rename.
_NO_STORES = frozenset(
    {"zip", "tar", "reference", "libarchive", "ftp", "http", "https", "data", "git", "github", "dir"}
)


def store_location(given: str | None) -> str:
    """Return the store of a command: `given`, or `$HNAS_STORE`, or `data/store`."""
    return given or os.environ.get("HNAS_STORE") or DEFAULT_STORE


def digest(*parts: str, size: int = 8) -> str:
    """Return a hexadecimal digest of `size` bytes over the parts in order."""
    hashed = blake2b(digest_size=size)
    for part in parts:
        hashed.update(part.encode())
        hashed.update(b"\0")
    return hashed.hexdigest()


class Store:
    """A store at `location`, a local folder or an fsspec URL. Creating this object neither reads nor writes.

    Paths are given as parts below the root: `store.path("runs", run, "run.json")`. If the disk is full, the place
    cannot be written, or a symbolic link is on the way, writing raises `HnasError` and leaves the old file unchanged.
    Raises `UsageError` for an invalid location.
    """

    def __init__(self, location: str, *, mend: str | None = None) -> None:
        self.location = location = os.fspath(location)
        #: How to repair damage, for a store that no command writes to.
        self.mend = mend
        try:
            location.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"the store {location!r} has a name that is not UTF-8; rename its folder") from error
        protocol = location.partition("://")[0] if "://" in location else "file"
        if "::" in location or protocol in _NO_STORES:
            raise UsageError(
                f"the store {location!r} cannot be opened: {protocol} addresses do not support renaming; give a "
                "folder or the URL of an object store, such as s3://bucket/store"
            )
        try:
            self.fs, self.root = fsspec.core.url_to_fs(location)
        except Exception as error:  # each file system raises its own errors
            raise UsageError(
                f"the store {location!r} cannot be opened: {reason_of(error)}; give a folder or an fsspec URL"
            ) from error
        #: Whether this object has prepared the store for writing.
        self.prepared = False
        # The verified Parquet files: path -> the state of the file at that time.
        self._verified: dict[str, object] = {}
        self.local = "file" in self.fs.protocol or "local" in self.fs.protocol
        if not is_text(self.root):  # for example a relative path in a folder with such a name
            raise UsageError(f"the path of the store, {printable(self.root)}, is not UTF-8 text; rename its folders")
        if self.local and Path(self.root).exists() and not Path(self.root).is_dir():
            raise UsageError(f"the store {location!r} is a file; a store must be a folder")

    def path(self, *parts: str) -> str:
        """Return the path of `parts` below the root, in the file system's own terms."""
        return "/".join([self.root.rstrip("/"), *parts])

    def url(self, *parts: str) -> str:
        """Return that path as an address that any process can open, with its protocol if it is not local."""
        path = self.path(*parts)
        return path if self.local else str(self.fs.unstrip_protocol(path))

    def exists(self, *parts: str) -> bool:
        """Return whether there is a file or folder at `parts`. Raises `HnasError` if the store cannot be read."""
        path = self.path(*parts)
        if self.local:
            return Path(path).exists()
        try:
            return bool(self.fs.exists(path))
        except Exception as error:  # network, permission or protocol errors
            raise HnasError(f"{self.location} cannot be read: {reason_of(error)}") from error

    def names(self, *folder: str) -> list[str]:
        """Return the names in a folder in any order; empty if there is no such folder.

        Raises `HnasError` if it cannot be read.
        """
        path = self.path(*folder)
        try:
            if self.local:
                with os.scandir(path) as entries:
                    return [entry.name for entry in entries]
            return [str(entry).rstrip("/").split("/")[-1] for entry in self.fs.ls(path, detail=False)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise HnasError(f"{path} cannot be read: {reason_of(error)}") from error

    def files(self, *folder: str, suffix: str = ".parquet") -> list[str]:
        """Return the names of the files in a folder that end with `suffix`, sorted.

        Hidden files do not belong to the store: macOS creates `._x`, network shares create `.nfs…`.
        """
        return sorted(name for name in self.names(*folder) if name.endswith(suffix) and not name.startswith("."))

    def folders(self, *folder: str) -> list[str]:
        """Return the names in a folder that may be folders themselves, sorted, without hidden ones."""
        return sorted(name for name in self.names(*folder) if not name.startswith("."))

    def refuse_links(self, *parts: str) -> None:
        """Raise `HnasError` if anything on the path from the root to `parts` is a symbolic link."""
        for count in range(1, len(parts) + 1) if self.local else ():
            path = Path(self.path(*parts[:count]))
            if path.is_symlink():
                raise HnasError(
                    f"{path} is a symbolic link, and a store must not be written or deleted through links; replace it "
                    "by its target, or remove it"
                )

    def check_version(self) -> None:
        """Raise `HnasError` if the store has another layout version than this package reads."""
        if not self.exists("store.json"):
            if self.exists("runs") or self.exists("accuracies"):
                raise HnasError(
                    f"{self.location} has runs but no store.json; it is not an hnas store, or it is damaged"
                )
            return
        version = self.read_json("store.json").get("version")
        if version != STORE_VERSION:
            raise HnasError(
                f"the store {self.location} has version {version!r}, but this hnas reads version {STORE_VERSION}; "
                f"{self.mend or 'use the hnas that wrote it, or another --store'}"
            )

    def prepare(self) -> None:
        """Check the version, mark a new folder as a store, and remove the temporary files of killed commands.

        A store that is deleted later is not recreated.
        """
        self.prepared = False
        self.check_version()
        if self.local:
            sweep_parts(Path(self.root))
        if not self.exists("store.json"):
            self.write_json({"version": STORE_VERSION}, "store.json")
        self.prepared = True

    def check_there(self) -> None:
        """Raise `HnasError` if this object prepared the store and its `store.json` has since disappeared."""
        if self.prepared and self.local and not self.exists("store.json"):
            raise HnasError(
                f"the store {self.location} was removed while it was being written; restore it, or start again"
            )

    def read_bytes(self, *parts: str) -> bytes:
        """Return the content of a file. Raises `HnasError` if it is missing or cannot be read."""
        path = self.path(*parts)
        try:
            if not self.local:
                return bytes(self.fs.cat_file(path))
            with open(path, "rb", opener=_open_without_waiting) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise HnasError(f"{path} is not a regular file; a store holds files and folders, so remove it")
                return file.read()
        except HnasError:
            raise
        except Exception as error:  # from the system, or from any fsspec file system
            raise HnasError(f"{path} cannot be read: {reason_of(error)}") from error

    def write_bytes(self, content: bytes, *parts: str, lasting: bool = True) -> None:
        """Write a temporary file and rename it into place; on an object store, a put is atomic already.

        A file that is not `lasting` survives the process but perhaps not a power failure; writing it does not wait for
        the disk.
        """
        path = self.path(*parts)
        with self.writing(path):
            if not self.local:
                self.fs.pipe_file(path, content)
                return
            with self.aside(*parts) as aside:
                aside.file.write(content)
                aside.seal(lasting)
                aside.keep(lasting)

    @contextlib.contextmanager
    def aside(self, *parts: str) -> Iterator[Aside]:
        """Yield a temporary file to be written piecewise. It moves to `parts` when it is kept, otherwise it is deleted.

        It lies in the root of a local store, or in the system's temporary folder for a remote store. Operating system
        errors pass through; `writing` converts them.
        """
        self.refuse_links(*parts)
        self.check_there()
        root = Path(self.root) if self.local else None
        made = _make_folder(root) if root else []
        try:
            handle, name = create_part(root or Path(tempfile.gettempdir()))
            lock = os.dup(handle)  # keeps the file locked after it is sealed
            aside = Aside(self, self.path(*parts), name, os.fdopen(handle, "w+b"))
            try:
                yield aside
            finally:
                os.close(lock)
                with contextlib.suppress(OSError):
                    aside.file.close()  # may flush again what a full disk rejected
                with contextlib.suppress(OSError):
                    aside.name.unlink(missing_ok=True)
        except BaseException:
            for folder in made:
                with contextlib.suppress(OSError):  # another process has added something
                    folder.rmdir()
            raise

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[None]:
        """Convert operating system errors on writing `path` to one sentence."""
        try:
            yield
        except OSError as error:
            advice = "free some space, or use another --store" if error.errno == errno.ENOSPC else "use another --store"
            raise HnasError(f"{path} cannot be written: {reason_of(error)}; {advice}") from error

    def read_json(self, *parts: str) -> dict[str, Any]:
        """Return the JSON object in a file. Raises `HnasError` if it does not hold one."""
        mend = self.mend or _mend_of_record(*parts)
        cure = self.mend or f"it was damaged after it was written: {mend}"
        try:
            value = json.loads(self.read_bytes(*parts))
        except (ValueError, RecursionError) as error:
            raise HnasError(f"{self.path(*parts)} is not valid JSON ({reason_of(error)}); {cure}") from error
        if not isinstance(value, dict):
            raise HnasError(f"{self.path(*parts)} does not hold a JSON object; {cure}")
        try:
            return opened_json(value)
        except DamagedError as error:
            raise HnasError(f"{self.path(*parts)} was damaged after it was written: {error}; {mend}") from error

    def write_json(self, value: dict[str, Any], *parts: str) -> None:
        """Write a JSON object, indented for people, with its checksum."""
        self.write_bytes((json.dumps(sealed_json(value), indent=2, ensure_ascii=False) + "\n").encode(), *parts)

    def read_tables(self, columns: list[str], *folder: str) -> pa.Table | None:
        """Return the given columns of all Parquet files in a folder in the order of their names; None if there are
        none."""
        tables = [self.read_table(columns, *folder, name) for name in self.files(*folder)]
        return pa.concat_tables(tables) if tables else None

    def read_table(self, columns: list[str] | None, *parts: str) -> pa.Table:
        """Return the given columns of a Parquet file, or all. Raises `HnasError` if it is missing or damaged."""
        return self._parsed(self.verified(*parts), columns, *parts)

    def read_checked(self, *parts: str) -> tuple[pa.Table, bool]:
        """Return a Parquet file and whether it has a checksum. Raises `HnasError` if it is missing or damaged."""
        content, sealed = self._verified_content(*parts)
        return self._parsed(content, None, *parts), sealed

    def _parsed(self, content: bytes, columns: list[str] | None, *parts: str) -> pa.Table:
        try:
            # pq.read_table takes five times as long for a small file.
            table = pq.ParquetFile(pa.BufferReader(content)).read(columns=columns, use_threads=False)
            table = table.replace_schema_metadata(None)
            return table if columns is None else table.select(columns)
        except (pa.ArrowException, OSError, KeyError) as error:
            raise self._damaged(reason_of(error).split(". ")[0], *parts) from error

    def verified(self, *parts: str) -> bytes:
        """Return the content of a verified Parquet file. Raises `HnasError` if it is missing or damaged."""
        return self._verified_content(*parts)[0]

    def _verified_content(self, *parts: str) -> tuple[bytes, bool]:
        content = self.read_bytes(*parts)
        try:
            sealed = verify_parquet(content, "/".join(parts))
            if not sealed and (column := _NAMED_BY.get(parts[-2] if parts[0] == "runs" else parts[0])):
                _verify_name(content, column, parts[-1])
            if parts[0] == "runs" and parts[-2] in _TEXTS:
                _verify_kinds(content, _TEXTS[parts[-2]])
        except DamagedError as error:
            raise self._damaged(str(error), *parts) from error
        return content, sealed

    def _damaged(self, reason: str, *parts: str) -> HnasError:
        return HnasError(f"{self.path(*parts)} cannot be read: {reason}; {self.mend or mend_of(*parts)}")

    def verify(self, *parts: str) -> None:
        """Verify a file, but only once as long as it does not change. Raises `HnasError`."""
        path = self.path(*parts)
        state: object = None
        if self.local:
            try:
                status = Path(path).stat()
            except OSError as error:
                raise HnasError(f"{path} cannot be read: {reason_of(error)}") from error
            state = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
        if path not in self._verified or self._verified[path] != state:
            self.verified(*parts)
            self._verified[path] = state

    def write_table(self, table: pa.Table, *parts: str, notes: dict[bytes, bytes] | None = None) -> None:
        """Write a Parquet file, with `notes` in its metadata."""
        self.write_bytes(parquet_bytes(table, "/".join(parts), notes), *parts)


class Aside:
    """A temporary file on its way into the store; see `Store.aside`."""

    def __init__(self, store: Store, path: str, name: Path, file: BinaryIO) -> None:
        self._store, self._path = store, path
        self.name, self.file = name, file

    def seal(self, lasting: bool = True) -> None:
        """Sync the complete file to disk, so that a full disk is noticed before anything is replaced."""
        self.file.flush()
        if lasting:
            os.fsync(self.file.fileno())
        self.file.close()

    def keep(self, lasting: bool = True) -> None:
        """Move the sealed file into its place atomically."""
        if self._store.local:
            parent = Path(self._path).parent
            made = _make_folder(parent)
            self.name.chmod(0o666 & ~_umask())
            self.name.replace(self._path)
            for folder in {parent, *(new.parent for new in made)} if lasting else ():
                sync_folder(folder)
        else:
            self._store.fs.put_file(str(self.name), self._path)


def _make_folder(folder: Path) -> list[Path]:
    """Create `folder` with its parents; return those that did not exist, innermost first."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _verify_name(content: bytes, column: str, name: str) -> None:
    """Raise `DamagedError` unless the name of a part without a checksum matches its rows."""
    try:
        values = pq.ParquetFile(pa.BufferReader(content)).read(columns=[column])[column].to_pylist()
        named = digest(*values)
    except (pa.ArrowException, OSError, KeyError, AttributeError) as error:
        raise DamagedError(reason_of(error)) from error
    if name != f"{named}.parquet":
        raise DamagedError(f"its rows are those of {named}.parquet")


def _verify_kinds(content: bytes, texts: Collection[str]) -> None:
    """Raise `DamagedError` unless the columns `texts` of a part hold text and the others numbers."""
    try:
        columns = pq.read_schema(pa.BufferReader(content))
    except (pa.ArrowException, OSError) as error:
        raise DamagedError(reason_of(error)) from error
    for column in columns:
        number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        if not (text if column.name in texts else number):
            kind = "text" if column.name in texts else "numbers"
            raise DamagedError(f"its column {printable(column.name)} has values of type {column.type}, not {kind}")


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to disk, as `fsync` syncs a file's content, if the system supports it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _open_without_waiting(path: str, flags: int) -> int:
    # Opening a FIFO would wait for a writer.
    return os.open(path, flags | os.O_NONBLOCK)


def mend_of(folder: str, source: str = "", *_: str) -> str:
    """Return how to restore a damaged Parquet file in these folders of a store."""
    if folder in ("runs", "architectures"):
        return "delete it, and its rows are computed again"
    if folder == "searches":
        return "restore it, or remove the search and start it again"
    if folder == "comparisons":
        return "delete it, and the same `hnas compare` makes its searches again"
    if source.startswith("trained-"):
        return "delete it, and the architecture is trained again when a command needs it"
    if folder == "latency":
        return "delete it, and its networks are measured again"
    if source.startswith("latency-"):
        return f"`hnas rm {source}` removes it, and the same `hnas latency` measures it again"
    return "import its file again"


def _mend_of_record(folder: str, name: str = "", *_: str) -> str:
    """Return how to restore a damaged JSON file at these places of a store."""
    if folder == "store.json":
        return f'restore it, or write {{"version": {STORE_VERSION}}} into it'
    if folder == "imports":
        source = name.removesuffix(".json")
        if source.startswith("latency-"):
            return mend_of("columns", source)
        return f"`hnas rm {source}` removes it, and importing its file again restores it"
    return "restore it"


def reason_of(error: Exception) -> str:
    """Return the first line of an error's message, without the path in system errors."""
    message = getattr(error, "strerror", None) or str(error).strip()
    return str(message).splitlines()[0] if message else type(error).__name__


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
