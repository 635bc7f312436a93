"""The Gaussian process and the acquisition functions that propose (μ, ν): bayesian-optimization, set up.

Importing it takes a second: the first proposals of a search need none of it.
"""

from __future__ import annotations

import warnings
from contextlib import redirect_stdout
from functools import partial
from io import StringIO

from bayes_opt import BayesianOptimization, acquisition
from bayes_opt.acquisition import AcquisitionFunction
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import ThreadpoolController

from hnas.objective import BOUNDS


def _frugal(function: AcquisitionFunction) -> AcquisitionFunction:
    """`function`, maximised by 4,096 random points and one descent from the best.

    The library's ten descents, each with numerical derivatives, find the same points of a square in ten times the time.
    """
    function.suggest = partial(function.suggest, n_random=4096, n_smart=1)
    return function


class GaussianProcess:
    """Maximises an acquisition function (`ucb`, `ei`, `poi`) under a Gaussian process (Matérn 5/2) over `BOUNDS`."""

    def __init__(self, *, seed: int, acquisition_name: str) -> None:
        functions = {
            "ucb": lambda: acquisition.UpperConfidenceBound(kappa=2.576),
            "ei": lambda: acquisition.ExpectedImprovement(xi=0.0),
            "poi": lambda: acquisition.ProbabilityOfImprovement(xi=0.01),
        }
        self._optimiser = BayesianOptimization(
            f=None,
            pbounds=BOUNDS,
            acquisition_function=_frugal(functions[acquisition_name]()),
            random_state=seed % 2**32,
            verbose=0,
            allow_duplicate_points=True,
        )
        # Two points that propose different architectures may lie close together, and an accuracy carries the noise of
        # a training: a little white noise keeps the process from bending through both.
        self._optimiser.set_gp_params(alpha=1e-3, n_restarts_optimizer=1)
        self._threads = ThreadpoolController()

    def suggest(self) -> dict[str, float]:
        """The next point, by name of its coordinates."""
        # The process's matrices are tiny: a second BLAS thread only waits, for seconds where the machine is busy.
        with warnings.catch_warnings(), self._threads.limit(limits=1, user_api="blas"):
            warnings.simplefilter("ignore", ConvergenceWarning)
            return {name: float(value) for name, value in self._optimiser.suggest().items()}

    def register(self, point: dict[str, float], value: float) -> None:
        """Tell the value that was found at `point`."""
        # The library announces a point that it has seen on standard output, which belongs to results.
        with redirect_stdout(StringIO()):
            self._optimiser.register(params=point, target=value)
