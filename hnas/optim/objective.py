"""The objective of HNAS, eq. (7), and the range in which its parameters μ and ν are searched.

    min_A  κ(A) / M(A) + μ F(M(A)² − ν),   F(x) = |x|^{2t},   t > 0

M is a training-free metric and κ the condition number of Θ₀. `M = |metric|`, because (7) bounds a generalisation error
by a norm; GraSP is signed, and a negative M would win every minimum. The objective is infinite where κ is, so a network
with singular Θ₀ is never proposed.

Source: Shu, Dai, Wu, Low, NeurIPS 2022, eq. (7); Corollaries 1 and 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hnas.errors import UsageError

Array = NDArray[np.float64]

#: The search rectangle, mapped to (μ, ν) by `SearchRange`. Beyond a factor of 30, one of the two terms of (7) outweighs
#: the other in the median. Neither 10^±1, ±2, ±3 and 10^−3 to 10 nor other scales of ν are clearly better on
#: NAS-Bench-101 and NAS-Bench-301; see docs/paper.md.
BOUNDS = {"log10_mu": (-1.5, 1.5), "nu_quantile": (0.0, 1.0)}


def objective(metric: Array, kappa: Array, *, mu: float, nu: float, t: float = 1.0) -> Array:
    """Return eq. (7) for arrays `metric` (n,) and `kappa` (n,): the objective (n,), lower is better.

    `inf` where κ is infinite or not positive, or M is zero or not a number. The authors' own program uses t = 1/2.
    Raises `UsageError` unless 0 < t ≤ 8.

    >>> import numpy as np
    >>> from hnas import objective
    >>> objective(np.array([2.0, 2.0, 0.0]), np.array([8.0, np.inf, 1.0]), mu=1.0, nu=3.0)
    array([ 5., inf, inf])
    """
    check_exponent(t)
    m = np.abs(metric)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        value = kappa / m + mu * np.abs(m * m - nu) ** (2 * t)
    return np.where(np.isfinite(kappa) & (kappa > 0) & (m > 0) & ~np.isnan(value), value, np.inf)


def check_exponent(t: object) -> None:
    """Raise `UsageError` unless 0 < t ≤ 8; beyond that, |M² − ν|^{2t} exceeds the range of a float."""
    if not isinstance(t, int | float) or not 0 < t <= 8:
        shown = f"{t:g}" if isinstance(t, int | float) else repr(t)
        raise UsageError(f"t of F(x) = |x|^(2t) must satisfy 0 < t <= 8, got {shown}; the default is 1")


@dataclass(frozen=True)
class SearchRange:
    """A range of (μ, ν) that is meaningful for a pool at any scale of its metric.

    ν is a quantile of the pool's M², because M² spans six orders of magnitude and a linear range would waste the
    search. μ is `10^[−1.5, 1.5]` times the ratio of the medians of the two terms of (7), so that they weigh equally at
    0.
    """

    squares: Array
    ratios: Array
    t: float

    @classmethod
    def of(cls, metric: Array, kappa: Array, t: float = 1.0) -> SearchRange:
        """Return the range for a pool's `metric` (n,) and `kappa` (n,), ignoring rows that (7) never proposes.

        Raises `UsageError` where fewer than two rows remain.
        """
        check_exponent(t)
        m = np.abs(np.asarray(metric, dtype=float))
        kappa = np.asarray(kappa, dtype=float)
        usable = np.isfinite(m) & (m > 0) & np.isfinite(kappa) & (kappa > 0)
        if usable.sum() < 2:
            raise UsageError(
                "the objective (7) needs at least 2 architectures with a finite condition number, but the pool has "
                f"{int(usable.sum())}"
            )
        return cls(np.sort(m[usable] ** 2), kappa[usable] / m[usable], t)

    def point(self, log10_mu: float, nu_quantile: float) -> tuple[float, float]:
        """Return (μ, ν) at a point of `BOUNDS`."""
        n = len(self.squares)
        place = (n - 1) * min(max(nu_quantile, 0.0), 1.0)
        below = int(place)
        nu = float(np.quantile(self.squares[below : below + 2], place - below))
        middle = np.array([self._distance(nu, rank) for rank in {(n + 1) // 2, n // 2 + 1}])
        penalty = float(np.median(middle ** (2 * self.t)))
        scale = self._median_ratio / penalty if penalty > 0 else 1.0
        return 10.0**log10_mu * scale, nu

    def place(self, mu: float, nu: float) -> tuple[float, float]:
        """Return the point (`log10_mu`, `nu_quantile`) of (μ, ν), the inverse of `point`.

        If several M² equal ν, the middle one is taken.
        """
        n = len(self.squares)
        low, high = (int(np.searchsorted(self.squares, nu, side=side)) for side in ("left", "right"))
        if low < high:
            quantile = (low + high - 1) / 2 / (n - 1)
        else:
            below = min(max(low - 1, 0), n - 2)
            step = self.squares[below + 1] - self.squares[below]
            quantile = (below + (nu - self.squares[below]) / step) / (n - 1)
        quantile = float(min(max(quantile, 0.0), 1.0))
        return float(np.log10(mu / self.point(0.0, quantile)[0])), quantile

    def _distance(self, nu: float, rank: int) -> float:
        """Return the `rank`-th smallest |M² − ν| by bisection: the `rank` nearest of sorted numbers are adjacent."""
        low, high = 0, len(self.squares) - rank
        while low < high:
            first = (low + high) // 2
            if nu - self.squares[first] > self.squares[first + rank] - nu:
                low = first + 1
            else:
                high = first
        return float(max(abs(nu - self.squares[low]), abs(self.squares[low + rank - 1] - nu)))

    @cached_property
    def _median_ratio(self) -> float:
        return float(np.median(self.ratios))
