"""`jacov = −Σ_k (ln(λ_k + ε) + 1 / (λ_k + ε))`, ε = 1e-5, with λ the spectrum of correlations of input gradients.

Their matrix (m, m) holds the correlation coefficients of the rows `J_i = ∂/∂x_i Σ_jc f_c(x_j)`: all logits of all
samples are summed, and batch norm couples the samples.

Source: Mellor, Turner, Storkey, Crowley, "Neural Architecture Search without Training", arXiv 2006.04647, first version
of 2020; `jacov` in NAS-Bench-Suite-Zero, `jacob_cov` in zero-cost-nas.

Invariant to a factor on the logits, and to labels. NaN where a row is constant, as for a network whose output does not
depend on its input.

Cost: a backward pass without weights beside the columns, and a forward pass alone.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch

from hnas.metrics.statistics import Statistics

EPSILON = 1e-5


class Jacov:
    """How far the input gradients are from being correlated."""

    columns: ClassVar[tuple[str, ...]] = ("jacov",)
    version: ClassVar[int] = 1
    shared: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("correlations",)

    def __call__(self, seen: Statistics) -> dict[str, float]:
        """The sum over the eigenvalues."""
        if not seen["correlations"].isfinite().all():
            return {"jacov": math.nan}
        shifted = torch.linalg.eigvalsh(seen["correlations"]) + EPSILON
        return {"jacov": float(-(shifted.log() + 1 / shifted).sum())}
