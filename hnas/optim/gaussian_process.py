"""The Gaussian process and the acquisition functions that propose (μ, ν), built on bayesian-optimization.

Importing this module takes a second, and the first proposals of a search do not need it.
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

# Value assumed for pending points: the minimum, mean or maximum of the known values. See docs/benchmarks.md.
LIE = "mean"


def _frugal(function: ConstantLiar) -> ConstantLiar:
    """Make `function` maximise over 1,024 random points, which are a third of a length scale apart in a square.

    The library's gradient descents from the best points, with numerical derivatives, take several times as long and
    find nothing better.
    """
    function.suggest = partial(function.suggest, n_random=1024, n_smart=0)
    return function


class GaussianProcess:
    """Maximises an acquisition function (`ucb`, `ei`, `poi`) under a Gaussian process (Matérn 5/2).

    Points (d,) lie in the unit cube, so that one length scale suits all directions. `noise` is the variance of the
    white noise of the values, which are scaled to variance 1.
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
        # A handful of values do not determine the length scale by likelihood, so it is fixed: the best of four on
        # NAS-Bench-101 and NAS-Bench-301, each tried with four noise levels; see docs/paper.md.
        kernel = Matern(nu=2.5, length_scale=0.1, length_scale_bounds="fixed")
        self._optimiser.set_gp_params(kernel=kernel, alpha=noise)
        self._threads = ThreadpoolController()

    def suggest(self, pending: Sequence[Array] = ()) -> Array:
        """Return the next point (d,); `pending` are points suggested before whose values are unknown."""
        self._liar.dummies = list(pending)
        # The matrices are tiny, so a second BLAS thread only waits, for seconds on a busy machine.
        with self._threads.limit(limits=1, user_api="blas"):
            suggested = self._optimiser.suggest()
        return np.array([suggested[name] for name in self._names])

    def register(self, point: Array, value: float) -> None:
        """Add the value observed at `point` (d,)."""
        # The library prints a notice for duplicate points to standard output, which is reserved for results.
        with redirect_stdout(StringIO()):
            self._optimiser.register(params=dict(zip(self._names, point.tolist(), strict=True)), target=value)

    def mean(self, points: Array) -> Array:
        """Return the mean (k,) of the process at `points` (k, d), given all observed values, at least one."""
        space, process = self._optimiser.space, self._optimiser._gp
        with self._threads.limit(limits=1, user_api="blas"):
            means: Array = process.fit(space.params, space.target).predict(points)
        return means
