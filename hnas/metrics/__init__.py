"""Training-free metrics of a network at initialisation."""

from hnas.metrics.engine import COLUMNS, ENGINE_VERSION, NTK_MODES, Metrics, compute_metrics, condition_number

__all__ = ["COLUMNS", "ENGINE_VERSION", "NTK_MODES", "Metrics", "compute_metrics", "condition_number"]
