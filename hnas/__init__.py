"""hnas: training-free neural architecture search with a store of precomputed metrics.

    from hnas import compute_metrics, search_spaces

`compute_metrics(network, images, labels)` returns the four gradient-based metrics and the NTK condition number of any
torch module at initialisation. `search_spaces` maps names to search spaces. `search(ArrayPool(…), oracle)` runs HNAS or
another method on arrays, `search_store(space, oracle)` on a store, and `Search` exposes the single steps for a loop of
your own. `load(folder)` loads a trained network that `hnas search --save` wrote. Names are imported on first use, so
that `import hnas` does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hnas.errors import HnasError, UsageError
    from hnas.metrics import Metrics
    from hnas.optim.algorithm import Evaluation, EvaluationError, Query, Search, best, search
    from hnas.optim.methods.protocol import Proposal
    from hnas.optim.objective import objective
    from hnas.optim.pools import ArrayPool
    from hnas.pipeline.models import load
    from hnas.pipeline.search.library import search_store
    from hnas.scores.compute import compute_metrics
    from hnas.spaces import SearchSpace, search_spaces
    from hnas.spaces.initialise import initialise
    from hnas.training import Recipe, train

__all__ = [
    "ArrayPool",
    "Evaluation",
    "EvaluationError",
    "HnasError",
    "Metrics",
    "Proposal",
    "Query",
    "Recipe",
    "Search",
    "SearchSpace",
    "UsageError",
    "best",
    "compute_metrics",
    "initialise",
    "load",
    "objective",
    "search",
    "search_spaces",
    "search_store",
    "train",
]

_HOMES = {
    "HnasError": "hnas.errors",
    "UsageError": "hnas.errors",
    "Metrics": "hnas.metrics",
    "compute_metrics": "hnas.scores.compute",
    "objective": "hnas.optim.objective",
    "ArrayPool": "hnas.optim.pools",
    "Evaluation": "hnas.optim.algorithm",
    "EvaluationError": "hnas.optim.algorithm",
    "Proposal": "hnas.optim.methods.protocol",
    "Query": "hnas.optim.algorithm",
    "best": "hnas.optim.algorithm",
    "Search": "hnas.optim.algorithm",
    "search": "hnas.optim.algorithm",
    "SearchSpace": "hnas.spaces",
    "search_spaces": "hnas.spaces",
    "initialise": "hnas.spaces.initialise",
    "load": "hnas.pipeline.models",
    "search_store": "hnas.pipeline.search.library",
    "Recipe": "hnas.training",
    "train": "hnas.training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hnas' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*(name for name in globals() if name.startswith("__")), *__all__])
