"""What the tests of importers share: an import that works, and one that is refused and leaves nothing."""

from __future__ import annotations

from pathlib import Path

from tests.support.command_line import hnas


def imported(source: str, store: Path, path: Path) -> str:
    """What the import of a good file prints."""
    done = hnas("import", source, path, "--store", store)
    assert (done.status, done.err) == (0, "")
    return done.out


def refused(source: str, store: Path, path: Path, words: str) -> str:
    """The one sentence about a faulty file, which begins with its path and has `words` in it; no store is made."""
    done = hnas("import", source, path, "--store", store)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"hnas: {path}")
    assert words in done.err
    assert done.err.count("\n") == 1
    assert not store.exists()
    return done.err
