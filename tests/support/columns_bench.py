"""The 200 cells of `cells_bench` with synthetic columns, which have ties, signs, missing and infinite values."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from hnas import ArrayPool
from tests.support.cells_bench import CELLS, SPACE, accuracy

_RANDOM = np.random.default_rng(8)
_QUALITY = np.array([accuracy(arch) for arch in CELLS])


def _metric(weight: float) -> np.ndarray:
    return np.exp(weight * (_QUALITY - _QUALITY.mean()) / _QUALITY.std() + _RANDOM.normal(size=len(CELLS)))


CLASSES = [SPACE.canonical(arch) for arch in CELLS]
COLUMNS: dict[str, np.ndarray] = {
    "trace": 1000 * _metric(0.4),
    "kappa": np.where(_RANDOM.random(len(CELLS)) < 0.1, np.inf, 100 * _metric(-0.5)),
    "grad_norm": 50 * _metric(0.3),
    "snip": 80 * _metric(0.3),
    "grasp": _RANDOM.normal(size=len(CELLS)) * _metric(0.2),
    "params": np.round(3 * _metric(0.5)),
    "spotty": np.where(_RANDOM.random(len(CELLS)) < 0.3, np.nan, np.round(_QUALITY)),
}


def columns_pool(columns: Mapping[str, ArrayLike] = COLUMNS, *, first: int = len(CELLS)) -> ArrayPool:
    """A pool of the `first` cells."""
    chosen = {name: np.asarray(column)[:first] for name, column in columns.items()}
    return ArrayPool(CELLS[:first], chosen, CLASSES[:first], SPACE)
