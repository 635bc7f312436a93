"""`nasi = ‖(1/m) Σ_i ∇_θ ℓ(f(x_i), y_i)‖₂²`, the trace norm of Θ₀ over m, estimated by one gradient.

The weights θ are those of all Conv and Linear layers, so that it is the square of the column `grad_norm_l2`. NASI's
search maximises it with a penalty, `nasi − μ max(0, nasi − ν)`, which is an expression in SQL:
`nasi - mu * greatest(0, nasi - nu)`.

Source: Shu, Cai, Dai, Ooi, Low, "NASI: Label- and Data-agnostic Neural Architecture Search at Initialization", ICLR
2022. The exact trace norm over m is `nasi_trace` in the view `scores`. No program of the authors is public.

Cost: nothing beside the columns, a plain step alone.
"""

from __future__ import annotations

from typing import ClassVar

from hnas.metrics.statistics import Statistics


class NASI:
    """The squared norm of the mean gradient."""

    columns: ClassVar[tuple[str, ...]] = ("nasi",)
    version: ClassVar[int] = 1
    shared: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("gradient",)

    def __call__(self, seen: Statistics) -> dict[str, float]:
        """‖g‖₂²."""
        return {"nasi": float(seen["gradient"][1]) ** 2}
