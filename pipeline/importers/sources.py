"""The name that a file is imported under: each file is a source of its own, so that none is averaged with another."""

from __future__ import annotations

import re
from collections.abc import Collection

from hnas.errors import UsageError
from hnas.pipeline.store.manifests import SOURCE_NAME, Manifest, older_files
from hnas.pipeline.store.store import Store, digest

#: Files that people write, named after themselves; those of benchmarks are named after the benchmark.
WRITTEN = ("csv", "parquet", "columns")


def readable(stem: str) -> str:
    """`stem` in characters that every file system takes; older versions called their files so."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", stem)


def choose_source(
    store: Store,
    manifests: list[Manifest],
    kind: str,
    file: str,
    stem: str,
    *,
    wanted: str | None = None,
    older: Collection[tuple[str, ...]] = (),
) -> str:
    """The source that the file `file` is imported as: `wanted`, or what it was before, or a name that is free.

    That is the stem of the file, or the kind where it is a benchmark's. `older` are files that the import will replace.
    Raises `UsageError` for a name that cannot be.
    """
    taken = {manifest.source for manifest in manifests}
    if wanted is not None:
        if not SOURCE_NAME.fullmatch(wanted):
            raise UsageError(
                f"the name {wanted!r:.120} cannot be that of a source: give 1 to 100 letters, digits, '.', "
                "'_' and '-', the first a letter or digit"
            )
        near = next((name for name in taken if name.lower() == wanted.lower() and name != wanted), None)
        if near is not None:
            raise UsageError(f"the store has a source {near}; give that name, or one that differs in more than case")
        return wanted
    before = sorted(m.source for m in manifests if (m.kind, m.file) == (kind, file))
    own = readable(stem).lstrip("._-")[:80] or kind
    first = own if kind in WRITTEN else kind
    if before:
        return first if first in before else before[0]
    replaced = {path for manifest in manifests for path in manifest.replaces}
    others = [listed.parts for files in older_files(store, replaced).values() for listed in files]
    folders = {parts[1] for parts in others if parts not in older}
    used = {name.lower() for name in taken | folders}
    more = own if kind not in WRITTEN else digest(file, size=4)
    names = (first, f"{first}-{more}"[:90], f"{first}-{digest(kind, file, size=4)}")
    return next((name for name in names if name.lower() not in used), f"{first}-{digest(kind, file)}")
