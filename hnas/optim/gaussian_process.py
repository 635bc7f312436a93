"""The Gaussian process and the acquisition functions that propose (μ, ν): bayesian-optimization, set up.

Importing it takes a second: the first proposals of a search need none of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import partial
from io import StringIO

import numpy as np
from bayes_opt import BayesianOptimization, acquisition
from bayes_opt.acquisition import AcquisitionFunction
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process.kernels import Matern
from threadpoolctl import ThreadpoolController

from hnas.optim.objective import Array


def _frugal(function: AcquisitionFunction) -> AcquisitionFunction:
    """`function`, maximised by 4,096 random points and one descent from the best.

    The library's ten descents, each with numerical derivatives, find the same points of a square in ten times the time.
    """
    function.suggest = partial(function.suggest, n_random=4096, n_smart=1)
    return function


class GaussianProcess:
    """Maximises an acquisition function (`ucb`, `ei`, `poi`) under a Gaussian process (Matérn 5/2).

    Points (d,) lie in the unit cube, so that the one length scale means the same in all directions.
    """

    def __init__(self, names: Sequence[str], *, seed: int, acquisition_name: str) -> None:
        functions = {
            "ucb": lambda: acquisition.UpperConfidenceBound(kappa=2.576),
            "ei": lambda: acquisition.ExpectedImprovement(xi=0.0),
            "poi": lambda: acquisition.ProbabilityOfImprovement(xi=0.01),
        }
        self._names = names
        self._optimiser = BayesianOptimization(
            f=None,
            pbounds=dict.fromkeys(names, (0.0, 1.0)),
            acquisition_function=_frugal(functions[acquisition_name]()),
            random_state=seed % 2**32,
            verbose=0,
            allow_duplicate_points=True,
        )
        # Points that lie close together propose different architectures, since those that were evaluated are left
        # out, and an accuracy carries the noise of a training. White noise of variance 0.1, of observations that are
        # scaled to variance 1, keeps the process from bending through them all.
        # Of a handful of points the likelihood may prefer a length scale of zero or infinity, where the process knows
        # nothing of the next point: bounded, every answer tells something of the points around it.
        kernel = Matern(nu=2.5, length_scale=0.1, length_scale_bounds=(0.05, 0.3))
        self._optimiser.set_gp_params(kernel=kernel, alpha=0.1, n_restarts_optimizer=1)
        self._threads = ThreadpoolController()

    def suggest(self) -> Array:
        """The next point (d,)."""
        # The process's matrices are tiny: a second BLAS thread only waits, for seconds where the machine is busy.
        with warnings.catch_warnings(), self._threads.limit(limits=1, user_api="blas"):
            warnings.simplefilter("ignore", ConvergenceWarning)
            suggested = self._optimiser.suggest()
        return np.array([suggested[name] for name in self._names])

    def register(self, point: Array, value: float) -> None:
        """Tell the value that was found at `point` (d,)."""
        # The library announces a point that it has seen on standard output, which belongs to results.
        with redirect_stdout(StringIO()):
            self._optimiser.register(params=dict(zip(self._names, point.tolist(), strict=True)), target=value)
