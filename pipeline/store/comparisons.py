"""The comparisons of a store: many searches in few files.

comparisons/<id>/comparison.json                    settings: methods, seeds, what guides them; the parts made
comparisons/<id>/<k>-<first>-<last>.parquet         the queries of the method k (from 0) with the seeds first to last
comparisons/<id>/<k>-<seed>-<seed>.partial          the same of one search whose trainings are not all done

The id is a digest of the settings, so that the same request finds what an earlier one stored. A search of a comparison
is called `<id>-<k>-<seed>`.
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
    """The searches of the method `k` with the seeds `first` to `last`, all included, which are one file."""

    k: int
    first: int
    last: int

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.k}-{self.first}-{self.last}.parquet"

    @property
    def partial(self) -> str:
        """The name of its file as long as it is unfinished."""
        return f"{self.k}-{self.first}-{self.last}.partial"

    @property
    def seeds(self) -> range:
        """The seeds."""
        return range(self.first, self.last + 1)


def comparison_name(settings: dict[str, Any]) -> str:
    """The name of the comparison with these `settings`, without those that only say how much of it is wanted."""
    return digest(json.dumps(settings, sort_keys=True), size=5)


def search_name(comparison: str, k: int, seed: int) -> str:
    """The name of a search of a comparison."""
    return f"{comparison}-{k}-{seed}"


def stored_parts(store: Store, comparison: str) -> list[Part]:
    """The finished parts of a comparison, in order."""
    found = (_PART.fullmatch(name) for name in store.files(FOLDER, comparison))
    return sorted(Part(*map(int, match.groups())) for match in found if match)


def lost_parts(store: Store, comparison: str) -> list[str]:
    """The names of the parts that a comparison once had, by its record, and has not; none where that cannot be read."""
    with suppress(HnasError):
        listed = store.read_json(FOLDER, comparison, RECORD).get("parts")
        if isinstance(listed, list):
            stored = set(store.files(FOLDER, comparison))
            return sorted(name for name in listed if isinstance(name, str) and name not in stored)
    return []


def missing_parts(stored: Iterable[Part], k: int, seeds: int, block: int) -> Iterator[Part]:
    """What the method `k` lacks of the seeds below `seeds`: parts of neighbours, none beyond a multiple of `block`."""
    done = {seed for part in stored if part.k == k for seed in part.seeds}
    first: int | None = None
    for seed in range(seeds + 1):
        wanted = seed < seeds and seed not in done
        if first is not None and (not wanted or seed % block == 0):
            yield Part(k, first, seed - 1)
            first = None
        if wanted and first is None:
            first = seed
