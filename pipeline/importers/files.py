"""What a benchmark file is known by: a digest of its content."""

from __future__ import annotations

import hashlib
from pathlib import Path


def content_digest(path: Path, kind: str) -> str:
    """A digest of the file, or of all files below the folder, and of `kind`.

    Empty where it cannot be told, as for a pipe, which can be read only once: then the rows themselves are compared.
    """
    hashed = hashlib.blake2b(kind.encode(), digest_size=16)
    try:
        if path.is_file():
            _add(hashed, path)
        elif path.is_dir():
            for file in sorted(found for found in path.rglob("*") if found.is_file()):
                hashed.update(f"\0{file.relative_to(path).as_posix()}\0".encode(errors="surrogateescape"))
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
