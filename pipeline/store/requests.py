"""Parts that list architectures: those requested of a run, and those of a space with their static columns."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from hnas.pipeline.store.store import Store, digest
from hnas.spaces import SearchSpace


def write_missing(store: Store, requested: Sequence[tuple[str, str]], space: SearchSpace | None, *folder: str) -> bool:
    """Write those of `requested` that `folder` lacks, with static columns of `space`; return whether there were any.

    `requested` lists pairs of an architecture and its canonical form. Requires the lock of the folder.
    """
    stored = store.read_tables(["arch"], *folder)
    present = set(stored["arch"].to_pylist()) if stored else set()
    missing = [pair for pair in requested if pair[0] not in present]
    if not missing:
        return False
    columns: dict[str, list[object]] = {
        "arch": [arch for arch, _ in missing],
        "canonical": [canonical for _, canonical in missing],
    }
    if space is not None:
        described = [space.describe(arch) for arch, _ in missing]
        columns |= {name: [row[name] for row in described] for name in described[0]}
    store.write_table(pa.table(columns), *folder, digest(*(arch for arch, _ in missing)) + ".parquet")
    return True
