"""200 cells of NAS-Bench-201 with made-up accuracies: a small benchmark on which search methods are tried."""

from __future__ import annotations

import numpy as np

from hnas import ArrayPool, Search, search_spaces
from hnas.optim.evaluations import Query

SPACE = search_spaces["nasbench201"]
CELLS = sorted(SPACE.sample(200, seed=11))
_NOISE = dict(zip(SPACE.enumerate(), np.random.default_rng(5).normal(size=15_625).tolist(), strict=True))
_WORTH = np.array([0.0, 1.5, 2.0, 4.0, 0.5])


def accuracy(arch: str) -> float:
    """A number between 40 and 100 that convolutions raise, with noise."""
    return float(60 + _WORTH[list(SPACE.encode(arch))].sum() + _NOISE[arch])


def pool_of(archs: list[str]) -> ArrayPool:
    return ArrayPool(archs, {}, [SPACE.canonical(arch) for arch in archs], SPACE)


def made(method: str, pool: ArrayPool, queries: int, *, seed: int = 3, **options: object) -> list[Query]:
    """The queries that `method` makes on `pool`, told `accuracy`."""
    search = Search(pool, method, seed=seed, **options)
    while len(search.queries) < queries and (proposal := search.ask()) is not None:
        search.tell(proposal, accuracy(proposal.arch))
    return search.queries
