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

    `epochs` is the length of the training if the method asks for another than the signal's own. `objective` is the
    value by which the method chose the architecture, `mu` and `nu` those of eq. (7); None where there is none.

    `seconds` is the time that the method spent on anything but evaluations, such as scores or a supernet; it is charged
    to the budget. `final` marks the architecture that the method ends with: its performance is looked up or measured
    for the report only, and its evaluation is not charged.

    With `since`, the evaluation is the part of the longest training from epoch `since` (0 at first) to `epochs`.
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

    The class attributes are those of Table 3 of the paper: the `kind` of method, the `applicable` spaces (C for
    supernets, D for spaces of discrete architectures), and whether the method `varies` with the seed. `parallel` says
    how `ask` behaves while proposals are pending, that is, not told yet:

        asynchronous  proposes, based on what has been told so far
        generations   proposes until a generation is complete, then returns None until all of it is told
        sequential    is not called (the default)
    """

    kind: ClassVar[str]
    applicable: ClassVar[str]
    varies: ClassVar[bool]
    parallel: ClassVar[Parallel]

    def __init__(
        self, pool: Pool, argument: str | None, *, seed: int, epochs: int | None = None, **options: Any
    ) -> None:
        """Start over `pool`. `argument` is the text after `name:` on a command line, `epochs` those of the signal.

        Raises `UsageError` where an argument is missing, invalid or unknown to the pool, and where the space of the
        pool lacks what the method needs.
        """
        ...

    def ask(self) -> Proposal | None:
        """Return the next architecture to evaluate.

        None where the method must be told a pending performance first, or, if none is pending, where nothing is left.
        """
        ...

    def tell(self, proposal: Proposal, performance: float, cost: float) -> None:
        """Record the `performance` in percent of a pending proposal, the same object.

        `cost` are the seconds that its evaluation is charged, without the proposal's own.
        """
        ...


def refuse_argument(name: str, argument: str | None) -> None:
    """Raise `UsageError` if there is an argument: the method `name` takes none."""
    if argument is not None:
        raise UsageError(f"the method {name} takes no argument; write {name}, not {name}:{argument}")


def whole(name: str, value: object, least: int = 1) -> int:
    """Return the option `name` if its `value` is an integer of at least `least`; raise `UsageError` otherwise.

    The maximum is 10 million, the number of draws that fit in memory.
    """
    if not isinstance(value, int) or not least <= value <= 10_000_000:
        most = " and at most 10,000,000" if isinstance(value, int) and value > least else ""
        raise UsageError(f"the option {name} must be a whole number of at least {least}{most}, got {value!r}")
    return value


def between(name: str, value: object, low: float, high: float) -> float:
    """Return the option `name` if its `value` is a number from `low` to `high`; raise `UsageError` otherwise."""
    if not isinstance(value, (int, float)) or not low <= value <= high:
        raise UsageError(f"the option {name} must be a number from {low:g} to {high:g}, got {value!r}")
    return value
