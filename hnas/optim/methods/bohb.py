"""BOHB: Hyperband with architectures drawn from a density model of the good ones.

    for s = R − 1, …, 0, R − 1, …:        R rungs of e · ηʳ⁻ᴿ⁺¹ epochs, r = 0 … R − 1, the first at least `min_budget`
        draw ⌊R / (s + 1)⌋ ηˢ architectures and evaluate each on rung R − 1 − s
        promote the best ⌊n / η⌋ of the n on each rung to the next, up to the last rung with e epochs

    draw: uniform decisions with probability `random_fraction`, or while there is no model; else the one of `samples`
          draws from l that maximises l(x) / g(x)

l and g are the densities of the good and the other evaluations on the highest rung that has enough of them,

    l(x) = mean over X of Π_i (1 − h_i if x_i = X_i else h_i / (k_i − 1)),     k_i the options of decision i

The best 15 % are good, at least d + 1 for d decisions, and as many others are required. The bandwidth is h_i = 1.06 σ_i
n^(−1/(4 + d)) with σ_i the standard deviation of the option numbers, at least `min_bandwidth` and at most (k_i − 1) /
k_i, where the factor is uniform. A sample from l is a member X in which each decision is kept with probability 1 − h_i
and drawn uniformly otherwise.

Defaults: η = 3, 1 to 12 epochs, 4 samples, random fraction 0, minimum bandwidth 0.3, as NATS-Bench runs hpbandster
(exps/NATS-algos/bohb.py of AutoDL-Projects), published as 93.61 ± 0.52 / 70.85 ± 1.28 / 44.42 ± 1.49. A training is
charged in full even after a shorter one of the same architecture. hpbandster takes k_i from the data and lets h_i
exceed 1, which makes factors negative; here they stay positive. Its bandwidth factor applies to continuous decisions
only. With concurrent evaluations a rung is a generation: the next rung starts when all its results are known.

Source: Falkner, Klein, Hutter, "BOHB: Robust and Efficient Hyperparameter Optimization at Scale", ICML 2018.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import count
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hnas.errors import UsageError
from hnas.optim.methods.candidates import Program, categorical, decided
from hnas.optim.methods.protocol import Parallel, Proposal, between, refuse_argument, whole
from hnas.optim.methods.ranking import Positions
from hnas.optim.methods.warm import best_first
from hnas.optim.objective import Array
from hnas.optim.pools import Pool
from hnas.spaces.protocols import Encoded

_GOOD = 0.15

Decisions = NDArray[np.int64]


class BOHB(Program):
    """BOHB on rungs from `min_budget` to `epochs` epochs, each `eta` times the previous."""

    kind: ClassVar[str] = "BO+bandit"
    applicable: ClassVar[str] = "C+D"
    varies: ClassVar[bool] = True
    parallel: ClassVar[Parallel] = "generations"

    def __init__(
        self,
        pool: Pool,
        argument: str | None = None,
        *,
        seed: int,
        epochs: int | None = None,
        eta: int = 3,
        min_budget: int = 1,
        samples: int = 4,
        random_fraction: float = 0.0,
        min_bandwidth: float = 0.3,
    ) -> None:
        refuse_argument("bohb", argument)
        if epochs is None:
            raise UsageError("the method bohb starts with short trainings and needs epochs, those of the longest")
        if whole("min_budget", min_budget) > epochs:
            raise UsageError(
                f"the option min_budget must be at most the {epochs} epochs of a training, got {min_budget}"
            )
        self._pool, self._space, self._random = pool, categorical(pool, "bohb"), np.random.default_rng(seed)
        self._choices: Decisions = np.array(self._space.choices)
        self._eta = whole("eta", eta, least=2)
        self._rungs = rungs(min_budget, epochs, eta)
        self._samples = whole("samples", samples)
        self._random_fraction = between("random_fraction", random_fraction, 0, 1)
        self._min_bandwidth = between("min_bandwidth", min_bandwidth, 1e-9, 1)
        self._seen: list[list[tuple[Sequence[int], float]]] = [[] for _ in self._rungs]
        self._model: tuple[Density, Density] | None = None
        self._model_rung = 0
        self._running: dict[int, tuple[int, int, Sequence[int] | None]] = {}  # by proposal: rung, place, decisions
        self._performances: dict[int, float] = {}  # by place on the rung
        super().__init__()

    def warm(self, positions: Positions, scores: Array) -> None:
        """Draw from densities of the known values until a rung has enough for its own; see `Warm`."""
        if not isinstance(self._space, Encoded):
            raise UsageError("a warm start of bohb needs a space with `encode` (hnas.spaces.Encoded)")
        decisions = [self._space.encode(self._pool.archs[i]) for i in best_first(positions, scores)]
        self._model = self._densities(np.array([row for row in decisions if row is not None]))

    def steps(self) -> Generator[Proposal | None, float, None]:
        """See `Program`."""
        levels = len(self._rungs)
        for bracket in count():
            s = levels - 1 - bracket % levels
            n = levels // (s + 1) * self._eta**s
            members: list[tuple[str, Sequence[int] | None]] = []
            for rung in range(levels - 1 - s, levels):
                for i in range(n):
                    if i == len(members):
                        members.append(decided(self._pool, self._space, self._draw, self._random))
                    arch, decisions = members[i]
                    proposal = Proposal(arch, epochs=self._rungs[rung])
                    self._running[id(proposal)] = rung, i, decisions
                    yield proposal
                while self._running:
                    yield None
                performances = np.array([self._performances[i] for i in range(n)])
                n = max(n // self._eta, 1)
                promoted = np.sort(np.argsort(-performances, kind="stable")[:n])
                members = [members[i] for i in promoted]

    def tell(self, proposal: Proposal, performance: float, cost: float) -> None:
        """See `Method`."""
        rung, place, decisions = self._running.pop(id(proposal))
        self._performances[place] = performance
        if decisions is not None:
            self._learn(rung, decisions, performance)

    def _draw(self) -> list[int]:
        if self._model is None or self._random.random() < self._random_fraction:
            return list(self._random.integers(self._choices).tolist())
        good, others = self._model
        drawn = good.sample(self._samples, self._random)
        logs = np.log(np.maximum(good(drawn), 1e-32) / np.maximum(others(drawn), 1e-32))
        return list(drawn[int(np.argmax(logs.round(9)))].tolist())  # rounded, so that ties go to the first

    def _learn(self, rung: int, decisions: Sequence[int], performance: float) -> None:
        self._seen[rung].append((decisions, performance))
        if self._model is not None and rung < self._model_rung:
            return
        data = np.array([seen for seen, _ in self._seen[rung]])
        order = np.argsort([-value for _, value in self._seen[rung]], kind="stable")
        model = self._densities(data[order])
        if model is not None:
            self._model, self._model_rung = model, rung

    def _densities(self, data: Decisions) -> tuple[Density, Density] | None:
        """Return the densities l and g of decisions (n, d), best first; None if there are too few."""
        least = len(self._choices) + 1
        if len(data) < 2 * least:
            return None
        n_good = max(least, int(_GOOD * len(data)))
        return self._density(data[:n_good]), self._density(data[n_good:])

    def _density(self, data: Decisions) -> Density:
        return Density(data, self._choices, self._min_bandwidth)


def rungs(min_budget: int, epochs: int, eta: int) -> list[int]:
    """Return the epochs of each rung, ascending: `epochs` over powers of `eta`, down to `min_budget`."""
    falling = []
    divisor = 1
    while epochs >= min_budget * divisor:
        falling.append(epochs // divisor)
        divisor *= eta
    return falling[::-1]


class Density:
    """The mean of Aitchison-Aitken kernels around `data` (n, d) with `choices` (d,) options, l or g above."""

    def __init__(self, data: Decisions, choices: Decisions, min_bandwidth: float) -> None:
        n, d = data.shape
        self._data, self._choices = data, choices
        spread = 1.06 * data.std(0) * n ** (-1 / (4 + d))
        self._bandwidth: Array = np.minimum(np.maximum(spread, min_bandwidth), (choices - 1) / choices)

    def __call__(self, x: Decisions) -> Array:
        """Return the density (s,) at `x` (s, d)."""
        h = self._bandwidth
        density: Array = np.where(self._data == x[:, None], 1 - h, h / (self._choices - 1)).prod(2).mean(1)
        return density

    def sample(self, s: int, random: np.random.Generator) -> Decisions:
        """Return members (s, d) of the data, with each decision redrawn with the probability of its bandwidth."""
        members = self._data[random.integers(len(self._data), size=s)]
        anew = random.random(members.shape) < self._bandwidth
        samples: Decisions = np.where(anew, random.integers(self._choices, size=members.shape), members)
        return samples
