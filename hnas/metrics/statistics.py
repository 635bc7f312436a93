"""What the passes over one network yield besides the eight columns, for the scores of `hnas.scores`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Statistics:
    """The statistics of one network and batch, float64 on the CPU; None those that nobody asked for.

    `weight_norms` (layers,) are ‖θ_l‖₂ of the weights of Conv and Linear modules, in the order of the modules.
    """

    weight_norms: Tensor | None = None
