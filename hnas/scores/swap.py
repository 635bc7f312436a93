"""`swap = |{(s_1u, …, s_mu) : u}|`: the number of distinct sample-wise activation patterns among the ReLU units u.

`s_iu` is 1 if unit u is active for image i, else 0. The score is at most the number of units, and at most 2ᵐ. NaN for a
network without a ReLU, and where `naswot` is.

Regularised SWAP is `swap exp(−(params − μ)² / σ)` with μ and σ chosen per space; in SQL,
`swap_regularised(swap, params, mu, sigma)`. The program counts parameters in thousands.

Source: Peng, Song, Fayek, Ciesielski, Chang, "SWAP-NAS: Sample-Wise Activation Patterns for Ultra-fast NAS", ICLR 2024,
definition 3.2. Its program uses 16 images, averages 32 initialisations, and counts only ReLUs of feature maps, not
those between Linear layers.

Invariant to the scale of any layer, and to the labels. Grows with the number of units, and with m.

Cost: with the columns, packing the signs and sorting one 64-bit integer per unit; alone, a forward pass more.
"""

from __future__ import annotations

import math
from typing import ClassVar

from hnas.metrics.statistics import Statistics


class SWAP:
    """The number of distinct patterns."""

    columns: ClassVar[tuple[str, ...]] = ("swap",)
    version: ClassVar[int] = 1
    shared: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("patterns",)

    def __call__(self, seen: Statistics) -> dict[str, float]:
        """Return the number of patterns."""
        return {"swap": float(seen["patterns"]) or math.nan}
