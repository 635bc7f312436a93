"""Checks of input files before they are read: a pipe, a socket or a device may never end."""

from __future__ import annotations

import stat
from pathlib import Path

from hnas.errors import UsageError
from hnas.pipeline.io.printable import printable

# Paths that a shell uses for redirections, as in `--architectures <(head -100 list.txt)`.
_OF_THE_SHELL = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")


def other_kind(mode: int) -> str | None:
    """Return the kind of a file with mode `st_mode` that is neither a regular file nor a folder; otherwise None."""
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else None


def regular_file(path: Path, needed: str = "a file", *, shell_pipe: bool = False) -> None:
    """Raise `UsageError` if `path` is a pipe, a socket or a device, or a link to one.

    `needed` says what would be right. Folders and missing paths pass; whoever opens them reports them. With
    `shell_pipe`, a pipe made by the shell (`<(command)`, `/dev/stdin`) passes too; the caller must then limit how much
    it reads.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return
    kind = other_kind(mode)
    if kind is None or (shell_pipe and stat.S_ISFIFO(mode) and str(path).startswith(_OF_THE_SHELL)):
        return
    raise UsageError(f"{printable(path)} is {kind}, which may never end; give {needed}")
