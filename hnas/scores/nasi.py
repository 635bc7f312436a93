"""`nasi = ‖(1/m) Σ_i ∇_θ ℓ(f(x_i), y_i)‖₂²`, an estimate of the trace norm of Θ₀ over m from one gradient.

θ are the weights of all Conv and Linear layers, so the score is the square of the column `grad_norm_l2`. NASI's search
maximises it with a penalty, `nasi − μ max(0, nasi − ν)`, in SQL `nasi - mu * greatest(0, nasi - nu)`.

Source: Shu, Cai, Dai, Ooi, Low, "NASI: Label- and Data-agnostic Neural Architecture Search at Initialization", ICLR
2022. The exact trace norm over m is `nasi_trace` in the view `scores`. The authors have published no program.

Cost: none with the columns; alone, a plain training step.
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
        """Return ‖g‖₂²."""
        return {"nasi": float(seen["gradient"][1]) ** 2}
