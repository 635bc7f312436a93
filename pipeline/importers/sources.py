"""Source names: each imported file is its own source, so that no two files are averaged."""

from __future__ import annotations

import re
from collections.abc import Collection

from hnas.errors import UsageError
from hnas.pipeline.io.importers import BENCHMARKS
from hnas.pipeline.store.manifests import RESERVED, SOURCE_NAME, Manifest, older_files
from hnas.pipeline.store.store import Store, digest


def readable(stem: str) -> str:
    """Return `stem` in characters that every file system accepts; older versions named their files this way."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", stem)


def _is_reserved(name: str) -> bool:
    return name.lower().startswith(RESERVED)  # some file systems ignore case


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
    """Return the name of the source that the file `file` is imported as: `wanted`, its earlier name, or a free name.

    A free name is the stem of the file, or the kind for a benchmark's file. `older` lists files that the import will
    replace. Raises `UsageError` for an invalid or reserved name.
    """
    taken = {manifest.source for manifest in manifests}
    if wanted is not None:
        if not SOURCE_NAME.fullmatch(wanted):
            raise UsageError(
                f"the source name {wanted!r:.120} must be 1 to 100 letters, digits, '.', '_' and '-', the first "
                "a letter or digit"
            )
        if _is_reserved(wanted):
            raise UsageError(
                f"the source name {wanted!r} begins like those of trainings and latencies made here; give another"
            )
        near = next((name for name in taken if name.lower() == wanted.lower() and name != wanted), None)
        if near is not None:
            raise UsageError(f"the store has a source {near}; give that name, or one that differs not only in case")
        return wanted
    before = sorted(m.source for m in manifests if (m.kind, m.file) == (kind, file))
    own = readable(stem).lstrip("._-")[:80] or kind
    if _is_reserved(own):
        own = f"{kind}-{own}"
    first = kind if kind in BENCHMARKS else own
    if before:
        return first if first in before else before[0]
    replaced = {path for manifest in manifests for path in manifest.replaces}
    others = [listed.parts for files in older_files(store, replaced).values() for listed in files]
    folders = {parts[1] for parts in others if parts not in older}
    used = {name.lower() for name in taken | folders}
    more = own if kind in BENCHMARKS else digest(file, size=4)
    names = (first, f"{first}-{more}"[:90], f"{first}-{digest(kind, file, size=4)}")
    return next((name for name in names if name.lower() not in used), f"{first}-{digest(kind, file)}")
