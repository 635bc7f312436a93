"""`knas = (1/m²) Σ_ij Θ₀[i, j]`, the mean of the Gram matrix of the gradients `∇_θ f_{y_i}(x_i)`.

It is `‖(1/m) Σ_i ∇_θ f_{y_i}(x_i)‖₂²`, whether Θ₀ is `summed` or `exact`: the sum over samples undoes what they share
in batch norms. Weights and biases of Conv and Linear layers count.

Source: Xu, Zhao, Lin, Gao, Sun, Yang, "KNAS: Green Neural Architecture Search", ICML 2021, which defines the matrix by
the gradients of the outputs. Its program computes something else, the score `knas_program`.

Cost: nothing beside the columns, about a plain step alone.
"""

from __future__ import annotations

from typing import ClassVar

from hnas.metrics.statistics import Statistics


class KNAS:
    """The mean of the Gram matrix of gradients."""

    columns: ClassVar[tuple[str, ...]] = ("knas",)
    version: ClassVar[int] = 1
    shared: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("ntk_mean",)

    def __call__(self, seen: Statistics) -> dict[str, float]:
        """The mean of Θ₀."""
        return {"knas": float(seen["ntk_mean"])}
