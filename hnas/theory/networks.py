"""Small fully connected networks in float64, written as arrays, and their empirical neural tangent kernel.

    h₀ = x,  z_l = h_{l−1} W_l,  h_l = σ(z_l) for l < L,  f(x; θ) = s z_L,  θ = (W₁, …, W_L)

W_l is drawn from N(0, g²/n_{l−1}), so that activations keep their size (g² = 2 for ReLU, 1 otherwise). The output is
scalar, and there are no biases. All arrays may have leading dimensions, to compute many networks of one shape at once.

The gradient of a sample factors in each layer, `∂f(x)/∂W_l = h_{l−1}ᵀ δ_l` with `δ_l = ∂f/∂z_l`, hence

    Θ₀(x, x') = Σ_l ⟨h_{l−1}(x), h_{l−1}(x')⟩ ⟨δ_l(x), δ_l(x')⟩

which needs no Jacobian.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: σ and its derivative as a function of z.
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "tanh": (torch.tanh, lambda z: 1 - torch.tanh(z) ** 2),
    "relu": (torch.relu, lambda z: (z > 0).to(z.dtype)),
    "linear": (lambda z: z, torch.ones_like),
}


@dataclass(frozen=True)
class Dense:
    """A fully connected network: `widths` = (inputs, hidden, …), an activation, and s, the `scale` of the output."""

    widths: tuple[int, ...]
    activation: str = "tanh"
    scale: float = 1.0

    def draw(self, generator: torch.Generator, *leading: int) -> tuple[Tensor, ...]:
        """θ₀ = (W₁, …, W_L), W_l of shape (*leading, n_{l−1}, n_l), in float64."""
        gain = math.sqrt(2) if self.activation == "relu" else 1.0
        shapes = zip(self.widths, (*self.widths[1:], 1), strict=True)
        return tuple(
            torch.randn(*leading, rows, columns, generator=generator, dtype=torch.float64) * (gain / math.sqrt(rows))
            for rows, columns in shapes
        )

    def outputs(self, weights: tuple[Tensor, ...], x: Tensor) -> Tensor:
        """f(x; θ), shape (…, m), for inputs x (m, n₀)."""
        return self.scale * self._forward(weights, x)[1][-1].squeeze(-1)

    def signals(self, weights: tuple[Tensor, ...], x: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """f (…, m), and for each layer h_{l−1} (…, m, n_{l−1}) and δ_l = ∂f/∂z_l (…, m, n_l)."""
        inputs, sums = self._forward(weights, x)
        derivative = ACTIVATIONS[self.activation][1]
        deltas = [torch.full_like(sums[-1], self.scale)]
        for weight, z in zip(weights[:0:-1], sums[-2::-1], strict=True):
            deltas.append(deltas[-1] @ weight.mT * derivative(z))
        return self.scale * sums[-1].squeeze(-1), inputs, deltas[::-1]

    def _forward(self, weights: tuple[Tensor, ...], x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        activate = ACTIVATIONS[self.activation][0]
        inputs, sums = [x], [x @ weights[0]]
        for weight in weights[1:]:
            inputs.append(activate(sums[-1]))
            sums.append(inputs[-1] @ weight)
        return inputs, sums


def tangent_kernel(network: Dense, weights: tuple[Tensor, ...], x: Tensor) -> Tensor:
    """Θ₀ (…, m, m): the Gram matrix of ∇_θ f(x_i; θ), layer by layer."""
    _, inputs, deltas = network.signals(weights, x)
    grams = [(h @ h.mT) * (delta @ delta.mT) for h, delta in zip(inputs, deltas, strict=True)]
    return torch.stack(grams).sum(0)


def trace_metric(theta: Tensor) -> Tensor:
    """M_Trace = √(‖Θ₀‖_tr / m), eq. (4), shape (…), of Θ₀ (…, m, m): the root mean square of ‖∇_θ f(x_i)‖."""
    return theta.diagonal(dim1=-2, dim2=-1).mean(-1).sqrt()


def condition_number(theta: Tensor) -> Tensor:
    """κ = λ_max(Θ₀) / λ_min(Θ₀), shape (…), of Θ₀ (…, m, m); `inf` where Θ₀ is singular to working precision."""
    eigenvalues = torch.linalg.eigvalsh(theta)
    least, largest = eigenvalues[..., 0], eigenvalues[..., -1]
    singular = least <= theta.shape[-1] * torch.finfo(theta.dtype).eps * largest
    return torch.where(singular, torch.inf, largest / least)
