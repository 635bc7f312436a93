"""Theorem 2 and its corollaries along real gradient descent, with fitted constants in place of O(·).

    Theorem 2      L_g(f_t) ≤ L_S(f_t) + O(κ/M)
    Corollary 1    L_g(f_t) ≤ O(1/M)                             where the labels can be fitted (realizable)
    Corollary 2    L_g(f_t) ≤ ½ (m − η M²/C)^{2t} + O(κ/M)       where they cannot (non-realizable)

Here M = M_Trace and C = 1. The constant of a bound is the smallest that holds for one half of the networks; the other
half tests it. Labels lie in [0, 1], so the error ½ (f − y)² of an f in [0, 1] is at most ½, and a bound above ½ is
vacuous.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hnas.theory.descent import Task, descend, linear_training_error, printed_bound, rate_bound
from hnas.theory.networks import Dense

ARCHITECTURES = tuple(
    Dense((6, *(width for _ in range(hidden))), activation, scale=0.5)
    for activation in ("tanh", "relu")
    for hidden in (1, 2, 3)
    for width in (16, 64)
)
TIMES = (0, 1, 3, 10, 30, 100, 200)


def sphere_task(seed: int, *, noise: float, samples: int = 16, tests: int = 400) -> Task:
    """Inputs uniform on the unit sphere in R⁶, with labels y = (1 + tanh(2 x₁ + x₂)) / 2.

    Each label becomes 1 − y with probability `noise`, both in training and in test data.
    """
    generator = torch.Generator().manual_seed(seed)

    def labelled(count: int) -> tuple[Tensor, Tensor]:
        x = F.normalize(torch.randn(count, 6, generator=generator, dtype=torch.float64), dim=-1)
        y = (1 + torch.tanh(2 * x[:, 0] + x[:, 1])) / 2
        mirrored = torch.rand(count, generator=generator) < noise
        return x, torch.where(mirrored, 1 - y, y)

    return Task(*labelled(samples), *labelled(tests))


@dataclass(frozen=True)
class Trained:
    """N networks after gradient descent, with their errors at the T steps of `TIMES`.

    kappa and trace (N,) are κ and M_Trace of Θ₀; training and generalisation (N, T) are L_S(f_t) and L_g(f_t); printed
    and rate (N, T) are the bounds on L_S(f_t) of `hnas.theory.descent`.
    """

    kappa: Tensor
    trace: Tensor
    training: Tensor
    generalisation: Tensor
    printed: Tensor
    rate: Tensor

    @property
    def gap(self) -> Tensor:
        """max_t L_g(f_t) − L_S(f_t), shape (N,)."""
        return (self.generalisation - self.training).amax(-1)


def train(seed: int, *, noise: float, initialisations: int = 4) -> Trained:
    """Train every architecture from several initialisations on `sphere_task`."""
    data = sphere_task(seed, noise=noise)
    generator = torch.Generator().manual_seed(seed)
    runs = [descend(network, network.draw(generator, initialisations), data, TIMES) for network in ARCHITECTURES]
    return Trained(
        kappa=torch.cat([run.kappa for run in runs]),
        trace=torch.cat([run.trace for run in runs]),
        training=torch.cat([run.training for run in runs]),
        generalisation=torch.cat([run.generalisation for run in runs]),
        printed=torch.cat([printed_bound(run) for run in runs]),
        rate=torch.cat([rate_bound(run) for run in runs]),
    )


@dataclass(frozen=True)
class Fitted:
    """A bound with its fitted constant, on the n networks that test it: both sides (n, T)."""

    constant: float
    left: Tensor
    right: Tensor

    @property
    def broken(self) -> float:
        """The share of networks that break the bound at any step."""
        return float((self.left > self.right).any(-1).double().mean())

    @property
    def informative(self) -> float:
        """The share of networks whose bound is below ½ at the last step."""
        return float((self.right[:, -1] < 0.5).double().mean())


def random_halves(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Split the indices 0 … count − 1 into two halves at random."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[: count // 2], order[count // 2 :]


def fit(left: Tensor, base: Tensor, unit: Tensor, fitting: Tensor, testing: Tensor) -> Fitted:
    """Fit the least c with `left ≤ base + c unit` on `fitting`; left and base are (N, T), unit is (N,)."""
    constant = float(((left - base) / unit[:, None])[fitting].max())
    return Fitted(constant, left[testing], (base + constant * unit[:, None])[testing])


def theorem2(trained: Trained, fitting: Tensor, testing: Tensor) -> Fitted:
    """L_g(f_t) ≤ L_S(f_t) + c κ/M at every step."""
    return fit(trained.generalisation, trained.training, trained.kappa / trained.trace, fitting, testing)


def corollary1(trained: Trained, fitting: Tensor, testing: Tensor) -> Fitted:
    """L_g(f_t) ≤ c/M at the last step."""
    last = trained.generalisation[:, -1:]
    return fit(last, torch.zeros_like(last), 1 / trained.trace, fitting, testing)


def corollary2(trained: Trained, constant: float, first: Tensor, testing: Tensor) -> Fitted:
    """L_g(f_t) ≤ first + c κ/M at every step, with c fitted for Theorem 2; `first` is `printed` or `rate`."""
    unit = (trained.kappa / trained.trace)[:, None]
    return Fitted(constant, trained.generalisation[testing], (first + constant * unit)[testing])


def exponent(trained: Trained) -> float:
    """The exponent a of the least-squares fit gap ∝ (κ/M)^a in logarithms; a tight bound has a = 1."""
    x = (trained.kappa / trained.trace).log()
    y = trained.gap.log()
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


def width_deviation(width: int, seed: int) -> float:
    """The deviation of real training from the kernel's prediction: max_t |L_S(f_t) − linear| / L_S(f₀).

    Returns the root mean square over eight networks with one hidden layer, trained for 100 steps.
    """
    network = Dense((6, width), "tanh")
    weights = network.draw(torch.Generator().manual_seed(seed), 8)
    run = descend(network, weights, sphere_task(seed, noise=0.0, tests=1), (0, 1, 3, 10, 30, 100))
    worst = (run.training - linear_training_error(run)).abs().amax(-1) / run.training[:, 0]
    return math.sqrt(float(worst.square().mean()))
