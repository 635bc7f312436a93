"""DrNAS: mixtures drawn from a Dirichlet distribution with concentrations elu(α) + 1.

One stage as in `train_search.py`: 100 epochs, and α moves before w in each step, from the first epoch. With
`progressive`, two stages as in `train_search_progressive.py`: during the first half of the epochs a quarter of the
channels is mixed; then the three operations with the largest α are kept on each edge, and half of the channels is
mixed, in layers widened by copies of randomly drawn channels with their momentum (Net2Net). α is fixed during the first
`warm_up` epochs of each stage, 10 in that program.

Published on NAS-Bench-201 as 94.36 / 73.51 / 46.34 (CIFAR-10, CIFAR-100, ImageNet16-120), and by the authors of HNAS,
who shortened the search, as 93.98 / 72.31 / 44.02 in 14,887 s.

Source: Chen, Wang, Cheng, Tang, Hsieh, "DrNAS: Dirichlet Neural Architecture Search", ICLR 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from hnas.supernets.gradients import Batch
from hnas.supernets.mixing import dirichlet
from hnas.supernets.network import Mixture
from hnas.supernets.training import SupernetRecipe, WeightSharing

_KEEP = 3
_SHARES = (4, 2)
_WARM_UP = 10


@dataclass(frozen=True)
class DrNASRecipe(SupernetRecipe):
    """`progressive` 1 selects the two-stage search; `warm_up` −1 stands for 10 epochs there and 0 otherwise."""

    supernet_epochs: int = 100
    weight_decay: float = 3e-4
    nesterov: int = 0
    clip: float = 5.0
    progressive: int = 0
    warm_up: int = -1


class DrNAS(WeightSharing):
    """DrNAS."""

    recipe_class: ClassVar[type[SupernetRecipe]] = DrNASRecipe
    recipe: DrNASRecipe
    alphas_first: ClassVar[bool] = True

    def __init__(self, *args: Any, **options: Any) -> None:
        self.kept: Tensor | None = None  # (6, 5), after the first stage
        super().__init__(*args, **options)

    def _network(self, seed: int, share: int | None = None) -> Any:
        return super()._network(seed, share or (_SHARES[0] if self.recipe.progressive else 1))

    def mixture(self, alphas: Tensor) -> Mixture:
        """See `WeightSharing`."""
        return dirichlet(alphas, self.kept)

    @property
    def _second_stage(self) -> int:
        """The first epoch of the second stage."""
        return (self.recipe.supernet_epochs + 1) // 2

    def begin_epoch(self) -> None:
        """See `WeightSharing`."""
        if self.recipe.progressive and self.epoch == self._second_stage:
            self.kept = largest(self.alphas.detach(), _KEEP)
            self.alphas.data[~self.kept] = 0
            self._widen()

    def arch_gradient(self, train: Batch, valid: Batch) -> Tensor | None:
        """See `WeightSharing`."""
        begun = self._second_stage if self.recipe.progressive and self.epoch >= self._second_stage else 0
        warm_up = self.recipe.warm_up if self.recipe.warm_up >= 0 else _WARM_UP * self.recipe.progressive
        return super().arch_gradient(train, valid) if self.epoch - begun >= warm_up else None

    def standing(self) -> tuple[int, ...]:
        """See `WeightSharing`."""
        alphas = self.alphas.detach()
        alphas = alphas if self.kept is None else alphas.masked_fill(~self.kept, -torch.inf)
        return tuple(alphas.argmax(dim=1).tolist())

    def _widen(self) -> None:
        """Mix more channels: widen layers by copies of inputs and outputs, including their momentum."""
        old = dict(self.network.named_parameters())
        state = self.optimizer.state
        momentum = {name: state[p].get("momentum_buffer") for name, p in old.items()}
        buffers = dict(self.network.named_buffers())
        self.network = self._network(0, _SHARES[1])
        self.optimizer = self._sgd()
        with torch.no_grad():
            for name, p in self.network.named_parameters():
                weight, buffer = old[name].detach(), momentum[name]
                if weight.shape != p.shape:
                    inputs, outputs = (self._copies(weight.shape[axis], p.shape[axis]) for axis in (1, 0))
                    weight = widened(weight, inputs, outputs)
                    buffer = None if buffer is None else widened(buffer, inputs, outputs)
                p.copy_(weight)
                if buffer is not None:
                    self.optimizer.state[p]["momentum_buffer"] = buffer.clone()
            for name, b in self.network.named_buffers():
                b.copy_(buffers[name])

    def _copies(self, n: int, total: int) -> Tensor:
        return torch.randint(n, (total - n,), generator=self.generator).to(self.device)

    def extra_state(self) -> dict[str, Any]:
        """See `WeightSharing`."""
        return {"kept": self.kept}

    def restore_extra(self, state: dict[str, Any]) -> None:
        """See `WeightSharing`."""
        self.kept = state["kept"]
        if self.kept is not None:
            self.network = self._network(0, _SHARES[1])
            self.optimizer = self._sgd()


def largest(alphas: Tensor, keep: int) -> Tensor:
    """Return a mask (6, 5) of the `keep` largest α of each edge."""
    return torch.zeros_like(alphas, dtype=torch.bool).scatter_(1, alphas.topk(keep, dim=1).indices, True)


def widened(weight: Tensor, inputs: Tensor, outputs: Tensor) -> Tensor:
    """Append copies of these inputs, then of these outputs, to a convolution's weight (out, in, k, k)."""
    wide = torch.cat([weight, weight[:, inputs]], dim=1)
    return torch.cat([wide, wide[outputs]])
