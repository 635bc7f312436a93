"""Gradient descent on the squared error, and its prediction by the tangent kernel at initialisation.

    L_S(f) = 1/(2m) Σ_i (f(x_i) − y_i)²,   θ_{t+1} = θ_t − η ∇L_S(f_t),   η ≤ m / λ_max(Θ₀)

While the kernel stays at its initial value, the residuals r_t = (f_t(x_i) − y_i)_i obey r_{t+1} = (I − η Θ₀/m) r_t.
Hence, with (λ_i, u_i) the eigenpairs of Θ₀ and ‖r₀‖² ≤ m,

    L_S(f_t) = 1/(2m) Σ_i (1 − η λ_i/m)^{2t} ⟨u_i, r₀⟩²      `linear_training_error`
             ≤ ½ (m − η M_Trace²)^{2t}                       `printed_bound`
    L_S(f_t) ≤ ½ (1 − η λ_min/m)^{2t}
             ≤ ½ (1 − η M_Trace² / (m κ))^{2t}               `rate_bound`

The second line is the first term of Corollary 2 for C = 1. It follows from ⟨u_i, r₀⟩² ≤ m, Σ_i η λ_i/m = η M_Trace² and
Σ a_i^p ≤ (Σ a_i)^p for a_i ≥ 0, p ≥ 1. For another metric M ≤ C_k M_Trace (Theorem 1), M²/C with C = C_k² replaces
M_Trace². The line is below ½ only if Σ_i (1 − η λ_i/m) < 1; even with the largest step, this requires that the mean
eigenvalue exceed (1 − 1/m) λ_max. The last line, derived here from λ_min = λ_max/κ ≥ M_Trace²/κ, never exceeds ½.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hnas.theory.networks import Dense, condition_number, tangent_kernel, trace_metric


@dataclass(frozen=True)
class Task:
    """Inputs x (m, n₀) with labels y (m,), and test inputs and labels that represent the whole distribution."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor


@dataclass(frozen=True)
class Descent:
    """The gradient descent of B networks, with their errors at the steps `times` (T,).

    eta (B,) is the step size, kernel (B, m, m) is Θ₀, residual (B, m) is r₀; training and generalisation (B, T) are
    L_S(f_t) and L_g(f_t), the means of ½ (f_t − y)² over training and test inputs.
    """

    times: Tensor
    eta: Tensor
    kernel: Tensor
    residual: Tensor
    training: Tensor
    generalisation: Tensor

    @property
    def trace(self) -> Tensor:
        """M_Trace (B,)."""
        return trace_metric(self.kernel)

    @property
    def kappa(self) -> Tensor:
        """κ(Θ₀) (B,)."""
        return condition_number(self.kernel)


def descend(
    network: Dense, weights: tuple[Tensor, ...], task: Task, times: tuple[int, ...], *, step: float = 0.5
) -> Descent:
    """Run gradient descent from `weights`, each (B, n_{l−1}, n_l), with η = `step` · m / λ_max(Θ₀) for each network.

    `times` is ascending and begins with 0; its last entry is the number of steps.
    """
    m = len(task.y)
    kernel = tangent_kernel(network, weights, task.x)
    eta = step * m / torch.linalg.eigvalsh(kernel)[..., -1]
    first = network.outputs(weights, task.x) - task.y
    training, generalisation = [], []
    for t in range(times[-1] + 1):
        outputs, inputs, deltas = network.signals(weights, task.x)
        residual = outputs - task.y
        if t in times:
            training.append(residual.square().mean(-1) / 2)
            generalisation.append((network.outputs(weights, task.test_x) - task.test_y).square().mean(-1) / 2)
        scaled = (eta[..., None] * residual / m)[..., None]
        weights = tuple(w - h.mT @ (scaled * delta) for w, h, delta in zip(weights, inputs, deltas, strict=True))
    return Descent(torch.tensor(times), eta, kernel, first, torch.stack(training, -1), torch.stack(generalisation, -1))


def linear_training_error(descent: Descent) -> Tensor:
    """L_S(f_t) for the kernel at initialisation, shape (B, T): 1/(2m) Σ_i (1 − η λ_i/m)^{2t} ⟨u_i, r₀⟩²."""
    eigenvalues, vectors = torch.linalg.eigh(descent.kernel)
    m = eigenvalues.shape[-1]
    shrinkage = (1 - descent.eta[..., None] * eigenvalues / m)[..., None, :] ** (2 * descent.times[:, None])
    coordinates = (vectors.mT @ descent.residual[..., None]).squeeze(-1).square()
    error: Tensor = (shrinkage * coordinates[..., None, :]).sum(-1) / (2 * m)
    return error


def printed_bound(descent: Descent) -> Tensor:
    """½ (m − η M_Trace²)^{2t}, shape (B, T): the first term of Corollary 2 for C = 1."""
    m = descent.kernel.shape[-1]
    return (m - descent.eta * descent.trace**2)[..., None] ** (2 * descent.times) / 2


def rate_bound(descent: Descent) -> Tensor:
    """½ (1 − η M_Trace² / (m κ))^{2t}, shape (B, T)."""
    m = descent.kernel.shape[-1]
    return (1 - descent.eta * descent.trace**2 / (m * descent.kappa))[..., None] ** (2 * descent.times) / 2
