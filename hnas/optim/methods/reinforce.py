"""REINFORCE: a softmax over the options of each decision, moved towards above-average performance.

    θ (decisions × options) = 10⁻³ · N(0, 1),  m = n = 0
    repeat:
        p = softmax(θ) row by row;  a ~ p, one option per decision;  r = performance of the architecture, in percent
        m ← 0.9 m + 0.1 r,  n ← 0.9 n + 0.1                      the baseline is m / n, which includes r
        loss = Σ_i −log p[i, a_i] · (r − m / n)
        θ ← Adam(θ, ∂loss/∂θ),  ∂loss/∂θ[i, j] = (p[i, j] − 1[j = a_i]) (r − m / n)

The learning rate is 0.01 (β = 0.9, 0.999, ε = 10⁻⁸) and the momentum 0.9, as NATS-Bench runs it
(exps/NATS-algos/{reinforce.py,run-all.sh} of AutoDL-Projects; 0.5 in NAS-Bench-201's README is far worse); 500 runs of
12,000 s on NAS-Bench-201 are published as 93.85 ± 0.37 / 71.71 ± 1.09 / 45.24 ± 1.18. Decisions that do not make a
candidate are drawn again. A uniform candidate that replaces them updates θ by its encoding, if it has one.

Source: Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning", Machine
Learning 8, 1992.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import numpy as np

from hnas.optim.methods.candidates import categorical, decided
from hnas.optim.methods.protocol import Parallel, Proposal, between, refuse_argument
from hnas.optim.objective import Array
from hnas.optim.pools import Pool


class Reinforce:
    """REINFORCE with a `learning_rate` and the `momentum` of its baseline."""

    kind: ClassVar[str] = "RL"
    applicable: ClassVar[str] = "C+D"
    varies: ClassVar[bool] = True
    parallel: ClassVar[Parallel] = "asynchronous"

    def __init__(
        self,
        pool: Pool,
        argument: str | None = None,
        *,
        seed: int,
        epochs: int | None = None,
        learning_rate: float = 0.01,
        momentum: float = 0.9,
    ) -> None:
        refuse_argument("reinforce", argument)
        self._pool, self._space, self._random = pool, categorical(pool, "reinforce"), np.random.default_rng(seed)
        self._learning_rate = between("learning_rate", learning_rate, 0, 1e3)
        self._momentum = between("momentum", momentum, 0, 1 - 1e-9)
        self._choices = np.array(self._space.choices)
        self._absent = np.arange(self._choices.max()) >= self._choices[:, None]  # decisions have different options
        self._theta = 1e-3 * self._random.standard_normal(self._absent.shape)
        self._adam = Adam(self._theta.shape, self._learning_rate)
        self._numerator = self._denominator = 0.0
        self._drawn: dict[int, tuple[Array, Sequence[int] | None]] = {}  # p and a by proposal

    def ask(self) -> Proposal:
        """See `Method`."""
        p = softmax(np.where(self._absent, -np.inf, self._theta))
        draw = partial(drawn, p.cumsum(1), self._choices, self._random)
        arch, decisions = decided(self._pool, self._space, draw, self._random)
        proposal = Proposal(arch)
        self._drawn[id(proposal)] = p, decisions
        return proposal

    def tell(self, proposal: Proposal, performance: float, cost: float) -> None:
        """See `Method`."""
        gradient, decisions = self._drawn.pop(id(proposal))
        if decisions is None:
            return
        self._numerator = self._momentum * self._numerator + (1 - self._momentum) * performance
        self._denominator = self._momentum * self._denominator + (1 - self._momentum)
        gradient[np.arange(len(gradient)), list(decisions)] -= 1
        self._theta -= self._adam.step(gradient * (performance - self._numerator / self._denominator))


def softmax(theta: Array) -> Array:
    """Return probabilities (d, k) for logits (d, k), row by row."""
    e = np.exp(theta - theta.max(1, keepdims=True))
    p: Array = e / e.sum(1, keepdims=True)
    return p


def drawn(below: Array, choices: Array, random: np.random.Generator) -> list[int]:
    """Draw one option per decision from cumulative probabilities (d, k)."""
    options = (below < random.random((len(below), 1))).sum(1)
    return np.minimum(options, choices - 1).tolist()  # type: ignore[no-any-return]


class Adam:
    """Adam with β = 0.9, 0.999 and ε = 10⁻⁸: Kingma and Ba, ICLR 2015, Algorithm 1."""

    def __init__(self, shape: tuple[int, ...], learning_rate: float) -> None:
        self._rate, self._first, self._second, self._t = learning_rate, np.zeros(shape), np.zeros(shape), 0

    def step(self, gradient: Array) -> Array:
        """Return the step to subtract from the parameters."""
        self._t += 1
        self._first += (1 - 0.9) * (gradient - self._first)
        self._second += (1 - 0.999) * (gradient**2 - self._second)
        first, second = self._first / (1 - 0.9**self._t), self._second / (1 - 0.999**self._t)
        step: Array = self._rate * first / (np.sqrt(second) + 1e-8)
        return step
