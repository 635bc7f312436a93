"""The result of a check of the theory: a statement and the numbers that test it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """A statement with the measured `quantity`, which holds if `measured ≤ bound`.

    `source` is the statement's number in the paper, or `derived` for a statement that this package derives and the
    paper does not print. `holds` is False for NaN.
    """

    name: str
    source: str
    statement: str
    quantity: str
    measured: float
    bound: float

    @property
    def holds(self) -> bool:
        return self.measured <= self.bound
