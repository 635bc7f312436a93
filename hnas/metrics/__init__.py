"""Training-free metrics of a network at initialisation: the eight columns, Θ₀, and scores of its spectrum.

`__all__` is the public interface. Torch is imported with the first name that needs it. The modules:

    inputs, state, unseen_uses, randomness     check the network and the batch, set the measured mode, restore it
    recorder, order, layers, ops               record the forward pass, function by function
    passes, tape, grasp, ntk, owners           run the backward passes, replay the tangents, sum Θ₀
    statistics, signs, fisher                  collect what scores need besides the columns, on request
    compute, results                           combine these, and pack what remains of a network

Put a new operation into `hnas.metrics.ops`. Raise `ENGINE_VERSION` with every change that moves a stored value by more
than rounding.
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
