"""Warm starts: the performances that a search knew before its first query, in `warm.parquet` next to its record.

They are kept with the search, so that it resumes exactly even if their source or file is gone.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from hnas.errors import HnasError
from hnas.pipeline.store.store import Store, digest

FILE = "warm.parquet"


def digest_of(known: Mapping[str, float]) -> str:
    """Return a digest of these values that does not depend on their order."""
    return digest(*(f"{arch} {value!r}" for arch, value in sorted(known.items())))


def write_known(store: Store, known: Mapping[str, float], *folder: str) -> None:
    """Keep the values in a folder, unless it has some already."""
    if not store.exists(*folder, FILE):
        values = pa.array(known.values(), pa.float64())
        store.write_table(pa.table({"arch": pa.array(known, pa.string()), "value": values}), *folder, FILE)


def read_known(store: Store, named: str, *folder: str) -> dict[str, float]:
    """Return the values in a folder. Raises `HnasError` if they are missing, damaged, or do not match the digest."""
    table = store.read_table(["arch", "value"], *folder, FILE)
    known = dict(zip(table["arch"].to_pylist(), table["value"].to_pylist(), strict=True))
    if digest_of(known) != named:
        raise HnasError(f"{store.path(*folder, FILE)} has other values than the search began with; restore it")
    return known
