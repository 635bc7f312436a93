"""The file that is imported: a digest of its content, and how it is opened without waiting for ever."""

from __future__ import annotations

import hashlib
import os
import select
import stat
from pathlib import Path
from typing import BinaryIO

from hnas.errors import UsageError
from hnas.pipeline.io.input_files import other_kind

#: Seconds that a pipe may take until something is written to it.
PATIENCE = 60.0


def content_digest(path: Path, kind: str) -> str:
    """A digest of the file, or of the files in the folder, and of `kind`.

    Empty where it cannot be told, as for a pipe, which can be read only once: then the rows themselves are compared.
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
    except OSError:  # the importer says what is wrong with it
        return ""
    return hashed.hexdigest()


def _add(hashed: hashlib.blake2b, path: Path) -> None:
    with path.open("rb") as file:
        while block := file.read(2**18):
            hashed.update(block)


def open_input(path: Path, advice: str) -> tuple[BinaryIO, int]:
    """The file or pipe at `path`, open at its beginning, and its size: 0 for a pipe, which cannot tell where it is.

    Raises `UsageError` where it cannot be read, for a device, which may never end, and a pipe that nobody writes to.
    """
    try:
        mode = path.stat().st_mode
        kind = None if stat.S_ISFIFO(mode) else other_kind(mode)
        if kind is not None:
            raise UsageError(f"{path} is {kind}, which may never end; {advice}")
        # A pipe would keep its opener waiting for a writer.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=2**20)
        os.set_blocking(file.fileno(), True)
        if stat.S_ISFIFO(mode) and not select.select([file], [], [], PATIENCE)[0]:
            file.close()
            raise UsageError(f"{path} is a pipe that nothing is written to ({PATIENCE:g} s); {advice}")
        return file, os.fstat(file.fileno()).st_size
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path} cannot be read: {reason}; {advice}") from error
