"""Bayesian optimisation over the points that stand for (μ, ν), seeded, with `suggest` and `register`."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from hnas.errors import UsageError, check_seed
from hnas.optim.objective import BOUNDS, Array

if TYPE_CHECKING:
    from hnas.optim.gaussian_process import GaussianProcess

ACQUISITIONS = ("ucb", "ei", "poi")

# Points of a Latin hypercube before the Gaussian process takes over. Neither 3 nor 8 nor 10 is better on NAS-Bench-101
# and NAS-Bench-301; see docs/paper.md.
_INITIAL = 5
# Nearby points propose different architectures, since evaluated ones are excluded, and accuracies carry the noise of
# training. White noise with the variance of the values keeps the process from overfitting. Chosen on the same two
# tables.
_NOISE = 1.0


class Optimiser:
    """Maximises a function of (`log10_mu`, `nu_quantile`) observed one value at a time.

    The first five points are a Latin hypercube drawn from `seed`. Later points maximise the acquisition function under
    a Gaussian process (Matérn 5/2) whose white noise has the variance of the values, within `BOUNDS`. The same seed and
    values give the same points. Raises `UsageError` for an unknown acquisition function.
    """

    def __init__(self, *, seed: int, acquisition_name: str = "ei") -> None:
        if acquisition_name not in ACQUISITIONS:
            raise UsageError(f"the acquisition {acquisition_name!r} is unknown; choose from {', '.join(ACQUISITIONS)}")
        check_seed(seed)
        self._seed, self._acquisition = seed, acquisition_name
        self._names = sorted(BOUNDS)
        self._low, high = np.array([BOUNDS[name] for name in self._names]).T
        self._width = high - self._low
        self._initial = latin_hypercube(_INITIAL, len(self._names), np.random.default_rng(seed))
        self._seen: list[tuple[Array, float]] = []
        self._process: GaussianProcess | None = None

    def begin(self, point: dict[str, float]) -> None:
        """Make `point` the first point, and the only one before the Gaussian process takes over."""
        self._initial = self._unit(point)[None]

    def suggest(self, pending: Collection[dict[str, float]] = ()) -> dict[str, float]:
        """Return the next point as coordinates by name; `pending` are suggested points whose values are unknown."""
        asked = len(self._seen) + len(pending)
        if asked < len(self._initial):
            return self._point(self._initial[asked])
        process = self._begun()
        return self._point(process.suggest([self._unit(point) for point in pending]))

    def register(self, point: dict[str, float], value: float) -> None:
        """Add the value observed at `point`."""
        unit = self._unit(point)
        self._seen.append((unit, value))
        if self._process is not None:
            self._process.register(unit, value)

    def mean(self, points: Array) -> Array:
        """Return the Gaussian process's mean (k,) at `points` (k, 2), coordinates ordered as in `BOUNDS`."""
        order = [list(BOUNDS).index(name) for name in self._names]
        return self._begun().mean((points[:, order] - self._low) / self._width)

    def _begun(self) -> GaussianProcess:
        """Return the process, with all observed values."""
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
    """Return `n` points (n, d) in the unit cube, with one in each of the `n` slices along each axis.

    The points are those of `scipy.stats.qmc.LatinHypercube`, which takes longer to import than a search's first query.
    """
    (random,) = random.spawn(1)
    offsets = random.uniform(size=(n, d))
    slices = np.tile(np.arange(1, n + 1), (d, 1))
    for row in slices:
        random.shuffle(row)
    return (slices.T - offsets) / n
