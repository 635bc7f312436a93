"""The values of a cell during one forward pass."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from hnas.spaces.dag.expression_graph import Input, LayerOutput, Pooling, Term, Value


def again(rectified: Tensor) -> Tensor:
    """Return a ReLU output unchanged, for one more layer that reads it.

    In the benchmarks' networks that layer has its own ReLU. A torch function mode that counts ReLUs, as scores of
    activation patterns do, sees a call of this function.
    """
    if has_torch_function_unary(rectified):
        same: Tensor = handle_torch_function(again, (rectified,), rectified)
        return same
    return rectified


class Values(ABC):
    """The values of a cell, each computed once: sums of inputs, poolings, and the layers' `outputs`.

    This is an object because recursive closures would form a reference cycle, which would keep every activation of the
    cell alive until Python's cyclic garbage collector runs.
    """

    def __init__(self) -> None:
        self.outputs: list[Tensor] = []
        self._memo: dict[Value | Term, Tensor] = {}
        self._rectified: dict[Value, Tensor] = {}

    def of(self, key: Value) -> Tensor:
        """Return the value `key`."""
        if key not in self._memo:
            self._memo[key] = self.sum(key)
        return self._memo[key]

    def rectified(self, key: Value) -> Tensor:
        """Return the ReLU of a value, shared by all layers that read it."""
        if key in self._rectified:
            return again(self._rectified[key])
        self._rectified[key] = torch.relu(self.of(key))
        return self._rectified[key]

    def term(self, key: Term) -> Tensor:
        """Return one term of a value."""
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
        """Add `terms` to `total` in order, each with its multiplicity."""
        for key, n in terms:
            term = self.term(key) if n == 1 else n * self.term(key)
            total = term if total is None else total + term
        assert total is not None
        return total

    @abstractmethod
    def given(self, key: Input) -> Tensor:
        """Return the input `key` of the cell."""

    @abstractmethod
    def pooled(self, key: Pooling) -> Tensor:
        """Compute the pooling `key` of its value."""

    @abstractmethod
    def sum(self, key: Value) -> Tensor:
        """Compute the value `key`."""
