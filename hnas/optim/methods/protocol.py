"""The protocol of search methods: ask for the next architecture, tell its performance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from hnas.errors import UsageError
from hnas.optim.pools import Pool

Parallel = Literal["asynchronous", "generations", "sequential"]


@dataclass(frozen=True)
class Proposal:
    """An architecture to evaluate.

    `epochs` is the length of the training where a method asks for another one than the signal's own. `objective` is
    the number by which the method chose the architecture, `mu` and `nu` those of eq. (7); None where it has none.

    `seconds` are what the method spent on the way to it on anything but evaluations, such as scores or a supernet; a
    budget is charged them. With `final` the architecture is what the method ends with: its performance is looked up or
    measured for the report only, and its evaluation is not charged.

    With `since` the evaluation is a part of the longest training, from `since` epochs, 0 at first, to `epochs`.
    """

    arch: str
    epochs: int | None = None
    mu: float | None = None
    nu: float | None = None
    objective: float | None = None
    seconds: float = 0.0
    final: bool = False
    since: int | None = None


class Method(Protocol):
    """A search method. The same pool, argument, seed, options and performances give the same proposals.

    Class attributes are those of a row of the paper's Table 3: the `kind` of method, the `applicable` spaces (C for
    supernets, D for spaces of discrete architectures), and whether it `varies` with the seed. `parallel` says what
    `ask` does while proposals are pending, that is, not told yet:

        asynchronous  proposes, by what has been told so far
        generations   proposes until a generation is complete, and then waits for all of it: None
        sequential    is not called; that of a method that does not say
    """

    kind: ClassVar[str]
    applicable: ClassVar[str]
    varies: ClassVar[bool]
    parallel: ClassVar[Parallel]

    def __init__(
        self, pool: Pool, argument: str | None, *, seed: int, epochs: int | None = None, **options: Any
    ) -> None:
        """Start over `pool`. `argument` is what a command line has behind `name:`, `epochs` are those of the signal.

        Raises `UsageError` where an argument is missing, senseless or unknown to the pool, and where the space of the
        pool lacks what the method needs.
        """
        ...

    def ask(self) -> Proposal | None:
        """The next architecture to evaluate.

        None where nothing can be asked before another proposal is told; where none is pending, nothing is left.
        """
        ...

    def tell(self, proposal: Proposal, performance: float, cost: float) -> None:
        """Take the `performance` of a pending proposal, the very object, in percent, and its `cost`, in seconds."""
        ...


def refuse_argument(name: str, argument: str | None) -> None:
    """Raise `UsageError` where there is an argument: the method `name` takes none."""
    if argument is not None:
        raise UsageError(f"the method {name} takes no argument; write {name}, not {name}:{argument}")


def whole(name: str, value: object, least: int = 1) -> int:
    """The option `name` where its `value` is a whole number of at least `least`; raises `UsageError` where not.

    10 million is the most: as many draws fit in memory.
    """
    if not isinstance(value, int) or not least <= value <= 10_000_000:
        most = " and at most 10,000,000" if isinstance(value, int) and value > least else ""
        raise UsageError(f"the option {name} is {value!r}; it must be a whole number of at least {least}{most}")
    return value


def between(name: str, value: object, low: float, high: float) -> float:
    """The option `name` where its `value` is a number from `low` to `high`; raises `UsageError` where not."""
    if not isinstance(value, (int, float)) or not low <= value <= high:
        raise UsageError(f"the option {name} is {value!r}; it must be a number from {low:g} to {high:g}")
    return value
