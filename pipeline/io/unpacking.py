"""Unpacks archives in their own folder, with limits on their content."""

from __future__ import annotations

import tarfile
from pathlib import Path

from hnas.pipeline.io.printable import printable

# The largest archive, CIFAR's, holds 186 MB in eight files.
_MOST_BYTES = 2**32
_MOST_MEMBERS = 100_000


def unpack(file: str, action: str, _: object) -> None:
    """Unpack a tar archive, unless its files are already there; `action` is `fetch` if the archive existed before.

    Raises `tarfile.TarError` before writing anything if a member is a link or a device or would lie outside the folder,
    or if the archive unpacks to far more than any supported one.
    """
    place = Path(file).parent
    with tarfile.open(file) as archive:
        members = []
        size = 0
        for member in archive:
            _check(member)
            members.append(member)
            size += member.size
            if size > _MOST_BYTES or len(members) > _MOST_MEMBERS:
                raise tarfile.TarError(f"it holds more than {_MOST_BYTES:,} bytes, or {_MOST_MEMBERS:,} files")
        if action != "fetch" or not all(_unpacked(place / member.name, member) for member in members):
            archive.extractall(place, members, filter="data")


def _check(member: tarfile.TarInfo) -> None:
    path = Path(member.name)
    if not (member.isreg() or member.isdir()):
        raise tarfile.TarError(f"its member {printable(member.name)} is neither a file nor a folder")
    if path.is_absolute() or ".." in path.parts:
        raise tarfile.TarError(f"its member {printable(member.name)} would lie outside the folder")


def _unpacked(path: Path, member: tarfile.TarInfo) -> bool:
    """Return whether a member of an archive is there and complete: unpacking may have been interrupted."""
    if member.isfile():
        return path.is_file() and path.stat().st_size == member.size
    return path.exists()
