"""The registry of search methods, and parsing of names such as `hnas:trace`."""

from __future__ import annotations

import re
from inspect import signature
from typing import Any

from hnas.errors import UsageError
from hnas.optim.methods.protocol import Method, Parallel
from hnas.optim.pools import Pool
from hnas.registry import Registry

ENTRY_POINT_GROUP = "hnas.methods"

_BUILT_IN = {
    "authors": "hnas.optim.methods.authors:Authors",
    "best-of": "hnas.optim.methods.best_of:BestOf",
    "bohb": "hnas.optim.methods.bohb:BOHB",
    "darts": "hnas.supernets.methods:DARTSMethod",
    "darts-second": "hnas.supernets.methods:SecondOrderDARTSMethod",
    "drnas": "hnas.supernets.methods:DrNASMethod",
    "enas": "hnas.supernets.methods:ENASMethod",
    "gdas": "hnas.supernets.methods:GDASMethod",
    "gradsign": "hnas.optim.methods.scored:GradSign",
    "halving": "hnas.optim.methods.halving:Halving",
    "hnas": "hnas.optim.methods.hnas:HNAS",
    "knas": "hnas.optim.methods.scored:KNAS",
    "local-search": "hnas.optim.methods.local_search:LocalSearch",
    "nasi": "hnas.supernets.methods:NASIMethod",
    "naswot": "hnas.optim.methods.scored:NASWOT",
    "random": "hnas.optim.methods.random:Random",
    "rea": "hnas.optim.methods.rea:REA",
    "regressor": "hnas.optim.methods.regressor:Regressor",
    "reinforce": "hnas.optim.methods.reinforce:Reinforce",
    "robot": "hnas.optim.methods.robot:RoBoT",
    "te-nas": "hnas.supernets.methods:TENASMethod",
    "top": "hnas.optim.methods.top:Top",
    "zero-cost": "hnas.optim.methods.zero_cost:ZeroCost",
    "zero-cost-move": "hnas.optim.methods.zero_cost:Move",
    "zero-cost-warmup": "hnas.optim.methods.zero_cost:WarmUp",
}


#: The classes of search methods by name. For errors see `hnas.registry.Registry`.
methods: Registry[type[Method]] = Registry(ENTRY_POINT_GROUP, "search method", _BUILT_IN)


def parallel_of(name: str) -> Parallel:
    """Return how the method `name` behaves while proposals are pending; see `Method`. Raises as `methods` does."""
    parallel: Parallel = getattr(methods[name], "parallel", "sequential")
    return parallel


def make_method(method: str, pool: Pool, *, seed: int, epochs: int | None = None, **options: Any) -> Method:
    """Return the method called `name` or `name:argument`, over `pool`. Raises `UsageError` as `Method` does."""
    name, colon, argument = method.partition(":")
    if colon and not argument:
        raise UsageError(f"{method!r} has no argument after the colon; write {name}, or {name}:ARGUMENT")
    made = methods[name]
    try:
        return made(pool, argument or None, seed=seed, epochs=epochs, **options)
    except TypeError as error:
        refused = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if refused and refused[1] in options:
            raise UsageError(f"the method {name} has no option {refused[1]}{_options_of(made)}") from error
        raise


def _options_of(made: type[Method]) -> str:
    """Return the end of an error that names the options of a method."""
    options = [name for name in signature(made).parameters if name not in ("pool", "argument", "seed", "epochs")]
    return f"; it has {', '.join(options)}" if options else ""
