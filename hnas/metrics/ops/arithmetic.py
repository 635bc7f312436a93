"""Sums, products and quotients: linear unless they multiply or divide by values of the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hnas.metrics.nested import mapped, tensors_in
from hnas.metrics.ops.linear_rule import LinearRule, linear_in_first, linear_rule
from hnas.metrics.order import Order
from hnas.metrics.recorder import named, register
from hnas.metrics.tape import Tape

_SUMS = named("add add_ __add__ __radd__ __iadd__ sub sub_ __sub__ __isub__")
_PRODUCTS = named("mul mul_ __mul__ __rmul__ __imul__")
_QUOTIENTS = named("div div_ __truediv__ __itruediv__")
#: Maps in-place functions to their out-of-place forms, so that a rule never changes a tangent in place.
_OUT_OF_PLACE = {
    getattr(owner, name): getattr(owner, name.removeprefix("__i").rstrip("_").replace("truediv", "div"))
    for owner in (torch, Tensor)
    for name in ["add_", "__iadd__", "sub_", "__isub__", "mul_", "__imul__", "div_", "__itruediv__"]
    if hasattr(owner, name)
}


def _sum(tape: Tape, function: Any, args: Any, kwargs: Any, result: Tensor) -> LinearRule | None:
    """The rule of a sum; constant terms have zero tangents."""
    if len(args) + len(kwargs.keys() - {"alpha"}) > 2 or isinstance(kwargs.get("alpha"), Tensor):
        return None  # a result is given, or the factor `alpha` is a term: add(a, alpha, b)
    args, kwargs = without_constants(tape, (args, kwargs))
    args = tuple(value if isinstance(value, Tensor) else 0 for value in args)
    kwargs = {name: value if name == "alpha" or isinstance(value, Tensor) else 0 for name, value in kwargs.items()}
    return linear_rule(tape, _OUT_OF_PLACE.get(function, function), args, kwargs, result)


def _product(tape: Tape, function: Any, args: Any, kwargs: Any, result: Tensor) -> LinearRule | None:
    if sum(value in tape for value in tensors_in((args, kwargs))) > 1:
        return None
    return linear_rule(tape, _OUT_OF_PLACE.get(function, function), args, kwargs, result)


def _quotient(tape: Tape, function: Any, args: Any, kwargs: Any, result: Tensor) -> LinearRule | None:
    if kwargs.get("rounding_mode") is not None:
        return None
    return linear_in_first(tape, _OUT_OF_PLACE.get(function, function), args, kwargs, result)


def without_constants(tape: Tape, arguments: Any) -> Any:
    """Return `arguments` with zeros for the tensors that are not on the tape."""
    return mapped(
        arguments, lambda value: torch.zeros_like(value) if isinstance(value, Tensor) and value not in tape else value
    )


def _broadcast(order: Order, args: Sequence[Any], kwargs: dict[str, Any], result: Tensor) -> bool:
    """Whether some term has the samples as rows, and no other term has as many rows without being known."""
    terms = (*args[:2], *kwargs.values())
    dimensions = result.dim()
    rows = [term for term in terms if isinstance(term, Tensor) and term.dim() == dimensions > 0]
    rows = [term for term in rows if term.shape[0] == order.samples]
    return bool(rows) and all(order.knew(term, result) for term in rows)


register(_SUMS, _sum, _broadcast)
register(_PRODUCTS, _product, _broadcast)
register(_QUOTIENTS, _quotient, _broadcast)
register(named("maximum minimum"), keeps_order=_broadcast)
