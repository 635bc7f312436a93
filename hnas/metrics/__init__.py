"""Training-free metrics of a network at initialisation: the eight columns, Θ₀, and the scores of its spectrum.

What may be used from outside is named below; torch is imported when a name that needs it is used. How one network is
measured:

    inputs, state, unseen_uses, randomness     network and batch checked, put into the mode that is measured, put back
    recorder, order, layers, ops               the forward pass, function by function
    passes, tape, grasp, ntk, owners           the backward passes, the pass of tangents, Θ₀
    statistics, signs, fisher                  what scores need besides the columns, where they are asked for
    compute, results                           all of it together, and what is left of it

An operation that the engine is to know goes into `hnas.metrics.ops`. A change that moves a stored value by more than
rounding raises `ENGINE_VERSION`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hnas.metrics.columns import COLUMNS, ENGINE_VERSION, NTK_MODES

if TYPE_CHECKING:
    from hnas.metrics import spectrum
    from hnas.metrics.compute import (
        Metrics,
        Pending,
        PendingStatistics,
        condition_number,
        queue_metrics,
        queue_statistics,
    )

__all__ = [
    "COLUMNS",
    "ENGINE_VERSION",
    "NTK_MODES",
    "Metrics",
    "Pending",
    "PendingStatistics",
    "condition_number",
    "queue_metrics",
    "queue_statistics",
    "spectrum",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'hnas.metrics' has no attribute {name!r}")
    if name == "spectrum":
        return import_module("hnas.metrics.spectrum")
    return getattr(import_module("hnas.metrics.compute"), name)
