"""A successful and a rejected import, for the tests of importers."""

from __future__ import annotations

from pathlib import Path

from tests.support.command_line import hnas


def imported(source: str, store: Path, path: Path) -> str:
    """Import a valid file and return the output."""
    done = hnas("import", source, path, "--store", store)
    assert (done.status, done.err) == (0, "")
    return done.out


def refused(source: str, store: Path, path: Path, words: str) -> str:
    """Return the error for an invalid file: one sentence with its path first and `words`. It creates no store."""
    done = hnas("import", source, path, "--store", store)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"hnas: {path}")
    assert words in done.err
    assert done.err.count("\n") == 1
    assert not store.exists()
    return done.err
