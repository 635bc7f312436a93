"""Oracles written in Python: functions and objects of one's own, and those that installed packages offer.

An oracle is called with an architecture and answers with its performance, higher is better, or an `Evaluation`. Where
its signature has parameters called `epochs`, `seed` or `dataset` it is given those of the search. What it raises fails
that evaluation, and the search goes on (`EvaluationError`).
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
            f"there is no oracle {name!r:.200}; choose from {', '.join(known)}, or give a command, such as "
            f"'command: python train.py {{arch}}'{did_you_mean(name, known)}"
        )


#: The installed oracles by name: functions, or classes of them. See `hnas.registry.Registry` for what is raised.
oracles = _Oracles(ENTRY_POINT_GROUP, "oracle", {})


def installed_oracle(
    name: str, options: Mapping[str, Any], *, epochs: int | None, seed: int, dataset: str
) -> PythonOracle:
    """The installed oracle `name`: a class is made with the `options`, a function is called with them.

    Raises `UsageError` for an unknown name, and options that it does not take.
    """
    found: Any = oracles[name]
    try:
        if isinstance(found, type):
            made: Any = found(**options)
            return PythonOracle(made, epochs=epochs, seed=seed, dataset=dataset)
        inspect.signature(found).bind_partial("", **options)
    except TypeError as error:
        raise UsageError(f"the oracle {name} does not take these --oracle-option: {error}") from error
    return PythonOracle(found, options, epochs=epochs, seed=seed, dataset=dataset)


class PythonOracle:
    """`function` as an oracle of a search with this `seed` and `dataset`, called with `options`.

    `epochs` are those of an evaluation where a method asks for no others. Raises `UsageError` where the function takes
    no epochs and they are not None.
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
        #: Whether an evaluation may be of some epochs and no others.
        self.takes_epochs = "epochs" in named
        if epochs is not None and not self.takes_epochs:
            raise UsageError(f"the oracle {name_of(function)} has no parameter epochs, so these would change nothing")
        given = {"seed": seed, "dataset": dataset} | ({} if epochs is None else {"epochs": epochs})
        self._function = function
        self._options = {name: value for name, value in given.items() if name in named} | dict(options or {})

    def __call__(self, arch: str, epochs: int | None = None) -> Evaluation:
        """See `Oracle`."""
        options = self._options if epochs is None else {**self._options, "epochs": epochs}
        try:
            answer = self._function(arch, **options)
            found = answer if isinstance(answer, Evaluation) else Evaluation(answer)
            performance = float(found.performance)
            cost = 0.0 if found.cost is None else float(found.cost)
        except (Exception, SystemExit) as error:
            if isinstance(error, EvaluationError):
                raise
            reason = str(error).strip().partition("\n")[0]
            raise EvaluationError(
                f"the oracle raised {type(error).__name__}{f': {reason:.300}' if reason else ''}"
            ) from error
        if not math.isfinite(performance) or not 0 <= cost < math.inf:
            what = f"the performance {performance}" if not math.isfinite(performance) else f"a cost of {cost} seconds"
            raise EvaluationError(f"the oracle answered with {what}; a finite number is needed")
        return found._replace(performance=performance, cost=None if found.cost is None else cost)


def name_of(function: Callable[..., Any]) -> str:
    """The module and name of a function, or of an object's class."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _parameters(function: Callable[..., Any]) -> set[str]:
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # of a builtin, which does not tell
        return set()
