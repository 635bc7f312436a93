"""The imported file: a digest of its content, and opening it without blocking forever."""

from __future__ import annotations

import hashlib
import os
import select
import stat
from pathlib import Path
from typing import BinaryIO

from hnas.errors import UsageError
from hnas.pipeline.io.input_files import other_kind

#: Seconds to wait for the first byte of a pipe.
PATIENCE = 60.0


def content_digest(path: Path, kind: str) -> str:
    """Return a digest of `kind` and of the file, or of the files in the folder.

    Empty where no digest can be taken, as for a pipe, which can be read only once; then the rows are compared instead.
    """
    hashed = hashlib.blake2b(kind.encode(), digest_size=16)
    try:
        if path.is_file():
            _add(hashed, path)
        elif path.is_dir():
            for file in sorted(found for found in path.glob("*.pickle.pbz2") if found.is_file()):
                hashed.update(f"\0{file.name}\0".encode(errors="surrogateescape"))
                _add(hashed, file)
        else:
            return ""
    except OSError:  # the importer reports what is wrong with the file
        return ""
    return hashed.hexdigest()


def _add(hashed: hashlib.blake2b, path: Path) -> None:
    with path.open("rb") as file:
        while block := file.read(2**18):
            hashed.update(block)


def open_input(path: Path, advice: str) -> tuple[BinaryIO, int]:
    """Open the file or pipe at `path` and return it with its size, 0 for a pipe, which cannot report its position.

    Raises `UsageError` if it cannot be read, for a device, which may never end, and for a pipe that nobody writes to.
    """
    try:
        mode = path.stat().st_mode
        kind = None if stat.S_ISFIFO(mode) else other_kind(mode)
        if kind is not None:
            raise UsageError(f"{path} is {kind}, which may never end; {advice}")
        # Without O_NONBLOCK, opening a pipe waits for a writer.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=2**20)
        os.set_blocking(file.fileno(), True)
        if stat.S_ISFIFO(mode) and not select.select([file], [], [], PATIENCE)[0]:
            file.close()
            raise UsageError(f"{path} is a pipe that nobody has written to for {PATIENCE:g} s; {advice}")
        return file, os.fstat(file.fileno()).st_size
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path} cannot be read: {reason}; {advice}") from error
