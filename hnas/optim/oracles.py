"""Oracles written in Python: functions and objects, your own or those of installed packages.

An oracle is called with an architecture and returns its performance, higher is better, or an `Evaluation`. If its
signature has parameters called `epochs`, `seed` or `dataset`, it receives those of the search. Any exception fails that
evaluation, and the search continues (`EvaluationError`).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from hnas.errors import UsageError, did_you_mean
from hnas.optim.algorithm import Evaluation, EvaluationError
from hnas.registry import Registry

ENTRY_POINT_GROUP = "hnas.oracles"


class _Oracles(Registry[Callable[..., Any]]):
    def _unknown(self, name: str) -> UsageError:
        known = ["table", "train", "table,train", *self]
        return UsageError(
            f"the oracle {name!r:.200} is unknown; choose from {', '.join(known)}, or write a command, such as "
            f"'command: python train.py {{arch}}'{did_you_mean(name, known)}"
        )


#: The installed oracles by name: functions, or classes of callables. For errors see `hnas.registry.Registry`.
oracles = _Oracles(ENTRY_POINT_GROUP, "oracle", {})


def installed_oracle(
    name: str, options: Mapping[str, Any], *, epochs: int | None, seed: int, dataset: str
) -> PythonOracle:
    """Return the installed oracle `name`: a class is instantiated with the `options`, a function called with them.

    Raises `UsageError` for an unknown name, and for options that it does not accept.
    """
    loaded: Any = oracles[name]
    try:
        if isinstance(loaded, type):
            made: Any = loaded(**options)
            return PythonOracle(made, epochs=epochs, seed=seed, dataset=dataset)
        inspect.signature(loaded).bind_partial("", **options)
    except TypeError as error:
        raise UsageError(f"the oracle {name} does not accept these options: {error}") from error
    return PythonOracle(loaded, options, epochs=epochs, seed=seed, dataset=dataset)


class PythonOracle:
    """Makes `function` an oracle of a search with this `seed` and `dataset`; it is called with `options`.

    `epochs` is the number for evaluations in which the method asks for no other. Raises `UsageError` where it is not
    None but the function has no such parameter.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        options: Mapping[str, Any] | None = None,
        *,
        epochs: int | None = None,
        seed: int,
        dataset: str,
    ) -> None:
        named = _parameters(function)
        #: Whether a number of epochs can be chosen for an evaluation.
        self.takes_epochs = "epochs" in named
        if epochs is not None and not self.takes_epochs:
            raise UsageError(f"the oracle {name_of(function)} has no parameter epochs; leave epochs out")
        settings = {"seed": seed, "dataset": dataset} | ({} if epochs is None else {"epochs": epochs})
        self._function = function
        self._options = {name: value for name, value in settings.items() if name in named} | dict(options or {})

    def __call__(self, arch: str, epochs: int | None = None) -> Evaluation:
        """See `Oracle`."""
        options = self._options if epochs is None else {**self._options, "epochs": epochs}
        try:
            answer = self._function(arch, **options)
            result = answer if isinstance(answer, Evaluation) else Evaluation(answer)
            performance = float(result.performance)
            cost = 0.0 if result.cost is None else float(result.cost)
        except (Exception, SystemExit) as error:
            if isinstance(error, EvaluationError):
                raise
            reason = str(error).strip().partition("\n")[0]
            raise EvaluationError(
                f"the oracle raised {type(error).__name__}{f': {reason:.300}' if reason else ''}"
            ) from error
        if not math.isfinite(performance) or not 0 <= cost < math.inf:
            what = f"the performance {performance}" if not math.isfinite(performance) else f"a cost of {cost} seconds"
            raise EvaluationError(f"the oracle must return finite numbers, got {what}")
        return result._replace(performance=performance, cost=None if result.cost is None else cost)


def name_of(function: Callable[..., Any]) -> str:
    """Return the module and name of a function, or of an object's class."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _parameters(function: Callable[..., Any]) -> set[str]:
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # a builtin without a signature
        return set()
