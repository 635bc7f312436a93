"""bayesian-optimization with its default settings, as used by the published programs of HNAS and RoBoT.

A Gaussian process with a Matérn 5/2 kernel, one length scale over the unscaled coordinates, noise 10⁻⁶, observations
scaled to variance 1, and five restarts of the fit. Release 1.x, which those programs used, maximises the acquisition
function by 10,000 random points and descents from ten more; release 3 by descents from the best of the 10,000. In two
dimensions, one descent from the best finds the same maximum in a fifth of the time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from functools import partial
from io import StringIO

from bayes_opt import BayesianOptimization, acquisition
from bayes_opt.acquisition import AcquisitionFunction, ConstantLiar
from threadpoolctl import ThreadpoolController

from hnas.optim.gaussian_process import LIE


class StockOptimiser:
    """Maximises a function within `bounds`, with the acquisition function `ei` (ξ = 0) or `ucb` (κ = 2.576).

    The first point is random, unless others were registered before.
    """

    def __init__(self, bounds: Mapping[str, tuple[float, float]], *, seed: int, acquisition_name: str) -> None:
        functions: dict[str, Callable[[], AcquisitionFunction]] = {
            "ei": lambda: acquisition.ExpectedImprovement(xi=0.0),
            "ucb": lambda: acquisition.UpperConfidenceBound(kappa=2.576),
        }
        self._liar = ConstantLiar(functions[acquisition_name](), strategy=LIE)
        self._liar.suggest = partial(self._liar.suggest, n_smart=1)
        self._optimiser = BayesianOptimization(
            f=None,
            pbounds=dict(bounds),
            acquisition_function=self._liar,
            random_state=seed % 2**32,
            verbose=0,
            allow_duplicate_points=True,
        )
        self._threads = ThreadpoolController()

    def suggest(self, pending: Iterable[Mapping[str, float]] = ()) -> dict[str, float]:
        """Return the next point; `pending` are points suggested before whose values are unknown."""
        self._liar.dummies = [self._optimiser.space.params_to_array(dict(point)) for point in pending]
        # The matrices are tiny, so a second BLAS thread only waits.
        with warnings.catch_warnings(), self._threads.limit(limits=1, user_api="blas"):
            warnings.simplefilter("ignore")
            return {name: float(x) for name, x in self._optimiser.suggest().items()}

    def register(self, point: Mapping[str, float], value: float) -> None:
        """Add the value observed at `point`."""
        # The library prints a notice for duplicate points to standard output, which is reserved for results.
        with redirect_stdout(StringIO()):
            self._optimiser.register(params=dict(point), target=value)
