"""The Gaussian process and the acquisition functions that propose (μ, ν): bayesian-optimization, set up.

Importing it takes a second: the first proposals of a search need none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from io import StringIO

import numpy as np
from bayes_opt import BayesianOptimization, acquisition
from bayes_opt.acquisition import AcquisitionFunction, ConstantLiar
from sklearn.gaussian_process.kernels import Matern
from threadpoolctl import ThreadpoolController

from hnas.optim.objective import Array

# What a point whose value is not told yet counts as: the least, mean or largest of the values. See docs/benchmarks.md.
LIE = "mean"


def _frugal(function: ConstantLiar) -> ConstantLiar:
    """`function`, maximised among 1,024 random points, which lie a third of a length scale apart in a square.

    The library's descents from the best of them, each with numerical derivatives, take several times as long and find
    nothing better.
    """
    function.suggest = partial(function.suggest, n_random=1024, n_smart=0)
    return function


class GaussianProcess:
    """Maximises an acquisition function (`ucb`, `ei`, `poi`) under a Gaussian process (Matérn 5/2).

    Points (d,) lie in the unit cube, so that the one length scale means the same in all directions. `noise` is the
    variance of the answers' white noise, where the answers are scaled to variance 1.
    """

    def __init__(self, names: Sequence[str], *, seed: int, acquisition_name: str, noise: float) -> None:
        functions: dict[str, Callable[[], AcquisitionFunction]] = {
            "ucb": lambda: acquisition.UpperConfidenceBound(kappa=2.576),
            "ei": lambda: acquisition.ExpectedImprovement(xi=0.0),
            "poi": lambda: acquisition.ProbabilityOfImprovement(xi=0.01),
        }
        self._names = names
        self._liar = _frugal(ConstantLiar(functions[acquisition_name](), strategy=LIE))
        self._optimiser = BayesianOptimization(
            f=None,
            pbounds=dict.fromkeys(names, (0.0, 1.0)),
            acquisition_function=self._liar,
            random_state=seed % 2**32,
            verbose=0,
            allow_duplicate_points=True,
        )
        # Of a handful of answers the likelihood tells no length scale. The best of four on NAS-Bench-101 and
        # NAS-Bench-301, with as many noises; see docs/paper.md.
        kernel = Matern(nu=2.5, length_scale=0.1, length_scale_bounds="fixed")
        self._optimiser.set_gp_params(kernel=kernel, alpha=noise)
        self._threads = ThreadpoolController()

    def suggest(self, pending: Sequence[Array] = ()) -> Array:
        """The next point (d,), where others are `pending`: suggested before, and their values not told yet."""
        self._liar.dummies = list(pending)
        # The process's matrices are tiny: a second BLAS thread only waits, for seconds where the machine is busy.
        with self._threads.limit(limits=1, user_api="blas"):
            suggested = self._optimiser.suggest()
        return np.array([suggested[name] for name in self._names])

    def register(self, point: Array, value: float) -> None:
        """Tell the value that was found at `point` (d,)."""
        # The library announces a point that it has seen on standard output, which belongs to results.
        with redirect_stdout(StringIO()):
            self._optimiser.register(params=dict(zip(self._names, point.tolist(), strict=True)), target=value)

    def mean(self, points: Array) -> Array:
        """The mean (k,) of the process at `points` (k, d), given all that was told: one value at least."""
        space, process = self._optimiser.space, self._optimiser._gp
        with self._threads.limit(limits=1, user_api="blas"):
            means: Array = process.fit(space.params, space.target).predict(points)
        return means
