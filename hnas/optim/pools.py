"""Pools: the candidates of a search, with the columns that are known before any evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hnas.errors import UsageError, did_you_mean
from hnas.optim.objective import Array, objective
from hnas.spaces.protocols import SearchSpace

#: One integer per canonical class.
Classes = NDArray[np.int64]


class Solution(NamedTuple):
    """A minimiser of (7): the architecture and the value of the objective."""

    arch: str
    objective: float


class Minimiser(Protocol):
    """Minimises eq. (7) over a pool for one search, which removes candidates as it evaluates them.

    If it limits a column, `terms` and `solve` consider only candidates whose value there is at most `limit`.
    """

    limit: float

    def limited(self) -> Array:
        """Return the values (n,) of all candidates in the limited column, in any order."""
        ...

    def terms(self) -> tuple[Array, Array]:
        """Return M (n,) and κ (n,) of the candidates within the limit, in any order."""
        ...

    def solve(self, *, mu: float, nu: float, t: float) -> Solution | None:
        """Return the minimiser of (7) among the remaining candidates within the limit, ties by name.

        None where (7) is infinite for all.
        """
        ...

    def take(self, arch: str) -> None:
        """Remove `arch` and all members of its class."""
        ...


class Pool(Protocol):
    """The architectures (n) that a search may evaluate."""

    @property
    def archs(self) -> Sequence[str]:
        """Their names (n), sorted, as spelled in tables."""
        ...

    @property
    def classes(self) -> Classes:
        """The canonical classes (n): architectures with the same number compute the same function."""
        ...

    @property
    def space(self) -> SearchSpace | None:
        """The common space of all candidates, if there is one."""
        ...

    def position(self, arch: str) -> int | None:
        """Return the index of `arch` among the names, None if it is not a candidate."""
        ...

    def column(self, expression: str) -> Array:
        """Return the values (n,) of a column, NaN where missing. Raises `UsageError` for an unknown column."""
        ...

    def minimiser(self, metric: str, limited: str | None = None) -> Minimiser:
        """Return a minimiser of eq. (7) with `M = |metric|` that can limit the column `limited`.

        Raises `UsageError` for an unknown column.
        """
        ...


class ArrayPool:
    """A pool in memory: names (n), columns by name (n,), and canonical classes (n), by default one per name.

    Eq. (7) needs a column `kappa`. Methods that edit architectures need the `space`. Raises `UsageError` where lengths
    differ or a name occurs twice.
    """

    def __init__(
        self,
        archs: Sequence[str],
        columns: Mapping[str, ArrayLike],
        classes: Sequence[str] | None = None,
        space: SearchSpace | None = None,
    ) -> None:
        classes = archs if classes is None else classes
        arrays = {name: np.asarray(column, dtype=float) for name, column in columns.items()}
        for name, column in {**arrays, "classes": classes}.items():
            if len(column) != len(archs):
                raise UsageError(f"the pool must have one value of {name} per name, got {len(column)} for {len(archs)}")
        twice = [arch for arch, n in Counter(archs).items() if n > 1]
        if twice:
            raise UsageError(f"each architecture of a pool needs exactly one row, but {twice[0]!r} has several")
        order = sorted(range(len(archs)), key=archs.__getitem__)
        self.archs: Sequence[str] = [archs[i] for i in order]
        numbers: dict[str, int] = {}
        self.classes: Classes = np.array([numbers.setdefault(classes[i], len(numbers)) for i in order], dtype=np.int64)
        self.space = space
        self._columns = {name: column[order] for name, column in arrays.items()}
        self._positions = {arch: i for i, arch in enumerate(self.archs)}

    def position(self, arch: str) -> int | None:
        """See `Pool`."""
        return self._positions.get(arch)

    def column(self, expression: str) -> Array:
        """See `Pool`. `expression` is the name of a column, or `-` and a name."""
        name = expression.removeprefix("-")
        if name not in self._columns:
            raise UsageError(
                f"the pool has no column {name!r}; it has {', '.join(self._columns)}{did_you_mean(name, self._columns)}"
            )
        return self._columns[name] if name == expression else -self._columns[name]

    def score_seconds(self, expression: str) -> Array:
        """Return the seconds (n,) that the score `expression` took, its column `<score>_seconds`; 0 where unknown."""
        known = self._columns.get(f"{expression.removeprefix('-')}_seconds")
        return np.zeros(len(self.archs)) if known is None else np.nan_to_num(known)

    def minimiser(self, metric: str, limited: str | None = None) -> Minimiser:
        """See `Pool`."""
        column = np.zeros(len(self.archs)) if limited is None else self.column(limited)
        return _ArrayMinimiser(self, self.column(metric), self.column("kappa"), column)


class _ArrayMinimiser:
    def __init__(self, pool: ArrayPool, metric: Array, kappa: Array, limited: Array) -> None:
        self._pool, self._metric, self._kappa, self._limited = pool, metric, kappa, limited
        self._free = ~np.isnan(limited)
        self.limit = np.inf

    def limited(self) -> Array:
        usable = np.isfinite(objective(self._metric, self._kappa, mu=0.0, nu=0.0)) & ~np.isnan(self._limited)
        return self._limited[usable]

    def terms(self) -> tuple[Array, Array]:
        within = self._limited <= self.limit
        return self._metric[within], self._kappa[within]

    def solve(self, *, mu: float, nu: float, t: float) -> Solution | None:
        free = self._free & (self._limited <= self.limit)
        value = np.where(free, objective(self._metric, self._kappa, mu=mu, nu=nu, t=t), np.inf)
        best = int(np.argmin(value)) if len(value) else 0
        return Solution(self._pool.archs[best], float(value[best])) if len(value) and np.isfinite(value[best]) else None

    def take(self, arch: str) -> None:
        position = self._pool.position(arch)
        assert position is not None  # solutions are candidates
        self._free[self._pool.classes == self._pool.classes[position]] = False
