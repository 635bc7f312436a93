"""A regression of the performance on stored columns, with expected improvement over the whole pool.

    evaluate 5 candidates that lie far apart: the first at random, each next one farthest from the previous ones
    repeat:
        fit the performances seen so far
        A = argmax E[max(0, y(A) − max y)] among the classes not yet evaluated

`regressor` and `regressor:gp` fit a Gaussian process, `regressor:forest` a random forest (`hnas.optim.surrogates`). The
features are log κ, log trace norm, log params and log flops, standardised and clipped at ±4; an infinite κ counts as
the largest finite one. Columns that the pool lacks are left out. The performances enter through their ranks, as normal
scores, so that a single network that learned nothing does not set the scale.

The prior mean of y(A) is ½ (size − κ), relative to the mean over the evaluated architectures, where size is the mean of
the features params and flops: large networks and small condition numbers are good on both NAS-Bench-101 and
NAS-Bench-301, where other metrics change their sign. The models fit the residuals.

A warm start replaces the five candidates: the predictions of a model of the known values become the prior mean.

Features, prior mean, kernel and initial design were chosen on NAS-Bench-101 and NAS-Bench-301 alone; see docs/paper.md.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import ClassVar

import numpy as np
from scipy.special import ndtr

from hnas.errors import UsageError
from hnas.optim.methods.candidates import Program
from hnas.optim.methods.protocol import Parallel, Proposal
from hnas.optim.methods.ranking import Free, Positions, proposal
from hnas.optim.methods.warm import best_first, normal_scores
from hnas.optim.objective import Array
from hnas.optim.pools import Pool
from hnas.optim.surrogates import Forest, GaussianProcess, Surrogate

_COLUMNS = ("kappa", "trace", "params", "flops")
_INITIAL = 5
# Performance assumed for pending candidates. See docs/benchmarks.md.
LIE = "mean"
# Maximum number of known architectures in a warm start, spread evenly over their ranks: the time is cubic in it.
_MOST_KNOWN = 500


class Regressor(Program):
    """Expected improvement under a Gaussian process or a forest."""

    kind: ClassVar[str] = "hybrid"
    applicable: ClassVar[str] = "C+D"
    varies: ClassVar[bool] = True
    parallel: ClassVar[Parallel] = "asynchronous"

    def __init__(self, pool: Pool, argument: str | None = None, *, seed: int, epochs: int | None = None) -> None:
        if argument not in (None, "gp", "forest"):
            raise UsageError(f"the regression must be regressor:gp or regressor:forest, got regressor:{argument}")
        self._pool, self._random = pool, np.random.default_rng(seed)
        self._x, self._expected = features(pool)
        self._model: Surrogate = Forest(self._x, seed=seed) if argument == "forest" else GaussianProcess(self._x)
        self._rows: list[int] = []
        self._performances: list[float] = []
        self._pending: list[int] = []
        self._warm = False
        super().__init__()

    def warm(self, positions: Positions, scores: Array) -> None:
        """Take the predictions of a model of the known `scores` as the prior mean, and start at its maximum.

        See `Warm`.
        """
        chosen = np.array(best_first(np.arange(len(positions)), scores))
        chosen = chosen[np.linspace(0, len(chosen) - 1, min(len(chosen), _MOST_KNOWN)).round().astype(int)]
        positions, scores = positions[chosen], scores[chosen]
        expected = self._expected - self._expected[positions].mean()
        self._expected = expected + self._model.predict(positions, scores - expected[positions])[0]
        self._warm = True

    def steps(self) -> Generator[Proposal, float, None]:
        """See `Program`."""
        free = Free(self._pool)
        distance = np.full(len(self._x), np.inf)
        score = self._expected if self._warm else self._random.random(len(self._x))
        while free.mask.any():
            position = int(np.argmax(np.where(free.mask, score, -np.inf)))
            free.take(position)
            self._pending.append(position)
            yield proposal(self._pool, position, score[position])
            if self._warm and len(self._rows) < 2:
                continue  # next best by the prior mean
            if not self._warm and (len(self._rows) + len(self._pending) < _INITIAL or len(self._rows) < 2):
                distance = np.minimum(distance, np.sum((self._x - self._x[position]) ** 2, axis=1))
                score = distance
            else:
                score = self._improvement()

    def tell(self, proposal: Proposal, performance: float, cost: float) -> None:
        """See `Method`."""
        position = self._pool.position(proposal.arch)
        assert position is not None  # proposals are candidates
        self._pending.remove(position)
        self._rows.append(position)
        self._performances.append(performance)

    def _improvement(self) -> Array:
        """Return the expected improvement (n,) over the best known performance."""
        seen = normal_scores(self._performances)
        expected = self._expected - self._expected[self._rows].mean()  # the mean of normal scores is zero
        rows = np.array(self._rows + self._pending)
        values = np.append(seen, np.full(len(self._pending), getattr(seen, LIE)()))
        mean, deviation = self._model.predict(rows, values - expected[rows])
        return improvement(expected + mean, deviation, seen.max())


def features(pool: Pool) -> tuple[Array, Array]:
    """Return the features (n, d) of the candidates, and the prior mean (n,) of their performance.

    A feature is the logarithm of a column, standardised and clipped at ±4; missing values count as the median. Raises
    `UsageError` where no column differs between candidates.
    """
    by_name: dict[str, Array] = {}
    for name in _COLUMNS:
        try:
            column = pool.column(name)
        except UsageError:
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(column)
        finite = logs[np.isfinite(logs)]
        if finite.size and finite.min() < finite.max():
            logs = np.clip(np.where(np.isnan(logs), np.median(finite), logs), finite.min(), finite.max())
            by_name[name] = np.clip((logs - logs.mean()) / logs.std(), -4, 4)
    if not by_name:
        raise UsageError(f"regressor needs a column in which candidates differ, one of {', '.join(_COLUMNS)}")
    expected = np.zeros(len(pool.archs))
    if sizes := [by_name[name] for name in ("params", "flops") if name in by_name]:
        expected += np.mean(sizes, axis=0) / 2
    if "kappa" in by_name:
        expected -= by_name["kappa"] / 2
    return np.stack(list(by_name.values()), axis=1), expected


def improvement(mean: Array, deviation: Array, best: float) -> Array:
    """Return E[max(0, y − best)] (n,) for normal y with `mean` (n,) and `deviation` (n,)."""
    above = mean - best
    with np.errstate(divide="ignore", invalid="ignore"):
        z = above / deviation
        expected = above * ndtr(z) + deviation * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return np.where(deviation > 0, expected, np.maximum(above, 0.0))
