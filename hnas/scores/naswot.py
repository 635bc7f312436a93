"""`naswot = ln |det K|`, where `K[i, j]` is the number of ReLU units in which samples i and j agree.

Two samples agree in a unit that is active for both or for neither. All units of all ReLUs count: every channel at every
position. In the networks of the spaces, a ReLU output that several layers read counts once per layer, because the
benchmarks' networks have a ReLU in each operation. −inf where K is singular, that is, where two images share a pattern.
NaN for a network without a ReLU, or where the rows of a ReLU cannot be assigned to samples.

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

from hnas.metrics.statistics import Statistics


class NASWOT:
    """The log-determinant of the matrix of agreements."""

    columns: ClassVar[tuple[str, ...]] = ("naswot",)
    version: ClassVar[int] = 1
    shared: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("agreements",)

    def __call__(self, seen: Statistics) -> dict[str, float]:
        """Return ln |det K|."""
        if not seen["agreements"][0, 0] > 0:
            return {"naswot": math.nan}
        return {"naswot": float(np.linalg.slogdet(seen["agreements"].numpy())[1])}
