"""Temporary files of unfinished writes, and the removal of those that killed processes left behind.

Such a file lies in the store's root, is called `.<machine>.<random>.part`, and is locked while its process lives. One
without a lock is a leftover. Since not every shared file system keeps locks across machines, another machine's file
must also be a day old before it is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import tempfile
import time
from hashlib import blake2b
from pathlib import Path

_SUFFIX = ".part"
_DAY = 86_400.0


def create_part(folder: Path) -> tuple[int, Path]:
    """Create a file in `folder` that `sweep_parts` spares while it is open; return its descriptor and path."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{_machine()}.", suffix=_SUFFIX, dir=folder)
        if _lock(handle) and Path(name).exists():
            return handle, Path(name)
        os.close(handle)  # swept between its creation and its lock


def sweep_parts(folder: Path) -> None:
    """Remove the leftovers in `folder`; files that cannot be removed stay."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") and entry.name.endswith(_SUFFIX) and entry.is_file(follow_symlinks=False):
                _sweep(Path(entry.path))


def _sweep(path: Path) -> None:
    with contextlib.suppress(OSError):
        if not path.name.startswith(f".{_machine()}.") and time.time() - path.stat().st_mtime < _DAY:
            return
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(handle)


def _lock(handle: int) -> bool:
    """Lock an open file. False if another process holds it; True on a file system without locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _machine() -> str:
    return blake2b(platform.node().encode(), digest_size=4).hexdigest()
