"""`jacov = −Σ_k (ln(λ_k + ε) + 1 / (λ_k + ε))`, ε = 1e-5, λ the eigenvalues of correlations of input gradients.

The matrix (m, m) has the correlation coefficients of the rows `J_i = ∂/∂x_i Σ_jc f_c(x_j)`: the sum runs over all
logits of all samples, which batch norm couples.

Source: Mellor, Turner, Storkey, Crowley, "Neural Architecture Search without Training", arXiv 2006.04647, first version
of 2020; `jacov` in NAS-Bench-Suite-Zero, `jacob_cov` in zero-cost-nas.

Invariant to a factor on the logits, and to the labels. NaN where a row is constant, as for a network whose output does
not depend on its input.

Cost: with the columns, a backward pass without weight gradients; alone, a forward pass more.
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
        """Return the sum over the eigenvalues."""
        if not seen["correlations"].isfinite().all():
            return {"jacov": math.nan}
        shifted = torch.linalg.eigvalsh(seen["correlations"]) + EPSILON
        return {"jacov": float(-(shifted.log() + 1 / shifted).sum())}
