"""`plain = θᵀ g`, signed, with g the gradient of the mean cross entropy in the weights θ of all Conv and Linear layers.

Source: the program of Abdelfattah, Mehrotra, Dudziak, Lane, "Zero-Cost Proxies for Lightweight NAS", ICLR 2021
(`plain`). Its absolute value is the column `snip_inner`. Under batch norm the share of every layer that reaches it
through linear layers alone is zero but for ε and rounding, so that little is left but the classifier's.

Cost: nothing beside the columns, a plain step alone.
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
        """`θᵀ g`."""
        return {"plain": float(seen["gradient"][0])}
