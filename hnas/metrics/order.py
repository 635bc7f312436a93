"""Which values of a network have the samples along their first dimension, in order, judged by operations.

The images do. An operation preserves the order if it computes each sample's entries from that sample alone, or adds
statistics of the whole batch; its registration says so (`hnas.metrics.ops`). After any other operation (a transposition
of the first dimension, indexing, attention) the order is unknown, and `hnas.metrics.owners` finds out which sample each
row belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary


class Order:
    """The values whose first dimension is known to be that of `images`, the samples."""

    def __init__(self, images: Tensor) -> None:
        self.samples = images.shape[0]
        # Each value with its version when noted: a value that has changed since, through any view, is unknown.
        self._known: Any = WeakIdKeyDictionary()
        self.note(images)

    def note(self, value: Tensor) -> None:
        """Mark the first dimension of `value` as the samples, unless it does not count its changes."""
        if not value.is_inference():
            self._known[value] = value._version

    def knows(self, value: Any) -> bool:
        """Whether the first dimension of `value` is known to be the samples."""
        known = self._known.get(value) if isinstance(value, Tensor) else None
        return known is not None and known == value._version

    def knew(self, value: Any, result: Tensor) -> bool:
        """Whether `value` was known before the call that returned `result`, even if that call changed it in place."""
        known = self._known.get(value) if isinstance(value, Tensor) else None
        return known is not None and known == value._version - (value is result)


#: Whether the result of a call with these arguments has the samples along its first dimension, in order.
Keeps = Callable[[Order, Sequence[Any], dict[str, Any], Tensor], bool]


def same_shape(order: Order, args: Sequence[Any], kwargs: dict[str, Any], result: Tensor) -> bool:
    """Results of the first argument's shape, each row computed from that row alone or from statistics of all rows."""
    first = first_argument(args, kwargs)
    return order.knew(first, result) and result.shape == first.shape


def row_major(order: Order, args: Sequence[Any], kwargs: dict[str, Any], result: Tensor) -> bool:
    """Functions that keep the entries in row-major order: with as many rows as before, the rows are the same."""
    first = first_argument(args, kwargs)
    return order.knows(first) and result.dim() > 0 and result.shape[0] == order.samples


def along(position: int) -> Keeps:
    """Functions that act along the dimension, or dimensions, in their argument at `position`."""

    def keeps(order: Order, args: Sequence[Any], kwargs: dict[str, Any], result: Tensor) -> bool:
        first = first_argument(args, kwargs)
        if not order.knows(first):
            return False
        dimensions = dimension(args[position:], kwargs)
        dimensions = (dimensions,) if isinstance(dimensions, int) else dimensions
        return bool(dimensions) and all(past_first(number, first) for number in dimensions)

    return keeps


def first_argument(args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Return the tensor that the function is called on."""
    return args[0] if args else kwargs.get("input")


def dimension(args: Sequence[Any], kwargs: dict[str, Any], default: Any = None) -> Any:
    """Return the argument `dim`: the first of `args`, or the keyword."""
    return args[0] if args else kwargs.get("dim", default)


def past_first(number: Any, value: Tensor) -> bool:
    """Whether `number`, counted from either end, is a dimension of `value` other than the first."""
    return isinstance(number, int) and number % max(value.dim(), 1) != 0
