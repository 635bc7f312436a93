"""`knas = (1/m²) Σ_ij Θ₀[i, j]`, the mean of the Gram matrix of the gradients `∇_θ f_{y_i}(x_i)`.

It equals `‖(1/m) Σ_i ∇_θ f_{y_i}(x_i)‖₂²` for `summed` and `exact` Θ₀ alike, because the coupling of samples by batch
norms drops out of the sum over samples. θ are the weights and biases of Conv and Linear layers.

Source: Xu, Zhao, Lin, Gao, Sun, Yang, "KNAS: Green Neural Architecture Search", ICML 2021, which defines the matrix by
the gradients of the outputs. Its program computes something else, here the score `knas_program`.

Cost: none with the columns; alone, about a plain training step.
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
        """Return the mean of Θ₀."""
        return {"knas": float(seen["ntk_mean"])}
