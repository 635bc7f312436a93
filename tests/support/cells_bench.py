"""A small benchmark for search methods: 200 NAS-Bench-201 cells with synthetic accuracies."""

from __future__ import annotations

import numpy as np

from hnas import ArrayPool, Search, search_spaces
from hnas.optim.evaluations import Query

SPACE = search_spaces["nasbench201"]
CELLS = sorted(SPACE.sample(200, seed=11))
_NOISE = dict(zip(SPACE.enumerate(), np.random.default_rng(5).normal(size=15_625).tolist(), strict=True))
_WORTH = np.array([0.0, 1.5, 2.0, 4.0, 0.5])


def accuracy(arch: str) -> float:
    """A noisy accuracy between 40 and 100 that increases with the number of convolutions."""
    return float(60 + _WORTH[list(SPACE.encode(arch))].sum() + _NOISE[arch])


def pool_of(archs: list[str]) -> ArrayPool:
    return ArrayPool(archs, {}, [SPACE.canonical(arch) for arch in archs], SPACE)


def run_method(method: str, pool: ArrayPool, queries: int, *, seed: int = 3, **options: object) -> list[Query]:
    """The queries of `method` on `pool`, with `accuracy` as the oracle."""
    search = Search(pool, method, seed=seed, **options)
    while len(search.queries) < queries and (proposal := search.ask()) is not None:
        search.tell(proposal, accuracy(proposal.arch))
    return search.queries
