"""`plain = θᵀ g`, signed, for the weights θ of all Conv and Linear layers and the gradient g of the mean cross entropy.

Source: the program of Abdelfattah, Mehrotra, Dudziak, Lane, "Zero-Cost Proxies for Lightweight NAS", ICLR 2021
(`plain`). Its absolute value is the column `snip_inner`. A layer that feeds a batch norm, directly or through linear
operations, contributes zero up to ε and rounding, so little remains besides the classifier's contribution.

Cost: none with the columns; alone, a plain training step.
"""

from __future__ import annotations

from typing import ClassVar

from hnas.metrics.statistics import Statistics


class Plain:
    """The inner product of weights and gradient."""

    columns: ClassVar[tuple[str, ...]] = ("plain",)
    version: ClassVar[int] = 1
    shared: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("gradient",)

    def __call__(self, seen: Statistics) -> dict[str, float]:
        """Return `θᵀ g`."""
        return {"plain": float(seen["gradient"][0])}
