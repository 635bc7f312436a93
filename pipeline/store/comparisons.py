"""The comparisons of a store: many searches in a few files.

comparisons/<id>/comparison.json                    settings: methods, seeds, signals; the finished parts
comparisons/<id>/<k>-<first>-<last>.parquet         the queries of method k (from 0) with the seeds first to last
comparisons/<id>/<k>-<seed>-<seed>.partial          the queries of one search with unfinished trainings

The id is a digest of the settings, so the same request finds the results of an earlier one. A search of a comparison is
called `<id>-<k>-<seed>`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hnas.errors import HnasError
from hnas.pipeline.store.store import Store, digest

FOLDER = "comparisons"
RECORD = "comparison.json"
_PART = re.compile(r"(\d+)-(\d+)-(\d+)\.parquet")


@dataclass(frozen=True, order=True)
class Part:
    """The searches of method `k` with the seeds `first` to `last`, inclusive, stored in one file."""

    k: int
    first: int
    last: int

    @property
    def name(self) -> str:
        """The name of the file."""
        return f"{self.k}-{self.first}-{self.last}.parquet"

    @property
    def partial(self) -> str:
        """The name of the file while it is unfinished."""
        return f"{self.k}-{self.first}-{self.last}.partial"

    @property
    def seeds(self) -> range:
        """The seeds of the part."""
        return range(self.first, self.last + 1)


def comparison_name(settings: dict[str, Any]) -> str:
    """Return the name of the comparison with these `settings`, which exclude the amount of work requested."""
    return digest(json.dumps(settings, sort_keys=True), size=5)


def search_name(comparison: str, k: int, seed: int) -> str:
    """Return the name of a search of a comparison."""
    return f"{comparison}-{k}-{seed}"


def stored_parts(store: Store, comparison: str) -> list[Part]:
    """Return the finished parts of a comparison, in order."""
    matches = (_PART.fullmatch(name) for name in store.files(FOLDER, comparison))
    return sorted(Part(*map(int, match.groups())) for match in matches if match)


def lost_parts(store: Store, comparison: str) -> list[str]:
    """Return the names of the parts that a comparison's record lists but the store lacks; empty if it is unreadable."""
    with suppress(HnasError):
        listed = store.read_json(FOLDER, comparison, RECORD).get("parts")
        if isinstance(listed, list):
            stored = set(store.files(FOLDER, comparison))
            return sorted(name for name in listed if isinstance(name, str) and name not in stored)
    return []


def missing_parts(stored: Iterable[Part], k: int, seeds: int, block: int) -> Iterator[Part]:
    """Yield parts for the missing seeds of method `k` below `seeds`; no part crosses a multiple of `block`."""
    done = {seed for part in stored if part.k == k for seed in part.seeds}
    first: int | None = None
    for seed in range(seeds + 1):
        missing = seed < seeds and seed not in done
        if first is not None and (not missing or seed % block == 0):
            yield Part(k, first, seed - 1)
            first = None
        if missing and first is None:
            first = seed
