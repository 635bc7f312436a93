"""Which values of a network have its samples along their first dimension, in order, by the operations that made them.

The images have. An operation that computes each sample's entries from that sample's alone, or adds statistics of all of
them, hands this on; those that convolutional networks consist of are known here. After any other operation (a
transposition of the first dimension, an index, attention) a value counts as unknown, and what its rows belong to is for
`hnas.metrics.owners` to find out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from hnas.metrics.functions import (
    AVERAGE_POOLS,
    ENTRYWISE,
    JOINS,
    MAX_POOLS,
    PRODUCTS,
    QUOTIENTS,
    RELUS,
    SUMS,
    named,
)  # fmt: skip
from hnas.metrics.rules import tensors_in


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

    def operation(self, function: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
        """A function was called with `args` and `kwargs` and returned `result`."""
        rule = _RULES.get(function)
        if rule is None or "out" in kwargs:
            return
        for value in (result,) if isinstance(result, Tensor) else tensors_in(result):
            if rule(self, args, kwargs, value):
                self.note(value)


Rule = Callable[[Order, Sequence[Any], dict[str, Any], Tensor], bool]


def _first(args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The value that the function is called on."""
    return args[0] if args else kwargs.get("input")


def _same_shape(order: Order, args: Sequence[Any], kwargs: dict[str, Any], result: Tensor) -> bool:
    first = _first(args, kwargs)
    return order.knew(first, result) and result.shape == first.shape


def _row_major(order: Order, args: Sequence[Any], kwargs: dict[str, Any], result: Tensor) -> bool:
    """Entries stay in their order: as long as there are as many rows, they are the same rows."""
    first = _first(args, kwargs)
    return order.knows(first) and result.dim() > 0 and result.shape[0] == order.samples


def _pooled(order: Order, args: Sequence[Any], kwargs: dict[str, Any], result: Tensor) -> bool:
    first = _first(args, kwargs)
    return order.knows(first) and result.dim() == first.dim() > 2


def _broadcast(order: Order, args: Sequence[Any], kwargs: dict[str, Any], result: Tensor) -> bool:
    """One term at least has the result's samples, and none that has as many rows is unknown."""
    terms = (*args[:2], *kwargs.values())
    dimensions = result.dim()
    rows = [term for term in terms if isinstance(term, Tensor) and term.dim() == dimensions > 0]
    rows = [term for term in rows if term.shape[0] == order.samples]
    return bool(rows) and all(order.knew(term, result) for term in rows)


def _joined(order: Order, args: Sequence[Any], kwargs: dict[str, Any], result: Tensor) -> bool:
    parts = args[0] if args else kwargs.get("tensors", ())
    return _past_first(_dimension(args[1:], kwargs, default=0), result) and all(map(order.knows, parts))


def _along(position: int) -> Rule:
    """Of functions along the dimension given by their argument at `position`, or along several."""

    def rule(order: Order, args: Sequence[Any], kwargs: dict[str, Any], result: Tensor) -> bool:
        first = _first(args, kwargs)
        if not order.knows(first):
            return False
        dimensions = _dimension(args[position:], kwargs)
        dimensions = (dimensions,) if isinstance(dimensions, int) else dimensions
        return bool(dimensions) and all(_past_first(dimension, first) for dimension in dimensions)

    return rule


def _permuted(order: Order, args: Sequence[Any], kwargs: dict[str, Any], result: Tensor) -> bool:
    if not args or not order.knows(args[0]) or kwargs:
        return False
    dimensions = args[1] if len(args) == 2 and isinstance(args[1], (tuple, list)) else args[1:]
    return len(dimensions) > 0 and dimensions[0] == 0


def _transposed(order: Order, args: Sequence[Any], kwargs: dict[str, Any], result: Tensor) -> bool:
    if len(args) != 3 or not order.knows(args[0]):
        return False
    return all(_past_first(dimension, args[0]) for dimension in args[1:])


def _indexed(order: Order, args: Sequence[Any], kwargs: dict[str, Any], result: Tensor) -> bool:
    """All samples, and plain slices and numbers of the rest."""
    if len(args) != 2 or not order.knows(args[0]) or not isinstance(args[1], tuple) or not args[1]:
        return False
    start, *rest = args[1]
    plain = all(index is None or index is Ellipsis or isinstance(index, (int, slice)) for index in rest)
    return isinstance(start, slice) and start == slice(None) and plain


def _padded(order: Order, args: Sequence[Any], kwargs: dict[str, Any], result: Tensor) -> bool:
    first = _first(args, kwargs)
    pad = args[1] if len(args) > 1 else kwargs.get("pad", ())
    return order.knows(first) and len(pad) < 2 * first.dim()


def _dimension(args: Sequence[Any], kwargs: dict[str, Any], default: Any = None) -> Any:
    return args[0] if args else kwargs.get("dim", default)


def _past_first(dimension: Any, value: Tensor) -> bool:
    """Whether a dimension of `value`, counted from either end, is one after the first."""
    return isinstance(dimension, int) and dimension % max(value.dim(), 1) != 0


_RULES: dict[Any, Rule] = {
    **dict.fromkeys(
        ENTRYWISE
        | RELUS
        | named("clone contiguous float double clamp clamp_ hardtanh_ relu6_ leaky_relu_ elu_ silu_ neg dropout")
        | named("group_norm layer_norm instance_norm batch_norm local_response_norm threshold prelu pow"),
        _same_shape,
    ),
    **dict.fromkeys(named("view reshape flatten unflatten squeeze unsqueeze view_as reshape_as"), _row_major),
    **dict.fromkeys(
        AVERAGE_POOLS
        | set(MAX_POOLS)
        | {F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d, F.interpolate},
        _pooled,
    ),
    **dict.fromkeys(SUMS | PRODUCTS | QUOTIENTS | named("maximum minimum"), _broadcast),
    **dict.fromkeys(JOINS, _joined),
    **dict.fromkeys(named("mean sum amax amin softmax log_softmax unbind select narrow"), _along(1)),
    **dict.fromkeys(named("chunk split"), _along(2)),
    **dict.fromkeys(named("permute"), _permuted),
    **dict.fromkeys(named("transpose swapaxes"), _transposed),
    **dict.fromkeys(named("__getitem__"), _indexed),
    F.pad: _padded,
}
