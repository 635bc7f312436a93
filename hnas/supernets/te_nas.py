"""TE-NAS: prune one operation per edge and round from a supernet, by trainability and expressivity at initialisation.

    the operations of each edge: all but none
    repeat until each edge has one:
        for each operation o that shares its edge, three times with new weights and images:
            δκ = (κ₀ − κ₋ₒ) / κ₀,     κ₀ of the current supernet, κ₋ₒ without o, with the same weights and images
            δR = (R₀ − R₋ₒ) / R₀,     likewise
        rank by the mean δκ, highest first, and by the mean δR, lowest first; add the ranks
        prune the first of each edge

κ = λ_max / λ_min of Θ = J Jᵀ, where row i of J is the gradient of the sum of image i's logits with respect to all
weights (including those of batch norms), for 72 images with batch statistics; 10⁵ where it is NaN. The network has 3
channels, 1 cell per stage, and weights N(0, 2 / fan_out); the remaining operations of an edge are averaged.

R is the number of distinct sign patterns of the inputs of all ReLUs in one cell with one channel, without stem,
followed by the head's batch norm, over 3 batches of 1,000 random 3×3 crops of a random colour channel; weights N(0, 2 /
fan_in).

Ranks follow the program: each δ is rounded to 3 decimals, and their mean to 3 significant figures for sorting (stable
for ties); consecutive entries share a rank only if their means are equal before that rounding. Here the eigenvalues for
κ are computed in float64, there in float32.

Published on NAS-Bench-201 as 93.90 ± 0.47 / 71.24 ± 0.56 / 42.38 ± 0.46 (CIFAR-10, CIFAR-100, ImageNet16-120) in 1,558
s.

Source: Chen, Gong, Wang, "Neural Architecture Search on ImageNet in Four GPU Hours", ICLR 2021 (prune_tenas.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from hnas.optim.methods.protocol import whole
from hnas.spaces.nasbench201.cell import EDGES, OPERATIONS
from hnas.supernets.images import TrainingImages
from hnas.supernets.network import CONV1, CONV3, NONE, MixedCell, Mixture, SuperNetwork, layout_on
from hnas.supernets.training import Course, Found, second_time
from hnas.training import Checkpoint, Progress
from hnas.training.data import Normalise

_NOT_A_NUMBER = 1e5
#: An edge and an operation on it.
Choice = tuple[int, int]


@dataclass(frozen=True)
class TENASRecipe:
    """Sizes as above; each round prunes `prune_number` operations per edge; δ has `precision` decimals."""

    channels: int = 3
    cells: int = 1
    batch_size: int = 72
    repeats: int = 3
    crops: int = 1000
    crop_batches: int = 3
    prune_number: int = 1
    precision: int = 3

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            whole(name, value, least=2 if name in ("batch_size", "crops") else 1)


class TENAS:
    """TE-NAS and its state: the remaining operations of each edge."""

    recipe_class = TENASRecipe

    def __init__(self, images: TrainingImages, recipe: TENASRecipe, *, seed: int, device: torch.device) -> None:
        self.images, self.recipe, self.device = images.to(device), recipe, device
        self.generator = torch.Generator().manual_seed(seed)
        self.network = SuperNetwork(
            classes=images.classes, channels=recipe.channels, cells=recipe.cells, affine=True
        ).to(device)
        self.cell = MixedCell(1, affine=True).to(device)
        self.left = [[o for o in range(len(OPERATIONS)) if o != NONE] for _ in EDGES]
        self.network.to(memory_format=layout_on(device))  # type: ignore[call-overload]
        self.normalise = Normalise(images.mean, images.std, next(self.network.parameters()))
        self.normalise.layout = layout_on(device)
        self._total = self.choices_left()
        self.seconds = 0.0
        self.course: list[Course] = []

    def run(self, checkpoint: Checkpoint | None = None, progress: Progress | None = None) -> Found:
        """Prune until each edge has one operation, saving the state after each round."""
        if checkpoint is not None and (state := checkpoint.load()) is not None:
            self.restore(state)
        while any(len(edge) > 1 for edge in self.left):
            begun = time.perf_counter()
            self.prune(progress)
            self.seconds += time.perf_counter() - begun
            self.course.append(Course(len(self.course) + 1, math.nan, tuple(edge[0] for edge in self.left)))
            if checkpoint is not None:
                checkpoint.save(self.state())
        return Found(tuple(edge[0] for edge in self.left), self.seconds, tuple(self.course))

    def estimate(self) -> float:
        """Return the estimated seconds of all rounds, from one pair of each measure."""
        everything = even(self.left)
        pair = second_time(lambda: self._kappas(everything, everything))
        pair += second_time(lambda: self._regions(everything, everything))
        return self.recipe.repeats * self.choices_left() * pair

    def choices_left(self) -> int:
        """Return the number of operations to try in this and all later rounds."""
        sizes, total = [len(edge) for edge in self.left], 0
        while max(sizes) > 1:
            total += sum(size for size in sizes if size > 1)
            number = self._number(sizes)
            sizes = [max(1, size - number) for size in sizes]
        return total

    def _number(self, sizes: list[int]) -> int:
        """Return how many operations to prune per edge, leaving at least one on the edge with the fewest."""
        return min(self.recipe.prune_number, min(size for size in sizes if size > 1) - 1)

    def prune(self, progress: Progress | None = None) -> None:
        """Run one round."""
        choices = [(e, o) for e, edge in enumerate(self.left) if len(edge) > 1 for o in edge]
        kappas: dict[Choice, float] = {}
        regions: dict[Choice, float] = {}
        left = self.choices_left()
        for k, (edge, operation) in enumerate(choices):
            without = [[o for o in ops if (e, o) != (edge, operation)] for e, ops in enumerate(self.left)]
            kappas[edge, operation] = self._mean_change(self._kappas, without)
            regions[edge, operation] = self._mean_change(self._regions, without)
            if progress is not None:
                progress(self._total - left + k + 1, self._total, math.nan)
        number = self._number([len(edge) for edge in self.left])
        for edge, operation in pruned(kappas, regions, number, self.recipe.precision):
            self.left[edge].remove(operation)

    def _mean_change(self, measure: Callable[..., list[float]], without: list[list[int]]) -> float:
        changes = []
        for _ in range(self.recipe.repeats):
            before, after = measure(even(self.left), even(without))
            changes.append(round((before - after) / before, self.recipe.precision))
        return sum(changes) / len(changes)

    def _kappas(self, *mixtures: Mixture) -> list[float]:
        order = torch.randperm(len(self.images), generator=self.generator)[: self.recipe.batch_size]
        inputs, _ = next(self.images.batches(order, len(order), self.generator, self.normalise))
        kaiming(self.network, "fan_out", self.generator)
        return [kappa(self.network, mixture, inputs) for mixture in mixtures]

    def _regions(self, *mixtures: Mixture) -> list[float]:
        batches = [self._crops() for _ in range(self.recipe.crop_batches)]
        kaiming(self.cell, "fan_in", self.generator)
        return [float(linear_regions(self.cell, mixture, batches)) for mixture in mixtures]

    def _crops(self) -> Tensor:
        """Return random crops (1,000, 1, 3, 3) of random images and colour channels."""
        images, generator = self.images.images, self.generator
        n = min(self.recipe.crops, len(images))
        index = torch.randperm(len(images), generator=generator)[:n]
        rows, columns, channels = (
            torch.randint(high, (n,), generator=generator) for high in (images.shape[2] - 2, images.shape[3] - 2, 3)
        )
        inputs = self.normalise(images[index.to(self.device)]).cpu()
        side = torch.arange(3)
        crops = inputs[
            torch.arange(n)[:, None, None], channels[:, None, None], rows[:, None, None] + side[:, None],
            columns[:, None, None] + side,
        ]  # fmt: skip
        return crops[:, None].to(self.device)

    def state(self) -> dict[str, Any]:
        """Return everything that the rest of the search depends on."""
        return {
            "left": self.left,
            "generator": self.generator.get_state(),
            "seconds": self.seconds,
            "course": [list(row) for row in self.course],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state`."""
        self.left, self.seconds = [list(edge) for edge in state["left"]], state["seconds"]
        self.course = [Course(epoch, loss, tuple(decisions)) for epoch, loss, decisions in state["course"]]
        self.generator.set_state(state["generator"])


def even(left: Sequence[Sequence[int]]) -> Mixture:
    """Return the mixture that averages the remaining operations of each edge."""
    weights = torch.zeros(len(EDGES), len(OPERATIONS))
    for edge, operations in enumerate(left):
        weights[edge, list(operations)] = 1 / len(operations)
    return Mixture(weights, tuple(tuple(operations) for operations in left))


def kaiming(network: nn.Module, mode: str, generator: torch.Generator) -> None:
    """Redraw the weights of all Conv and Linear layers from N(0, 2 / fan), and set biases to 0."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            drawn = torch.empty(module.weight.shape)
            nn.init.kaiming_normal_(drawn, mode=mode, nonlinearity="relu", generator=generator)  # type: ignore[arg-type]
            module.weight.data.copy_(drawn)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def kappa(network: nn.Module, mixture: Mixture, inputs: Tensor) -> float:
    """Return λ_max / λ_min of Θ (m, m) for the summed logits of inputs (m, 3, S, S); 10⁵ where it is NaN."""
    weights = [p for name, p in network.named_parameters() if "weight" in name]
    sums = network(inputs, mixture).sum(1)
    rows = []
    for i in range(len(sums)):
        gradients = torch.autograd.grad(sums[i], weights, retain_graph=True, allow_unused=True)
        rows.append(torch.cat([g.flatten() for g in gradients if g is not None]))
    jacobian = torch.stack(rows).double()
    eigenvalues = torch.linalg.eigvalsh(jacobian @ jacobian.T)
    ratio = float(eigenvalues[-1] / eigenvalues[0])
    return _NOT_A_NUMBER if math.isnan(ratio) else ratio


def linear_regions(cell: MixedCell, mixture: Mixture, batches: Sequence[Tensor]) -> int:
    """Return the number of distinct sign patterns of ReLU inputs in `cell` and after it, for images (n, 1, S, S)."""
    patterns = []
    with torch.no_grad():
        for images in batches:
            values = cell.nodes(images, mixture)
            seen = [
                value
                for node, value in enumerate(values)
                if any({CONV1, CONV3} & set(mixture.operations[e]) for e, (i, _) in enumerate(EDGES) if i == node)
            ]
            seen.append(batch_norm(values[-1], None, None, training=True))
            patterns.append(torch.cat([(value > 0).flatten(1) for value in seen], dim=1))
    return len(torch.unique(torch.cat(patterns), dim=0))


def pruned(
    kappas: Mapping[Choice, float], regions: Mapping[Choice, float], number: int, precision: int = 3
) -> list[Choice]:
    """Return the `number` operations to prune from each edge, by the mean changes δκ and δR of each operation."""
    by_kappa = _ranks(kappas, precision, descending=True)
    by_regions = _ranks(regions, precision, descending=False)
    gone: dict[int, list[Choice]] = {}
    for choice in sorted(by_kappa, key=lambda choice: by_kappa[choice] + by_regions[choice]):
        if len(gone.setdefault(choice[0], [])) < number:
            gone[choice[0]].append(choice)
    return [choice for choices in gone.values() for choice in choices]


def _ranks(changes: Mapping[Choice, float], precision: int, *, descending: bool) -> dict[Choice, int]:
    """Return ranks from 0 in the order of the rounded changes; only equal unrounded changes share a rank."""
    order = sorted(changes, key=lambda choice: _significant(changes[choice], precision), reverse=descending)
    ranks: dict[Choice, int] = {}
    for before, choice in zip([None, *order[:-1]], order, strict=True):
        if before is None:
            ranks[choice] = 0
        else:
            ranks[choice] = ranks[before] + (changes[before] != changes[choice])
    return ranks


def _significant(number: float, figures: int) -> float:
    """Round `number` to this many significant figures."""
    if number == 0:
        return number
    size = abs(number) + 1e-8
    scale = 10.0 ** (math.floor(math.log10(size)) + 1)
    return math.copysign(round(size / scale, figures) * scale, number)
