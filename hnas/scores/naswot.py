"""`naswot = ln |det K|`, with `K[i, j]` the number of ReLU units that samples i and j agree in.

They agree in a unit that is active for both or for neither. All ReLUs count, with all their units: every channel at
every position. One that several layers read counts for each of them in the networks of the spaces, since the
benchmarks' networks have a ReLU in each operation. −inf where K is singular: two images with one pattern. NaN for a
network without a ReLU, or with one of which it cannot be found out which sample each row belongs to.

Source: Mellor, Turner, Storkey, Crowley, "Neural Architecture Search without Training", ICML 2021, `log|K_H|`;
`nwot` in NAS-Bench-Suite-Zero. The paper has 128 images. Here they are the run's batch, which changes no rank: on 186
cells of NAS-Bench-201, ρ between 64 and 128 images is 0.999, and with the numbers that FreeREA's authors computed 0.998
for either. The program leaves out ReLUs that no backward pass reaches; a canonical network has none.

Invariant to the scale of any layer, and to labels.

Cost: a product of (m, units) matrices for each ReLU beside the columns; a forward pass alone.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from hnas.metrics.statistics import Statistics


class NASWOT:
    """The logarithm of the determinant of the agreements."""

    columns: ClassVar[tuple[str, ...]] = ("naswot",)
    version: ClassVar[int] = 1
    shared: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("agreements",)

    def __call__(self, seen: Statistics) -> dict[str, float]:
        """ln |det K|."""
        if not seen["agreements"][0, 0] > 0:
            return {"naswot": math.nan}
        return {"naswot": float(np.linalg.slogdet(seen["agreements"].numpy())[1])}
