"""`linear_regions`: in how many of the network's linear regions the batch's images lie.

Two images lie in one region where every ReLU unit is active for both or for neither. At most m, and on natural images
of 32 × 32 and networks of full width it is m almost always; TE-NAS counts it on networks of one channel and images of
3 × 3, which are those of the score `te_nas`. NaN as `naswot`.

Source: Chen, Gong, Wang, "Neural Architecture Search on ImageNet in Four GPU Hours: A Theoretically Inspired
Perspective" (TE-NAS), ICLR 2021, section 3.2.2.

Invariant to the scale of any layer, and to labels.

Cost: that of `naswot`, once for both.
"""

from __future__ import annotations

import math
from typing import ClassVar

from hnas.metrics.statistics import Statistics


class LinearRegions:
    """The number of distinct rows of the matrix of signs."""

    columns: ClassVar[tuple[str, ...]] = ("linear_regions",)
    version: ClassVar[int] = 1
    shared: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("agreements",)

    def __call__(self, seen: Statistics) -> dict[str, float]:
        """The number of images that no image before agrees with in all units."""
        units = seen["agreements"][0, 0]
        if not units > 0:
            return {"linear_regions": math.nan}
        return {"linear_regions": float(((seen["agreements"] == units).tril(-1).sum(1) == 0).sum())}
