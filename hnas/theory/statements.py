"""Every statement of the theory, measured now: what `hnas.theory.checks` returns."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jacrev

from hnas.theory import connections, topology
from hnas.theory.networks import condition_number
from hnas.theory.results import Check


def checks(seed: int = 0) -> tuple[Check, ...]:
    """All checks in the order of the paper, about ten seconds on one core. The same seed gives the same numbers.

    Those over random draws allow five standard errors, so that no seed is likely to fail by chance.
    """
    return (*_theorem1(seed), *_theorem3(seed))


def _theorem1(seed: int) -> list[Check]:
    found = connections.study(seed, initialisations=2)
    worst = [max(ratios) for ratios in zip(*(network.found.ratios for network in found), strict=True)]
    statements = (
        ("gradient norm", "‖1/m Σ ∇ℓ_i‖ ≤ β M_Trace"),
        ("SNIP", "|1/m Σ θ₀ᵀ ∇ℓ_i| ≤ β ‖θ₀‖ M_Trace"),
        ("GraSP", "|1/m Σ θ₀ᵀ H_i ∇ℓ_i| ≤ β ‖θ₀‖ max ‖H_i‖ M_Trace"),
    )
    quantity = f"largest left side / right side of {len(found)} networks"
    return [
        Check(name, "Theorem 1", statement, quantity, ratio, 1.0)
        for (name, statement), ratio in zip(statements, worst, strict=True)
    ]


def _theorem3(seed: int) -> list[Check]:
    generator = torch.Generator().manual_seed(seed)
    n, m, depth, draws = 12, 3, 3, 4000
    x = topology.orthonormal(n, m, generator)
    weights = torch.randn(draws, depth, n, n, generator=generator, dtype=torch.float64)
    kernel = _gram(topology.wide, weights[0], x)
    identity = torch.eye(m, dtype=torch.float64)
    deviation = float((kernel / (depth * n) - identity).abs().max())
    kernels = topology.deep_kernel(weights, x) / topology.deep_mean(n, depth)
    spread = topology.deep_spread(n, depth)
    exact = torch.where(identity > 0, spread.diagonal, spread.off_diagonal)
    errors = (kernels.mean(0) - identity).abs() / (exact / math.sqrt(draws))
    squares = (kernels - identity).square()
    off = (squares.mean(0) - exact.square()).abs() / (squares.std(0) / math.sqrt(draws))
    predicted, median = _median_kappa(generator)
    return [
        Check(
            "wide architecture",
            "Theorem 3",
            "Θ₀ = L n I for f(x) = 1ᵀ Σ W⁽ⁱ⁾ x, hence κ = 1",
            f"largest entry of |Θ₀ / (L n) − I|, L = {depth}, n = {n}",
            deviation,
            1e-12,
        ),
        Check(
            "deep architecture",
            "Theorem 3",
            "E[Θ'₀] = L nᴸ I for f'(x) = 1ᵀ Π W⁽ⁱ⁾ x",
            f"largest deviation of the mean of {draws:,} draws, in standard errors",
            float(errors.max()),
            5.0,
        ),
        Check(
            "spread of the deep architecture",
            "derived",
            "the standard deviation of the entries of Θ'₀, in closed form",
            f"largest deviation of the variance of {draws:,} draws, in standard errors",
            float(off.max()),
            5.0,
        ),
        Check(
            "κ of the deep architecture",
            "derived",
            "for two inputs, median κ = (1 + ρ) / (1 − ρ) with ρ = √(2 ln 2) standard deviations of Θ'₀(x, x')",
            f"|ln κ measured / ln κ predicted − 1|; measured median {median:.3f}, predicted {predicted:.3f}",
            abs(math.log(median) / math.log(predicted) - 1),
            0.15,
        ),
    ]


def _gram(function: Callable[[Tensor, Tensor], Tensor], weights: Tensor, x: Tensor) -> Tensor:
    """Θ₀ from the gradients themselves, by autograd."""
    jacobian: Tensor = jacrev(function)(weights, x).flatten(1)
    return jacobian @ jacobian.mT


def _median_kappa(generator: torch.Generator) -> tuple[float, float]:
    """κ of `deep` for two inputs, L = 3 and n = 64: predicted median, and that of 1,000 draws."""
    n, depth, draws = 64, 3, 1000
    x = topology.orthonormal(n, 2, generator)
    weights = torch.randn(draws, depth, n, n, generator=generator, dtype=torch.float64)
    rho = math.sqrt(2 * math.log(2)) * topology.deep_spread(n, depth).off_diagonal
    return (1 + rho) / (1 - rho), float(condition_number(topology.deep_kernel(weights, x)).median())
