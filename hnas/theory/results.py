"""What a check of the theory returns: plain numbers beside the statement they are held against."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One statement, what was measured of it, and whether it holds: `measured ≤ bound`.

    `source` is the statement's number in the paper, or `derived` for what the paper does not print and this package
    derives. `holds` is false for NaN as well.
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
