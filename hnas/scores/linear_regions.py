"""`linear_regions`: the number of the network's linear regions that contain images of the batch.

Two images lie in the same region if every ReLU unit is active for both or for neither. The score is at most m, and for
natural 32 × 32 images and networks of full width it is almost always m. TE-NAS counts regions for networks with one
channel and 3 × 3 images instead, as in the score `te_nas`. NaN where `naswot` is.

Source: Chen, Gong, Wang, "Neural Architecture Search on ImageNet in Four GPU Hours: A Theoretically Inspired
Perspective" (TE-NAS), ICLR 2021, section 3.2.2.

Invariant to the scale of any layer, and to the labels.

Cost: that of `naswot`, shared with it.
"""

from __future__ import annotations

import math
from typing import ClassVar

from hnas.metrics.statistics import Statistics


class LinearRegions:
    """The number of distinct activation patterns among the images."""

    columns: ClassVar[tuple[str, ...]] = ("linear_regions",)
    version: ClassVar[int] = 1
    shared: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("agreements",)

    def __call__(self, seen: Statistics) -> dict[str, float]:
        """Return the number of images that agree with no earlier image in all units."""
        units = seen["agreements"][0, 0]
        if not units > 0:
            return {"linear_regions": math.nan}
        return {"linear_regions": float(((seen["agreements"] == units).tril(-1).sum(1) == 0).sum())}
