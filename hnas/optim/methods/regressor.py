"""A regression of the performance on stored columns, and expected improvement over the whole pool.

    evaluate 5 candidates that lie far apart: the first at random, each next one the farthest from those before
    repeat:
        fit the performances seen so far
        A = argmax E[max(0, y(A) − max y)] among the classes not yet evaluated

`regressor` and `regressor:gp` fit a Gaussian process, `regressor:forest` a random forest (`hnas.optim.surrogates`). The
features are log κ, log trace norm, log params and log flops, standardised and cut at ±4; an infinite κ counts as the
largest finite one. A column that the pool lacks is left out. The performances enter by their ranks, as normal scores,
so that one network that learned nothing does not set the scale.

Before anything is seen, y(A) is expected at ½ (size − κ), with the mean of the features params and flops for the size,
relative to the mean of the architectures seen: large networks and small condition numbers are good on NAS-Bench-101 and
NAS-Bench-301 alike, where other metrics change their sign. The models fit what differs from that.

A warm start takes the place of the five: what a model of the known values predicts is expected from the beginning.

Features, expectation, kernel and design were chosen on NAS-Bench-101 and NAS-Bench-301 alone; see docs/paper.md.
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
# What a candidate whose performance is not told yet counts as. See docs/benchmarks.md.
LIE = "mean"
# Known architectures that a warm start takes, spread evenly over their ranks: the model's time grows with their cube.
_MOST_KNOWN = 500


class Regressor(Program):
    """Expected improvement under a Gaussian process or a forest."""

    kind: ClassVar[str] = "hybrid"
    applicable: ClassVar[str] = "C+D"
    varies: ClassVar[bool] = True
    parallel: ClassVar[Parallel] = "asynchronous"

    def __init__(self, pool: Pool, argument: str | None = None, *, seed: int, epochs: int | None = None) -> None:
        if argument not in (None, "gp", "forest"):
            raise UsageError(f"regressor:{argument} is no regression; choose regressor:gp or regressor:forest")
        self._pool, self._random = pool, np.random.default_rng(seed)
        self._x, self._expected = features(pool)
        self._model: Surrogate = Forest(self._x, seed=seed) if argument == "forest" else GaussianProcess(self._x)
        self._rows: list[int] = []
        self._performances: list[float] = []
        self._pending: list[int] = []
        self._warm = False
        super().__init__()

    def warm(self, positions: Positions, scores: Array) -> None:
        """Expect what a model of the known `scores` predicts, and begin with the best of it; see `Warm`."""
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
                continue  # down the expectation
            if not self._warm and (len(self._rows) + len(self._pending) < _INITIAL or len(self._rows) < 2):
                distance = np.minimum(distance, np.sum((self._x - self._x[position]) ** 2, axis=1))
                score = distance
            else:
                score = self._improvement()

    def tell(self, proposal: Proposal, performance: float, cost: float) -> None:
        """See `Method`."""
        position = self._pool.position(proposal.arch)
        assert position is not None  # it is one of the pool
        self._pending.remove(position)
        self._rows.append(position)
        self._performances.append(performance)

    def _improvement(self) -> Array:
        """The expected improvement (n,) on the best performance told."""
        seen = normal_scores(self._performances)
        expected = self._expected - self._expected[self._rows].mean()  # scores are zero in the mean of the seen
        rows = np.array(self._rows + self._pending)
        values = np.append(seen, np.full(len(self._pending), getattr(seen, LIE)()))
        mean, deviation = self._model.predict(rows, values - expected[rows])
        return improvement(expected + mean, deviation, seen.max())


def features(pool: Pool) -> tuple[Array, Array]:
    """The features (n, d) of the candidates, and the performance (n,) that is expected of them before any is seen.

    A feature is the logarithm of a column, standardised and cut at ±4; what is unknown counts as the median. Raises
    `UsageError` where no column differs between candidates.
    """
    found: dict[str, Array] = {}
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
            found[name] = np.clip((logs - logs.mean()) / logs.std(), -4, 4)
    if not found:
        raise UsageError(f"regressor needs a column in which candidates differ, one of {', '.join(_COLUMNS)}")
    expected = np.zeros(len(pool.archs))
    if sizes := [found[name] for name in ("params", "flops") if name in found]:
        expected += np.mean(sizes, axis=0) / 2
    if "kappa" in found:
        expected -= found["kappa"] / 2
    return np.stack(list(found.values()), axis=1), expected


def improvement(mean: Array, deviation: Array, best: float) -> Array:
    """E[max(0, y − best)] (n,) of normal y with `mean` (n,) and `deviation` (n,)."""
    above = mean - best
    with np.errstate(divide="ignore", invalid="ignore"):
        z = above / deviation
        expected = above * ndtr(z) + deviation * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return np.where(deviation > 0, expected, np.maximum(above, 0.0))
