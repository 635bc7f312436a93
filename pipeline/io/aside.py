"""Atomic writing of folders and files: fill a temporary sibling, then rename it.

A temporary folder is called `.<name>.<random>.part` and stays locked as long as its process lives. One without a lock
is the remains of a killed process, and is deleted by the next write to the same place. A process that will write a
folder again holds it in the meantime, so that no other process removes it or writes it too.
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
    """Write `files` by name into a new folder and move it to the absolute path `folder`.

    All files are synced to disk before the rename. An existing folder is replaced by two renames and is restored if the
    second fails. Raises `OSError`; then nothing is left behind.
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
    """Let `write` create a temporary file next to `path`, then rename it into place. Raises the errors of `write`."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_SUFFIX}")
    try:
        write(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


class Hold:
    """Holds a folder, whether it exists yet or not, until it is closed; see `in_use`. Only one process can at a time.

    The hold is an empty folder next to it, like one that is being filled. Raises `BlockingIOError` if the folder is in
    use, and `OSError` if its parent cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        parent = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(parent, fcntl.LOCK_EX)  # if two begin at once, one sees the other
            if in_use(folder):
                raise BlockingIOError(folder)
            self._handle, self._aside = _create(folder)
        finally:
            os.close(parent)

    def close(self) -> None:
        """Release the folder."""
        shutil.rmtree(self._aside, ignore_errors=True)
        os.close(self._handle)


def in_use(folder: Path) -> bool:
    """Return whether a process is writing or holding `folder`."""
    return any(map(_is_locked, [folder, *_parts(folder)]))


def remove_folder(folder: Path) -> None:
    """Remove a folder atomically. Raises `OSError`."""
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
        aside.rename(folder)  # succeeds if there is no folder, or an empty one
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
    """Create a temporary folder that `_sweep` spares as long as its descriptor is open."""
    while True:
        aside = _name(folder)
        aside.mkdir()
        with contextlib.suppress(FileNotFoundError):  # swept before it could be locked
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
    """Lock an open folder. False if another process holds it; True on a file system without locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
