"""Training-free searches by one score among random draws: NASWOT, GradSign and KNAS.

    draw N candidates uniformly, with replacement
    naswot, gradsign    end with the draw of the highest score; nothing is evaluated
    knas                evaluate the k distinct draws of the highest scores, trained for 20 epochs

| method | column | N | published on NAS-Bench-201 (CIFAR-10 / CIFAR-100 / ImageNet16-120, seconds) |
| --- | --- | --- | --- |
| naswot | naswot | 1,000 | 92.96 ± 0.81 / 69.98 ± 1.22 / 44.44 ± 2.10, 306 |
| gradsign | gradsign | 100 | 93.31 ± 0.47 / 70.33 ± 1.28 / 42.42 ± 2.81 |
| knas | knas | 300, k 40 | 93.43 / 71.05 / 45.05; k 20: 93.05 / 68.91 / 34.11, 4,200 |

An argument names another column to rank by: `naswot:zico`. The budget is charged the seconds that the scores of all
draws took, repeated draws included, if the pool knows them: those of every score that an expression reads. Ties go to
the earlier draw; draws without a score come last.

If the pool has no column `knas` but `gram_mean`, the same value computed from the stored matrices of a run, `knas`
ranks by that. Its cost is unknown and not charged.

KNAS' program looks up the accuracy at epoch 20 of a training of 200 epochs. The same is done here if the signal is a
longer training whose curves are in the table; otherwise the signal itself is used.

Sources: Mellor, Turner, Storkey, Crowley, ICML 2021 (program score_networks.py); Zhang and Jia, "GradSign", ICLR 2022
(grad_search.py); Xu et al., "KNAS: Green Neural Architecture Search", ICML 2021 (cifar10.py).
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from typing import ClassVar

import numpy as np

from hnas.errors import UsageError
from hnas.optim.methods.candidates import Program
from hnas.optim.methods.protocol import Parallel, Proposal, whole
from hnas.optim.methods.ranking import Positions, values
from hnas.optim.objective import Array
from hnas.optim.pools import Pool


class _Scored(Program):
    """Draws with their scores; `draws` is N."""

    kind: ClassVar[str] = "training-free"
    applicable: ClassVar[str] = "C+D"
    varies: ClassVar[bool] = True
    parallel: ClassVar[Parallel] = "asynchronous"
    name: ClassVar[str]

    def __init__(self, pool: Pool, argument: str | None, seed: int, draws: int) -> None:
        column = argument or self.column_of(pool)
        self._pool, self._score = pool, values(pool, column)
        self._draws = np.random.default_rng(seed).integers(len(pool.archs), size=whole("draws", draws))
        self._seconds = float(_seconds(pool, column)[self._draws].sum())
        super().__init__()

    def column_of(self, pool: Pool) -> str:
        """Return the column to rank by if the argument names none."""
        return self.name

    def _ranked(self) -> Positions:
        """Return the positions of the distinct draws, highest score first."""
        scores = self._score[self._draws]
        order = np.argsort(-np.where(np.isnan(scores), -np.inf, scores), kind="stable")
        return np.array(list(dict.fromkeys(self._draws[order].tolist())))


class _BestDraw(_Scored):
    def steps(self) -> Generator[Proposal, float, None]:
        """See `Program`."""
        best = int(self._ranked()[0])
        score = float(self._score[best])
        yield Proposal(
            self._pool.archs[best], objective=None if np.isnan(score) else score, seconds=self._seconds, final=True
        )


class NASWOT(_BestDraw):
    """The best of 1,000 draws by `naswot`."""

    name = "naswot"

    def __init__(
        self, pool: Pool, argument: str | None = None, *, seed: int, epochs: int | None = None, draws: int = 1000
    ) -> None:
        super().__init__(pool, argument, seed, draws)


class GradSign(_BestDraw):
    """The best of 100 draws by `gradsign`."""

    name = "gradsign"

    def __init__(
        self, pool: Pool, argument: str | None = None, *, seed: int, epochs: int | None = None, draws: int = 100
    ) -> None:
        super().__init__(pool, argument, seed, draws)


class KNAS(_Scored):
    """The best `k` of 300 draws by `knas`, evaluated after `after` epochs of training."""

    name = "knas"

    def __init__(
        self,
        pool: Pool,
        argument: str | None = None,
        *,
        seed: int,
        epochs: int | None = None,
        draws: int = 300,
        k: int = 40,
        after: int = 20,
    ) -> None:
        super().__init__(pool, argument, seed, draws)
        self._k = whole("k", k)
        short = whole("after", after)
        self._epochs = short if epochs is not None and short < epochs and pool_knows(pool, short) else None

    def column_of(self, pool: Pool) -> str:
        """See `_Scored`."""
        with suppress(UsageError):
            pool.column(self.name)
            return self.name
        with suppress(UsageError):
            pool.column("gram_mean")
            return "gram_mean"
        return self.name

    def steps(self) -> Generator[Proposal, float, None]:
        """See `Program`."""
        spent = self._seconds  # charged with the first evaluation
        for position in self._ranked()[: self._k].tolist():
            score = float(self._score[position])
            known = None if np.isnan(score) else score
            yield Proposal(self._pool.archs[position], epochs=self._epochs, objective=known, seconds=spent)
            spent = 0.0


def pool_knows(pool: Pool, epochs: int) -> bool:
    """Whether the accuracies after `epochs` are known; a pool in memory has none and leaves this to the oracle."""
    knows = getattr(pool, "knows", None)
    return knows is None or bool(knows(epochs))


def _seconds(pool: Pool, column: str) -> Array:
    """The seconds (n,) that the scores read by `column` took; zeros for a pool that does not know them."""
    seconds = getattr(pool, "score_seconds", None)
    return np.zeros(len(pool.archs)) if seconds is None else np.asarray(seconds(column))
