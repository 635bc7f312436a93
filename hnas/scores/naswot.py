"""`naswot = ln |det K|`, where `K[i, j]` is the number of ReLU units in which samples i and j agree.

Two samples agree in a unit that is active for both or for neither. All units of all ReLUs count: every channel at every
position. In the networks of the spaces, a ReLU output that several layers read counts once per layer, because the
benchmarks' networks have a ReLU in each operation. NaN for a network without a ReLU, or where the rows of a ReLU cannot
be assigned to samples.

−inf where K is singular: where two images share a pattern, and where one pattern is an affine combination of others, as
always with more than U + 1 images, U the number of units. K holds integers, exactly. It is singular here if an
off-diagonal entry is U, or if it is singular in float64, λ_min ≤ m ε λ_max.

Source: Mellor, Turner, Storkey, Crowley, "Neural Architecture Search without Training", ICML 2021, `log|K_H|`;
`nwot` in NAS-Bench-Suite-Zero. The paper uses 128 images. Here the images are the run's batch, which hardly changes the
ranking: on 186 cells of NAS-Bench-201, ρ is 0.999 between 64 and 128 images, and 0.998 between either and the values
that FreeREA's authors computed. The program omits ReLUs that no backward pass reaches; a canonical network has none.

Invariant to the scale of any layer, and to the labels.

Cost: with the columns, a product of (m, units) matrices per ReLU; alone, a forward pass more.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from hnas.metrics.results import condition_number
from hnas.metrics.statistics import Statistics


class NASWOT:
    """The log-determinant of the matrix of agreements."""

    columns: ClassVar[tuple[str, ...]] = ("naswot",)
    version: ClassVar[int] = 1
    shared: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("agreements",)

    def __call__(self, seen: Statistics) -> dict[str, float]:
        """Return ln |det K|."""
        agreements = seen["agreements"]
        if not agreements[0, 0] > 0:
            return {"naswot": math.nan}
        if _singular(agreements):  # whose determinant would be a rounding error
            return {"naswot": -math.inf}
        return {"naswot": float(np.linalg.slogdet(agreements.numpy())[1])}


def _singular(agreements: Tensor) -> bool:
    """Whether K (m, m) is singular: a positive semi-definite matrix with the number of units on its diagonal."""
    if int((agreements == agreements[0, 0]).sum()) > len(agreements):  # two images share a pattern
        return True
    return math.isinf(condition_number(torch.linalg.eigvalsh(agreements), agreements.dtype))
