"""Surrogate models of the candidates' performance: a Gaussian process and a random forest over their columns.

Both take the standardised features X (n, d) of all candidates, and predict the mean and standard deviation (n,) of the
performance from evaluations at some of the rows.
"""

from __future__ import annotations

from itertools import product
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hnas.optim.objective import Array

# Candidates per batch of predictions, so that their kernel fits a processor's cache.
_CHUNK = 8192


class Surrogate(Protocol):
    """A model of the candidates' performance."""

    def predict(self, rows: NDArray[np.int64], values: Array) -> tuple[Array, Array]:
        """Return the mean and standard deviation (n,) at all candidates, given values (k,) observed at `rows` (k,)."""
        ...


class GaussianProcess:
    """A linear function of the features plus a smooth one:

        y = √s f(x) + ε,  Cov(f(x), f(x')) = (w xᵀx'/d + Matérn_{5/2}(‖x − x'‖ / ℓ√d)) / (1 + w),  Var(ε) = s σ²

    with w = 3 and zero mean; ℓ in {¼, ½, 1, 2}, σ² in {0.01, 0.05, 0.2} and s maximise the likelihood. A prediction
    takes O(n k²) time and O(n) memory for k values.
    """

    lengths = (0.25, 0.5, 1.0, 2.0)
    noises = (0.01, 0.05, 0.2)
    slope = 3.0

    def __init__(self, features: Array) -> None:
        self._x, self._square = features, np.mean(features**2, axis=1)

    def predict(self, rows: NDArray[np.int64], values: Array) -> tuple[Array, Array]:
        """See `Surrogate`."""
        seen = self._x[rows]
        length, noise = max(product(self.lengths, self.noises), key=lambda pair: self.likelihood(seen, values, *pair))
        factor = np.linalg.cholesky(self.kernel(seen, seen, length) + noise * np.eye(len(rows)))
        inverse = np.linalg.inv(factor)
        white = inverse @ values
        scale = float(white @ white) / len(rows)
        mean, variance = np.empty(len(self._x)), np.empty(len(self._x))
        for start in range(0, len(self._x), _CHUNK):
            part = slice(start, start + _CHUNK)
            whitened = self.kernel(self._x[part], seen, length, self._square[part]) @ inverse.T
            mean[part] = whitened @ white
            variance[part] = (1 + self.slope * self._square[part]) / (1 + self.slope)
            variance[part] -= np.einsum("ij,ij->i", whitened, whitened)
        return mean, np.sqrt(scale * np.maximum(variance, 1e-9))

    def kernel(self, a: Array, b: Array, length: float, square: Array | None = None) -> Array:
        """Return Cov(f(a), f(b)) (p, q) between points `a` (p, d), with mean `square`s (p,), and `b` (q, d)."""
        square = np.mean(a**2, axis=1) if square is None else square
        inner = a @ (b / a.shape[1]).T
        r = -2 * inner
        r += square[:, None]
        r += np.mean(b**2, axis=1)
        np.sqrt(np.maximum(r, 0, out=r), out=r)
        r *= np.sqrt(5) / length
        covariance: Array = r * (1 / 3)
        covariance += 1
        covariance *= r
        covariance += 1  # 1 + r + r²/3 without temporary arrays
        covariance *= np.exp(np.negative(r, out=r), out=r)
        inner *= self.slope
        covariance += inner
        covariance /= 1 + self.slope
        return covariance

    def likelihood(self, seen: Array, values: Array, length: float, noise: float) -> float:
        """Return the log-likelihood at its maximum over s, up to a constant."""
        factor = np.linalg.cholesky(self.kernel(seen, seen, length) + noise * np.eye(len(values)))
        white = np.linalg.solve(factor, values)
        return float(-len(values) / 2 * np.log(white @ white + 1e-300) - np.log(np.diag(factor)).sum())


class Forest:
    """A random forest of 32 trees on bootstrap samples; the deviation is that of the trees' predictions.

    Features are rounded to steps of 1/8, since a forest fitted to a few values is a step function anyway. Of 423,624
    cells of NAS-Bench-101, only some thousand then differ, and only these are predicted.
    """

    trees = 32

    def __init__(self, features: Array, *, seed: int) -> None:
        self._seed = seed
        steps = np.clip(np.round(features * 8), -60, 60).astype(np.int8)
        codes = np.ascontiguousarray(steps).view(np.dtype((np.void, steps.shape[1])))[:, 0]
        _, first, self._place = np.unique(codes, return_index=True, return_inverse=True)
        self._distinct = steps[first].astype(np.float32)

    def predict(self, rows: NDArray[np.int64], values: Array) -> tuple[Array, Array]:
        """See `Surrogate`."""
        from sklearn.ensemble import RandomForestRegressor  # takes a second to import

        forest = RandomForestRegressor(self.trees, random_state=self._seed % 2**32)
        forest.fit(self._distinct[self._place[rows]], values)
        answers = np.stack([tree.predict(self._distinct) for tree in forest.estimators_])
        return answers.mean(axis=0)[self._place], answers.std(axis=0)[self._place]
