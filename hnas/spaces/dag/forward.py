"""The values of a cell during one forward pass."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from hnas.spaces.dag.expression_graph import Input, LayerOutput, Pooling, Term, Value


def again(rectified: Tensor) -> Tensor:
    """`rectified` itself, what a ReLU returned, where one more layer reads it.

    In the benchmarks' networks that layer has a ReLU of its own. Whoever counts those, as a score of their signs does,
    sees this function called under a torch function mode.
    """
    if has_torch_function_unary(rectified):
        same: Tensor = handle_torch_function(again, (rectified,), rectified)
        return same
    return rectified


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
        if key in self._rectified:
            return again(self._rectified[key])
        self._rectified[key] = torch.relu(self.of(key))
        return self._rectified[key]

    def term(self, key: Term) -> Tensor:
        """One term of a value."""
        match key:
            case Input():
                return self.given(key)
            case LayerOutput(number):
                return self.outputs[number]
            case Pooling():
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
    def given(self, key: Input) -> Tensor:
        """The input `key` of the cell."""

    @abstractmethod
    def pooled(self, key: Pooling) -> Tensor:
        """The pooling `key` of the value it reads."""

    @abstractmethod
    def sum(self, key: Value) -> Tensor:
        """The value `key`, computed anew."""
