"""A folder that appears whole or not at all: filled under another name beside its place, then renamed.

Such a folder is called `.<name>.<random>.part` and locked as long as its process lives; one without a lock is what a
killed process left, and goes with the next folder that is written to that place. Whoever is going to write a folder
again holds it meanwhile, so that nobody removes it, or writes it too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

_SUFFIX = ".part"


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` by name into a new folder, and put it in the place of `folder`, which must be a full path.

    Files are on the disk before anything is renamed. Where there is a folder, it is replaced by two renames, and stays
    if the second one fails. Raises `OSError`; then nothing is left behind.
    """
    _sweep(folder)
    handle, aside = _create(folder)
    try:
        for name, content in files.items():
            with (aside / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        os.fsync(handle)
        _exchange(folder, aside)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        os.close(handle)


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` make a file under another name beside `path`, and rename it into place. Raises what it raises."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_SUFFIX}")
    try:
        write(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


class Hold:
    """Holds a folder, there or not yet, until it is closed: see `in_use`. At most one process does so at a time.

    What holds it is an empty folder beside it, as one that is being filled. Raises `BlockingIOError` where it is in
    use, `OSError` where its parent cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        parent = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(parent, fcntl.LOCK_EX)  # of two that begin at once one sees the other
            if in_use(folder):
                raise BlockingIOError(folder)
            self._handle, self._aside = _create(folder)
        finally:
            os.close(parent)

    def close(self) -> None:
        """Give the folder free."""
        shutil.rmtree(self._aside, ignore_errors=True)
        os.close(self._handle)


def in_use(folder: Path) -> bool:
    """Whether a process writes `folder`, or holds it."""
    return any(map(_is_locked, [folder, *_parts(folder)]))


def remove_folder(folder: Path) -> None:
    """Remove a folder, whole at once. Raises `OSError`."""
    aside = _name(folder)
    folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _is_locked(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            return not _lock(handle)
        finally:
            os.close(handle)
    return False


def _exchange(folder: Path, aside: Path) -> None:
    try:
        aside.rename(folder)  # where there is none, or an empty one
    except OSError:
        if not folder.is_dir() or not any(folder.iterdir()):
            raise
        old = _name(folder)
        folder.rename(old)
        try:
            aside.rename(folder)
        except OSError:
            old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _name(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.{secrets.token_hex(4)}{_SUFFIX}")


def _create(folder: Path) -> tuple[int, Path]:
    """A new folder that `_sweep` leaves alone as long as its descriptor is open."""
    while True:
        aside = _name(folder)
        aside.mkdir()
        with contextlib.suppress(FileNotFoundError):  # swept before it was locked
            handle = os.open(aside, os.O_RDONLY)
            if _lock(handle) and aside.exists():
                return handle, aside
            os.close(handle)


def _sweep(folder: Path) -> None:
    for leftover in _parts(folder):
        with contextlib.suppress(OSError):
            handle = os.open(leftover, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if _lock(handle):
                    shutil.rmtree(leftover, ignore_errors=True)
            finally:
                os.close(handle)


def _parts(folder: Path) -> Iterator[Path]:
    return folder.parent.glob(f".{_quoted(folder.name)}.????????{_SUFFIX}")


def _quoted(name: str) -> str:
    return "".join(f"[{mark}]" if mark in "*?[" else mark for mark in name)


def _lock(handle: int) -> bool:
    """Lock an open folder. False where another process holds it; a file system without locks has none to hold."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
