"""`l2_norm = Σ_l ‖θ_l‖₂` over the weights θ_l of all Conv and Linear layers, without biases.

Source: Abdelfattah, Mehrotra, Dudziak, Lane, "Zero-Cost Proxies for Lightweight NAS", ICLR 2021, whose program calls
it `l2_norm`. It depends on the weights alone, not on images. Since it counts unused weights too, it is defined on the
canonical network, which has none. Among networks with the same number of layers of each shape, it ranks by the random
draw of the weights alone.

Cost: one pass over the weights.
"""

from __future__ import annotations

from typing import ClassVar

from hnas.metrics.statistics import Statistics


class L2Norm:
    """The sum of the layers' norms."""

    columns: ClassVar[tuple[str, ...]] = ("l2_norm",)
    version: ClassVar[int] = 1
    shared: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("weight_norms",)

    def __call__(self, seen: Statistics) -> dict[str, float]:
        """Return Σ_l ‖θ_l‖₂."""
        return {"l2_norm": float(seen["weight_norms"].sum())}
