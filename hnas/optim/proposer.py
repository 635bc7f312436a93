"""Bayesian optimisation over the point that stands for (μ, ν): one seeded object with `suggest` and `register`."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from hnas.errors import UsageError, check_seed
from hnas.optim.objective import BOUNDS, Array

if TYPE_CHECKING:
    from hnas.optim.gaussian_process import GaussianProcess

ACQUISITIONS = ("ucb", "ei", "poi")

# Points of a Latin hypercube asked before the Gaussian process is trusted. Neither 3 nor 8 nor 10 are better on
# NAS-Bench-101 and NAS-Bench-301; see docs/paper.md.
_INITIAL = 5
# Points that lie close together propose different architectures, since those that were evaluated are left out, and an
# accuracy carries the noise of a training: white noise as large as the scatter of the answers keeps the process from
# bending through them. Chosen on the same two tables.
_NOISE = 1.0


class Optimiser:
    """Maximises a function of (`log10_mu`, `nu_quantile`) seen one value at a time.

    The first five points are a Latin hypercube drawn from `seed`, the others maximise the acquisition function under a
    Gaussian process (Matérn 5/2) whose white noise has the variance of the values, all within `BOUNDS`. The same seed
    and values give the same points. Raises `UsageError` for an unknown acquisition function.
    """

    def __init__(self, *, seed: int, acquisition_name: str = "ei") -> None:
        if acquisition_name not in ACQUISITIONS:
            raise UsageError(f"acquisition {acquisition_name!r} is unknown; choose one of {', '.join(ACQUISITIONS)}")
        check_seed(seed)
        self._seed, self._acquisition = seed, acquisition_name
        self._names = sorted(BOUNDS)
        self._low, high = np.array([BOUNDS[name] for name in self._names]).T
        self._width = high - self._low
        self._initial = latin_hypercube(_INITIAL, len(self._names), np.random.default_rng(seed))
        self._seen: list[tuple[Array, float]] = []
        self._process: GaussianProcess | None = None

    def begin(self, point: dict[str, float]) -> None:
        """Make `point` the first one, and the only one before the Gaussian process takes over."""
        self._initial = self._unit(point)[None]

    def suggest(self, pending: Collection[dict[str, float]] = ()) -> dict[str, float]:
        """The next point, by name of its coordinates, where others are `pending`: their values not told yet."""
        asked = len(self._seen) + len(pending)
        if asked < len(self._initial):
            return self._point(self._initial[asked])
        process = self._begun()
        return self._point(process.suggest([self._unit(point) for point in pending]))

    def register(self, point: dict[str, float], value: float) -> None:
        """Tell the value that was found at `point`."""
        unit = self._unit(point)
        self._seen.append((unit, value))
        if self._process is not None:
            self._process.register(unit, value)

    def mean(self, points: Array) -> Array:
        """The Gaussian process's mean (k,) at `points` (k, 2) of `BOUNDS`, in its order, given all that was told."""
        order = [list(BOUNDS).index(name) for name in self._names]
        return self._begun().mean((points[:, order] - self._low) / self._width)

    def _begun(self) -> GaussianProcess:
        """The process, which knows all that was told."""
        if self._process is None:
            from hnas.optim.gaussian_process import GaussianProcess

            self._process = GaussianProcess(
                self._names, seed=self._seed, acquisition_name=self._acquisition, noise=_NOISE
            )
            for unit, value in self._seen:
                self._process.register(unit, value)
        return self._process

    def _unit(self, point: dict[str, float]) -> Array:
        unit: Array = (np.array([point[name] for name in self._names]) - self._low) / self._width
        return unit

    def _point(self, unit: Array) -> dict[str, float]:
        return dict(zip(self._names, (self._low + self._width * unit).tolist(), strict=True))


def latin_hypercube(n: int, d: int, random: np.random.Generator) -> Array:
    """`n` points (n, d) of the unit cube, of which each of the `n` slices along each axis holds one.

    The points of `scipy.stats.qmc.LatinHypercube`, whose import takes longer than a search's first query.
    """
    (random,) = random.spawn(1)
    offsets = random.uniform(size=(n, d))
    slices = np.tile(np.arange(1, n + 1), (d, 1))
    for row in slices:
        random.shuffle(row)
    return (slices.T - offsets) / n
