"""Files that figures are drawn to."""

from __future__ import annotations

from pathlib import Path

from hnas.errors import UsageError

_SUFFIXES = (".png", ".pdf", ".svg")


def check_figure(path: Path) -> None:
    """Raise `UsageError` unless a figure can be written to `path`: a known suffix, a folder that exists."""
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"--plot {path} has no suffix that says how to draw; end it with {', '.join(_SUFFIXES)}")
    if not path.parent.is_dir():
        raise UsageError(f"--plot {path} lies in a folder that does not exist; create {path.parent} first")
