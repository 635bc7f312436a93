"""The folder for what Dask writes beside the work: this user's alone, and removed whatever ends the command.

Dask's default is one folder in $TMPDIR for all users, which its processes put before everything else on the path that
Python imports from: whoever made it first could have them import code.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hnas.errors import HnasError

_PREFIX = "hnas-dask-"


@contextmanager
def scratch_folder() -> Iterator[str]:
    """A new folder in $TMPDIR, locked as long as it is used; those of commands that were killed are removed first.

    Raises `HnasError` where there is no place for it.
    """
    try:
        _sweep(Path(tempfile.gettempdir()))
        folder, lock = _locked_folder()
    except OSError as error:
        raise HnasError(
            f"no folder for temporary files can be made: {error.strerror or error}; set TMPDIR to one with some space"
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked_folder() -> tuple[str, int]:
    """A folder that nobody else can enter, and the open file that holds its lock."""
    while True:
        folder = tempfile.mkdtemp(prefix=_PREFIX)
        lock = os.open(folder, os.O_RDONLY)
        with suppress(OSError):  # a file system without locks: nobody can lock it to sweep it either
            fcntl.flock(lock, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            # Another command may have swept it between the two calls.
            if os.path.samestat(os.fstat(lock), os.lstat(folder)):
                return folder, lock
        os.close(lock)


def _sweep(place: Path) -> None:
    """Remove the folders in `place` that this user's commands left behind, whose locks ended with them."""
    for folder in place.glob(_PREFIX + "*"):
        with suppress(OSError):
            if folder.is_symlink() or folder.lstat().st_uid != os.getuid():
                continue
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
