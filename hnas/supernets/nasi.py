"""NASI: one step of α from the uniform distribution, along the gradient of an NTK-trace reward at initialisation.

    R(A) = s − μ max(0, s − ν),     s = ‖b⁻¹ Σ_x ∇_θ ℓ_x‖₂²,  θ the weights of all Conv and Linear layers
    G_t = ∇_{α₀} R(A_t),     A_t = softmax((log softmax(α₀) + g_t) / τ), g_t Gumbel noise,  α₀ = 0,  t = 1 … T
    Δ = (ξ / T) Σ_t G_t / max_{s ≤ t} ‖G_s‖₂
    the architecture is the largest entry of α₀ + Δ on each edge

Each t has its own batch of b images. T = 100, b = 64, ξ = 1, and μ = 2, ν = 100 as published for the DARTS space (the
values for NAS-Bench-201 are in an appendix that was not available); τ = 1. The supernet has the benchmark's size.

Published on NAS-Bench-201 as 93.55 ± 0.10 / 71.20 ± 0.14 / 44.84 ± 1.41 (CIFAR-10, CIFAR-100, ImageNet16-120) in 120 s.

Source: Shu, Cai, Dai, Ooi, Low, "NASI: Label- and Data-agnostic Neural Architecture Search at Initialization", ICLR
2022, eq. (8), (11) and (12); the authors have published no program.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hnas.optim.methods.protocol import between, whole
from hnas.spaces.nasbench201.cell import EDGES, OPERATIONS
from hnas.supernets.gradients import Batch
from hnas.supernets.images import TrainingImages
from hnas.supernets.mixing import gumbel_noise, gumbel_softmax
from hnas.supernets.network import Mixture, SuperNetwork, layout_on
from hnas.supernets.training import Course, Found, second_time
from hnas.training import Checkpoint, Progress
from hnas.training.data import Normalise


@dataclass(frozen=True)
class NASIRecipe:
    """`samples` is T, `batch_size` b, `step` ξ, `temperature` τ, `mu` and `nu` as above."""

    channels: int = 16
    cells: int = 5
    samples: int = 100
    batch_size: int = 64
    mu: float = 2.0
    nu: float = 100.0
    step: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for name in ("channels", "cells", "samples"):
            whole(name, getattr(self, name))
        whole("batch_size", self.batch_size, least=2)
        for name, least in (("mu", 0), ("nu", 0), ("step", 1e-9), ("temperature", 1e-9)):
            between(name, getattr(self, name), least, 1e12)


class NASI:
    """NASI and its state: the sum over t of the normalised gradients, and the largest norm so far."""

    recipe_class = NASIRecipe

    def __init__(self, images: TrainingImages, recipe: NASIRecipe, *, seed: int, device: torch.device) -> None:
        self.images, self.recipe, self.device = images.to(device), recipe, device
        self.generator = torch.Generator().manual_seed(seed)
        self.network = SuperNetwork(classes=images.classes, channels=recipe.channels, cells=recipe.cells, seed=seed).to(
            device
        )
        self.network.to(memory_format=layout_on(device))  # type: ignore[call-overload]
        self.normalise = Normalise(images.mean, images.std, next(self.network.parameters()))
        self.normalise.layout = layout_on(device)
        self.total = torch.zeros(len(EDGES), len(OPERATIONS))
        self.largest, self.t, self.seconds = 0.0, 0, 0.0

    def run(self, checkpoint: Checkpoint | None = None, progress: Progress | None = None) -> Found:
        """Process all samples, saving the state after each."""
        if checkpoint is not None and (state := checkpoint.load()) is not None:
            self.restore(state)
        while self.t < self.recipe.samples:
            begun = time.perf_counter()
            self.sample()
            self.seconds += time.perf_counter() - begun
            if checkpoint is not None:
                checkpoint.save(self.state())
            if progress is not None:
                progress(self.t, self.recipe.samples, float("nan"))
        decisions = tuple(self.total.argmax(dim=1).tolist())  # α₀ is 0, and ξ / T positive
        return Found(decisions, self.seconds, (Course(self.t, float("nan"), decisions),))

    def estimate(self) -> float:
        """Return the estimated seconds of all samples, from the second of two that it processes."""
        return self.recipe.samples * second_time(self.sample)

    def sample(self) -> None:
        """Add G_t of one architecture and one batch."""
        order = torch.randperm(len(self.images), generator=self.generator)[: self.recipe.batch_size]
        batch = next(self.images.batches(order, len(order), self.generator, self.normalise))
        alphas = torch.zeros(len(EDGES), len(OPERATIONS), requires_grad=True)
        weights = gumbel_softmax(alphas, gumbel_noise(alphas, self.generator), self.recipe.temperature)
        worth = reward(squared_gradient(self.network, Mixture(weights), batch), self.recipe.mu, self.recipe.nu)
        (gradient,) = torch.autograd.grad(worth, [alphas])
        self.largest = max(self.largest, float(gradient.norm()))
        if self.largest > 0:
            self.total += self.recipe.step / self.recipe.samples * gradient / self.largest
        self.t += 1

    def state(self) -> dict[str, Any]:
        """Return everything that the rest of the search depends on."""
        known = {name: getattr(self, name) for name in ("total", "largest", "t", "seconds")}
        return {**known, "generator": self.generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state`."""
        self.total, self.largest, self.t, self.seconds = (state[n] for n in ("total", "largest", "t", "seconds"))
        self.generator.set_state(state["generator"])


def squared_gradient(network: nn.Module, mixture: Mixture, batch: Batch) -> Tensor:
    """Return s of a batch: the squared norm of the mean loss's weight gradient, differentiable with respect to α."""
    images, labels = batch
    weights = [m.weight for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    loss = cross_entropy(network(images, mixture), labels)
    gradient = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
    parts = [(g * g).sum() for g in gradient if g is not None]
    return torch.stack(parts).sum()


def reward(s: Tensor, mu: float, nu: float) -> Tensor:
    """Return R for s, eq. (8)."""
    return s - mu * torch.relu(s - nu)
