"""The tangent rule of functions that are linear in the network's values among their arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hnas.metrics.nested import mapped, tensors_in
from hnas.metrics.tape import Replay, TangentRule, Tangents, Tape


@dataclass
class LinearRule(TangentRule):
    """The rule of a linear `function`, with a `Place` for each value of the network among its arguments, in order.

    `dtype` is that of the result, which an in-place operation keeps whatever it adds.
    """

    function: Callable[..., Any]
    args: Any
    kwargs: Any
    dtype: torch.dtype

    def __call__(self, read: list[Tangents], replay: Replay) -> Iterable[Tangents]:
        made = [self._of([tangents[i] for tangents in read]) for i in range(2)]
        count = max((len(values) for values in made if values is not None), default=1)
        columns: list[list[Tensor | None]] = [[None] * count if values is None else list(values) for values in made]
        return (Tangents(*values) for values in zip(*columns, strict=True))

    def _of(self, read: list[Tensor | None]) -> list[Tensor] | None:
        some = next((tangent for tangent in read if tangent is not None), None)
        if some is None:
            return None

        def filled(value: Any) -> Any:
            if isinstance(value, Place):
                tangent = read[value.number]
                return some.new_zeros(value.shape) if tangent is None else tangent
            return value

        made = tensors_in(self.function(*mapped(self.args, filled), **mapped(self.kwargs, filled)))
        return [tangent.to(self.dtype) for tangent in made]


@dataclass(frozen=True)
class Place:
    """Stands for the `number`-th value of the network among a function's arguments, which has this shape."""

    number: int
    shape: torch.Size


def linear_rule(tape: Tape, function: Any, args: Any, kwargs: Any, result: Tensor) -> LinearRule | None:
    """Return the rule of a call that is linear in all values of the network among its arguments.

    None where one of them is in a container that `mapped` does not open.
    """
    if kwargs.get("out") is not None:
        return None
    seen: list[Tensor] = []

    def place(value: Any) -> Any:
        if value not in tape:
            return value
        seen.append(value)
        return Place(len(seen) - 1, value.shape)

    args, kwargs = mapped((args, kwargs), place)
    if any(value in tape for value in tensors_in((args, kwargs))):
        return None
    return LinearRule(function, args, kwargs, result.dtype)


def linear_in_first(tape: Tape, function: Any, args: Any, kwargs: Any, result: Tensor) -> LinearRule | None:
    """Return the rule of a call that is linear in its first argument, None where another is a value of the network."""
    if not args or args[0] not in tape or any(value in tape for value in tensors_in((args[1:], kwargs))):
        return None
    return linear_rule(tape, function, args, kwargs, result)
