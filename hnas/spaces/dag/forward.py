"""The values of a cell during one forward pass."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from hnas.spaces.dag.expressions import Term, Value


class Values(ABC):
    """Values of a cell, each computed once: sums of the cell's inputs, poolings of values, and layers' `outputs`.

    An object, not functions that call each other: such functions refer to each other, and what they hold, every
    activation of the cell, would live until Python's collector of cycles comes by.
    """

    def __init__(self) -> None:
        self.outputs: list[Tensor] = []
        self._memo: dict[Value | Term, Tensor] = {}
        self._rectified: dict[Value, Tensor] = {}

    def of(self, key: Value) -> Tensor:
        """The value `key`."""
        if key not in self._memo:
            self._memo[key] = self.sum(key)
        return self._memo[key]

    def rectified(self, key: Value) -> Tensor:
        """The ReLU of a value, which all layers that read it share."""
        if key not in self._rectified:
            self._rectified[key] = torch.relu(self.of(key))
        return self._rectified[key]

    def term(self, key: Term) -> Tensor:
        """One term of a value."""
        if key[0] == "x":
            return self.given(key)
        if key[0] == "layer":
            return self.outputs[key[1]]  # type: ignore[call-overload, no-any-return]
        if key not in self._memo:
            self._memo[key] = self.pooled(key)
        return self._memo[key]

    def added(self, total: Tensor | None, terms: Value) -> Tensor:
        """`total` plus the terms, each as often as it says, in their order."""
        for key, n in terms:
            term = self.term(key) if n == 1 else n * self.term(key)
            total = term if total is None else total + term
        assert total is not None
        return total

    @abstractmethod
    def given(self, key: Term) -> Tensor:
        """The cell's input that `key` names."""

    @abstractmethod
    def pooled(self, key: Term) -> Tensor:
        """The pooling that `key` names, of its value."""

    @abstractmethod
    def sum(self, key: Value) -> Tensor:
        """The value `key`, computed."""
