"""GDAS: each pass computes one operation per edge, sampled with Gumbel noise at a temperature that falls to 0.1.

τ falls linearly from 10 to 0.1 over the epochs; w and α get independent noise in each step. Published on NAS-Bench-201
as 93.44 / 70.61 / 42.23 (CIFAR-10, CIFAR-100, ImageNet16-120) in 8,640 s; NAS-Bench-201's own script trains 250 epochs.

Source: Dong and Yang, "Searching for a Robust Neural Architecture in Four GPU Hours", CVPR 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hnas.supernets.mixing import gumbel, gumbel_noise
from hnas.supernets.network import Mixture
from hnas.supernets.training import SupernetRecipe, WeightSharing


@dataclass(frozen=True)
class GDASRecipe(SupernetRecipe):
    """`tau_max` and `tau_min` are the temperatures of the first and the last epoch."""

    tau_max: float = 10.0
    tau_min: float = 0.1


class GDAS(WeightSharing):
    """GDAS."""

    recipe_class: ClassVar[type[SupernetRecipe]] = GDASRecipe
    recipe: GDASRecipe

    @property
    def temperature(self) -> float:
        """τ of the current epoch."""
        high, low = self.recipe.tau_max, self.recipe.tau_min
        return high - (high - low) * self.epoch / max(1, self.recipe.supernet_epochs - 1)

    def mixture(self, alphas: Tensor) -> Mixture:
        """See `WeightSharing`."""
        return gumbel(alphas, gumbel_noise(alphas), self.temperature)
