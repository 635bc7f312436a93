"""Bayesian optimisation over the point that stands for (μ, ν): one seeded object with `suggest` and `register`."""

from __future__ import annotations

import warnings
from contextlib import redirect_stdout
from functools import partial
from io import StringIO

import numpy as np
from bayes_opt import BayesianOptimization, acquisition
from bayes_opt.acquisition import AcquisitionFunction
from scipy.stats import qmc
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process.kernels import Matern
from threadpoolctl import ThreadpoolController

from hnas.errors import UsageError, check_seed
from hnas.objective import BOUNDS, Array

ACQUISITIONS = ("ucb", "ei", "poi")

# Points of a Latin hypercube asked before the Gaussian process is trusted.
_INITIAL = 5


def _frugal(function: AcquisitionFunction) -> AcquisitionFunction:
    """`function`, maximised by 4,096 random points and one descent from the best.

    The library's ten descents, each with numerical derivatives, find the same points of a square in ten times the time.
    """
    function.suggest = partial(function.suggest, n_random=4096, n_smart=1)
    return function


class Optimiser:
    """Maximises a function of (`log10_mu`, `nu_quantile`) seen one value at a time.

    The first five points are a Latin hypercube drawn from `seed`, the others maximise the acquisition function under a
    Gaussian process (Matérn 5/2). The same seed and the same values give the same points.
    Raises `UsageError` for an unknown acquisition function.
    """

    def __init__(self, *, seed: int, acquisition_name: str = "ei") -> None:
        if acquisition_name not in ACQUISITIONS:
            raise UsageError(f"acquisition {acquisition_name!r} is unknown; choose one of {', '.join(ACQUISITIONS)}")
        check_seed(seed)
        functions = {
            "ucb": lambda: acquisition.UpperConfidenceBound(kappa=2.576),
            "ei": lambda: acquisition.ExpectedImprovement(xi=0.0),
            "poi": lambda: acquisition.ProbabilityOfImprovement(xi=0.01),
        }
        self._names = sorted(BOUNDS)
        self._low, high = np.array([BOUNDS[name] for name in self._names]).T
        self._width = high - self._low
        self._initial = qmc.LatinHypercube(d=len(self._names), rng=np.random.default_rng(seed)).random(_INITIAL)
        # The process sees the unit square: its one length scale then means the same in both directions.
        self._optimiser = BayesianOptimization(
            f=None,
            pbounds=dict.fromkeys(self._names, (0.0, 1.0)),
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
        self._registered = 0

    def suggest(self) -> dict[str, float]:
        """The next point, by name of its coordinates."""
        if self._registered < len(self._initial):
            return self._point(self._initial[self._registered])
        # The process's matrices are tiny: a second BLAS thread only waits, for seconds where the machine is busy.
        with warnings.catch_warnings(), self._threads.limit(limits=1, user_api="blas"):
            warnings.simplefilter("ignore", ConvergenceWarning)
            suggested = self._optimiser.suggest()
        return self._point(np.array([suggested[name] for name in self._names]))

    def _point(self, unit: Array) -> dict[str, float]:
        return dict(zip(self._names, (self._low + self._width * unit).tolist(), strict=True))

    def register(self, point: dict[str, float], value: float) -> None:
        """Tell the value that was found at `point`."""
        # The library announces a point that it has seen on standard output, which belongs to results.
        with redirect_stdout(StringIO()):
            unit = (np.array([point[name] for name in self._names]) - self._low) / self._width
            self._optimiser.register(params=dict(zip(self._names, unit.tolist(), strict=True)), target=value)
        self._registered += 1
