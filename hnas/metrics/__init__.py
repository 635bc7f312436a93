"""Training-free metrics of a network at initialisation. Torch is imported when a name that needs it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hnas.metrics.names import COLUMNS, ENGINE_VERSION, NTK_MODES

if TYPE_CHECKING:
    from hnas.metrics.engine import Metrics, Pending, compute_metrics, condition_number, queue_metrics

__all__ = [
    "COLUMNS",
    "ENGINE_VERSION",
    "NTK_MODES",
    "Metrics",
    "Pending",
    "compute_metrics",
    "condition_number",
    "queue_metrics",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'hnas.metrics' has no attribute {name!r}")
    from hnas.metrics import engine

    return getattr(engine, name)
