"""Pools: the candidates of a search, with the numbers that are known of them before any is evaluated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hnas.errors import UsageError, did_you_mean
from hnas.optim.objective import Array, objective
from hnas.spaces.protocols import SearchSpace

#: A number for each canonical class.
Classes = NDArray[np.int64]


class Solution(NamedTuple):
    """A minimiser of (7): the architecture and the objective's value."""

    arch: str
    objective: float


class Minimiser(Protocol):
    """Solves eq. (7) over a pool for one search, which takes candidates out as it evaluates them.

    Where it limits a column, only candidates whose number there is at most `limit` are those of `terms` and `solve`.
    """

    limit: float

    def limited(self) -> Array:
        """The numbers (n,) of all candidates in the column that is limited, in no order."""
        ...

    def terms(self) -> tuple[Array, Array]:
        """M (n,) and κ (n,) of the candidates within the limit, in no order."""
        ...

    def solve(self, *, mu: float, nu: float, t: float) -> Solution | None:
        """The minimiser of (7) among the candidates within the limit that are not taken, ties by name.

        None where (7) is infinite for all.
        """
        ...

    def take(self, arch: str) -> None:
        """Leave `arch` and the members of its class out from now on."""
        ...


class Pool(Protocol):
    """The architectures (n) that a search may evaluate."""

    @property
    def archs(self) -> Sequence[str]:
        """Their names (n), sorted, as tables spell them."""
        ...

    @property
    def classes(self) -> Classes:
        """The canonical classes (n): architectures of one number compute the same function."""
        ...

    @property
    def space(self) -> SearchSpace | None:
        """The space of all of them, where there is one."""
        ...

    def position(self, arch: str) -> int | None:
        """The index of `arch` among the names, or None where it is no candidate."""
        ...

    def column(self, expression: str) -> Array:
        """The numbers (n,) of a column, NaN where there is none. Raises `UsageError` for an unknown column."""
        ...

    def minimiser(self, metric: str, limited: str | None = None) -> Minimiser:
        """Eq. (7) with `M = |metric|` over the candidates, of which it may limit the column `limited`.

        Raises `UsageError` for an unknown column.
        """
        ...


class ArrayPool:
    """A pool in memory: names (n), columns by name (n,), the names' canonical classes (n) unless each is its own.

    Eq. (7) needs a column `kappa`. Methods that edit architectures need the `space`. Raises `UsageError` where the
    lengths differ or a name comes twice.
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
        for name, found in {**arrays, "classes": classes}.items():
            if len(found) != len(archs):
                raise UsageError(f"the pool has {len(archs)} names and {len(found)} values of {name}")
        twice = [arch for arch, n in Counter(archs).items() if n > 1]
        if twice:
            raise UsageError(f"the pool has {twice[0]!r} more than once; each architecture needs one row")
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
        assert position is not None  # what `solve` found is of the pool
        self._free[self._pool.classes == self._pool.classes[position]] = False
