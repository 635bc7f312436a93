"""Theorem 1: gradient norm, SNIP and GraSP are bounded by the trace norm of the tangent kernel.

For a loss ℓ(f, y) that is β-Lipschitz in f, and one-output networks:

    M_Grad  = ‖1/m Σ ∇ℓ_i‖                eq. (2)    ≤ C₁ M_Trace,    C₁ = β
    M_SNIP  = |1/m Σ θ₀ᵀ ∇ℓ_i|            eq. (3)    ≤ C₂ M_Trace,    C₂ = β ‖θ₀‖
    M_GraSP = |1/m Σ θ₀ᵀ (H_i ∇ℓ_i)|      eq. (3)    ≤ C₃ M_Trace,    C₃ = β ‖θ₀‖ max_i ‖H_i‖

with ∇ℓ_i and H_i the gradient and Hessian of ℓ(f(x_i; θ), y_i) at θ₀, and ‖H_i‖ the largest |eigenvalue|. These
constants follow from the Cauchy–Schwarz inequality, and the bounds hold always, not only with high probability:
∇ℓ_i = ℓ'_i ∇f_i with |ℓ'_i| ≤ β, and (1/m Σ ‖∇f_i‖)² ≤ 1/m Σ ‖∇f_i‖² = M_Trace².
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, hessian, vmap
from torch.nn import functional as F

from hnas.theory.networks import Dense, tangent_kernel, trace_metric


@dataclass(frozen=True)
class Loss:
    """A loss ℓ(f, y) of one output and a label y = ±1, with its Lipschitz constant β in f."""

    name: str
    value: Callable[[Tensor, Tensor], Tensor]
    beta: float


LOSSES = (
    Loss("logistic", lambda f, y: F.softplus(-y * f), 1.0),
    Loss("huber", lambda f, y: F.huber_loss(f, y, reduction="none", delta=0.5), 0.5),
)


@dataclass(frozen=True)
class Connection:
    """The metrics of one network and the constants of Theorem 1, both in the order gradient norm, SNIP, GraSP."""

    metrics: tuple[float, float, float]
    constants: tuple[float, float, float]
    trace: float

    @property
    def ratios(self) -> tuple[float, ...]:
        """M / (C M_Trace), at most 1 if the inequality holds; 0 for a dead network, whose sides are both zero."""
        pairs = zip(self.metrics, self.constants, strict=True)
        return tuple(metric / max(constant * self.trace, sys.float_info.min) for metric, constant in pairs)


def connection(network: Dense, weights: tuple[Tensor, ...], x: Tensor, y: Tensor, loss: Loss) -> Connection:
    """The three metrics, M_Trace and the constants, for inputs x (m, n₀), labels y (m,) and one network's weights.

    Forms the whole Hessian of every sample: P² numbers for P parameters.
    """
    theta = torch.cat([weight.flatten() for weight in weights])

    def of_sample(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        parts = torch.split(theta, [weight.numel() for weight in weights])
        shaped = tuple(part.view_as(weight) for part, weight in zip(parts, weights, strict=True))
        return loss.value(network.outputs(shaped, x[None]), y[None]).sum()

    gradients = vmap(grad(of_sample), (None, 0, 0))(theta, x, y)
    hessians = vmap(hessian(of_sample), (None, 0, 0))(theta, x, y)
    products = (hessians @ gradients[..., None]).squeeze(-1)
    norm = float(theta.norm())
    curvature = float(torch.linalg.eigvalsh(hessians).abs().max())
    return Connection(
        metrics=(
            float(gradients.mean(0).norm()),
            float((gradients @ theta).mean().abs()),
            float((products @ theta).mean().abs()),
        ),
        constants=(loss.beta, loss.beta * norm, loss.beta * norm * curvature),
        trace=float(trace_metric(tangent_kernel(network, weights, x))),
    )


@dataclass(frozen=True)
class Measured:
    """A network of the study of Theorem 1: its width, activation, loss and initialisation, and its metrics."""

    width: int
    activation: str
    loss: str
    initialisation: int
    connection: Connection


def study(
    seed: int, *, widths: tuple[int, ...] = (2, 4, 8, 16), initialisations: int = 4, inputs: int = 8, samples: int = 8
) -> list[Measured]:
    """Theorem 1 on networks with two hidden layers, over widths, activations, losses and initialisations.

    The inputs are uniform on the unit sphere, and the labels are ±1 at random.
    """
    generator = torch.Generator().manual_seed(seed)
    x = F.normalize(torch.randn(samples, inputs, generator=generator, dtype=torch.float64), dim=-1)
    y = torch.randint(0, 2, (samples,), generator=generator).double() * 2 - 1
    return [
        Measured(width, activation, loss.name, i, connection(network, network.draw(generator), x, y, loss))
        for width in widths
        for activation in ("tanh", "relu")
        for network in [Dense((inputs, width, width), activation)]
        for loss in LOSSES
        for i in range(initialisations)
    ]
