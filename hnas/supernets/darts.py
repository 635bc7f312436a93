"""DARTS, first and second order: softmax mixtures, with α optimised on the validation loss.

The second order differentiates through one step of the weights (`hnas.supernets.gradients`), at about two and a half
times the cost of a step. Both are known to end in cells of skip connections only: published on NAS-Bench-201 as 54.30 /
15.61 / 16.32 (CIFAR-10, CIFAR-100, ImageNet16-120) in 16,281 s and 43,277 s.

Source: Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hnas.supernets.gradients import Batch, second_order
from hnas.supernets.mixing import softmax
from hnas.supernets.network import Mixture
from hnas.supernets.training import SupernetRecipe, WeightSharing


class DARTS(WeightSharing):
    """First-order DARTS."""

    def mixture(self, alphas: Tensor) -> Mixture:
        """See `WeightSharing`."""
        return softmax(alphas)


@dataclass(frozen=True)
class SecondOrderRecipe(SupernetRecipe):
    """`difference` is the r of the finite difference that replaces the second derivative."""

    difference: float = 1e-2


class SecondOrderDARTS(DARTS):
    """Second-order DARTS."""

    recipe_class: ClassVar[type[SupernetRecipe]] = SecondOrderRecipe
    recipe: SecondOrderRecipe

    def arch_gradient(self, train: Batch, valid: Batch) -> Tensor | None:
        """See `WeightSharing`."""
        buffers = {
            name: self.optimizer.state[p]["momentum_buffer"]
            for name, p in self.network.named_parameters()
            if self.optimizer.state[p].get("momentum_buffer") is not None
        }
        gradient, _ = second_order(
            self.network, self.mixture, self.alphas, train, valid,
            lr=self.optimizer.param_groups[0]["lr"], momentum=self.recipe.momentum,
            weight_decay=self.recipe.weight_decay, buffers=buffers, r=self.recipe.difference,
        )  # fmt: skip
        return gradient
