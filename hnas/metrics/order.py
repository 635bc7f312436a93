"""Which values of a network have its samples along their first dimension, in order, by the operations that made them.

The images have. An operation that computes each sample's entries from that sample's alone, or adds statistics of all of
them, hands this on, as its registration says (`hnas.metrics.ops`). After any other operation (a transposition of the
first dimension, an index, attention) a value counts as unknown, and what its rows belong to is for
`hnas.metrics.owners` to find out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary


class Order:
    """The values seen whose first dimension is that of `images`, the samples."""

    def __init__(self, images: Tensor) -> None:
        self.samples = images.shape[0]
        # A value with the version in which it was seen: one that changed since, through whatever view, is unknown.
        self._known: Any = WeakIdKeyDictionary()
        self.note(images)

    def note(self, value: Tensor) -> None:
        """The first dimension of `value` is the samples'."""
        self._known[value] = value._version

    def knows(self, value: Any) -> bool:
        """Whether the first dimension of `value` is known to be the samples'."""
        return isinstance(value, Tensor) and self._known.get(value) == value._version

    def knew(self, value: Any, result: Tensor) -> bool:
        """Whether it was known before the function that returned `result` was called, changing `value` or not."""
        return isinstance(value, Tensor) and self._known.get(value) == value._version - (value is result)


#: Whether a result of a function, called with these arguments, has the samples along its first dimension, in order.
Keeps = Callable[[Order, Sequence[Any], dict[str, Any], Tensor], bool]


def same_shape(order: Order, args: Sequence[Any], kwargs: dict[str, Any], result: Tensor) -> bool:
    """A result of the first argument's shape, whose rows are computed each from its own, or with all samples'."""
    first = first_argument(args, kwargs)
    return order.knew(first, result) and result.shape == first.shape


def row_major(order: Order, args: Sequence[Any], kwargs: dict[str, Any], result: Tensor) -> bool:
    """Entries stay in their order: as long as there are as many rows, they are the same rows."""
    first = first_argument(args, kwargs)
    return order.knows(first) and result.dim() > 0 and result.shape[0] == order.samples


def along(position: int) -> Keeps:
    """Functions along the dimension given by their argument at `position`, or along several."""

    def keeps(order: Order, args: Sequence[Any], kwargs: dict[str, Any], result: Tensor) -> bool:
        first = first_argument(args, kwargs)
        if not order.knows(first):
            return False
        dimensions = dimension(args[position:], kwargs)
        dimensions = (dimensions,) if isinstance(dimensions, int) else dimensions
        return bool(dimensions) and all(past_first(number, first) for number in dimensions)

    return keeps


def first_argument(args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The value that the function is called on."""
    return args[0] if args else kwargs.get("input")


def dimension(args: Sequence[Any], kwargs: dict[str, Any], default: Any = None) -> Any:
    """The argument `dim`, where it is the first of `args` or named."""
    return args[0] if args else kwargs.get("dim", default)


def past_first(number: Any, value: Tensor) -> bool:
    """Whether a dimension of `value`, counted from either end, is one after the first."""
    return isinstance(number, int) and number % max(value.dim(), 1) != 0
