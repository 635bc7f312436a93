"""The folder for Dask's temporary files: private to this user, and removed however the command ends.

By default Dask uses one folder in $TMPDIR for all users and puts it first on its processes' import path, so whoever
creates that folder first could make them import code.
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
    """Yield a new folder in $TMPDIR, locked while in use, after removing those of killed commands.

    Raises `HnasError` if it cannot be created.
    """
    try:
        _sweep(Path(tempfile.gettempdir()))
        folder, lock = _locked_folder()
    except OSError as error:
        raise HnasError(
            f"cannot create a folder for temporary files: {error.strerror or error}; set TMPDIR to one with free space"
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked_folder() -> tuple[str, int]:
    """Create a folder that other users cannot enter, and return it with the open file that holds its lock."""
    while True:
        folder = tempfile.mkdtemp(prefix=_PREFIX)
        lock = os.open(folder, os.O_RDONLY)
        with suppress(OSError):  # on a file system without locks nobody can lock it to sweep it either
            fcntl.flock(lock, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            # Another command may have swept the folder between the two calls.
            if os.path.samestat(os.fstat(lock), os.lstat(folder)):
                return folder, lock
        os.close(lock)


def _sweep(place: Path) -> None:
    """Remove the folders in `place` that this user's ended commands left behind: their locks are free."""
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
