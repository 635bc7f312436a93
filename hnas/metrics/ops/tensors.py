"""Reshaping, slicing, padding, sums along dimensions, and other functions that are linear in one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from hnas.errors import UsageError
from hnas.metrics.ops.linear_rule import LinearRule, linear_in_first
from hnas.metrics.order import Order, along, first_argument, past_first, row_major, same_shape
from hnas.metrics.recorder import Recorder, handles, name_of, named, register
from hnas.metrics.tape import Tape

_COPIES: dict[Any, Any] = {Tensor.view: Tensor.reshape, Tensor.view_as: Tensor.reshape_as}


@handles(_COPIES)
def view(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> Tensor:
    """Return a view, or a copy where the memory layout allows none.

    Views fail more often here than in torch, because convolutions and batch norm return channels-last tensors.
    """
    result: Tensor
    try:
        result = func(*args, **kwargs)
    except RuntimeError:
        func = _COPIES[func]
        result = func(*args, **kwargs)
        recorder.copied(args[0], result)
    recorder.note(func, args, kwargs, result)
    return result


@handles(named("as_strided as_strided_ as_strided_copy as_strided_scatter"))
def strided(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> Any:
    """Run a function of places in memory if they hold what they hold in torch. Raises `UsageError`."""
    first = first_argument(args, kwargs)
    if not (first if first._base is None else first._base).is_contiguous():
        raise UsageError(
            f"{name_of(func)} reads places in memory, but convolutions and batch norm return channels-last tensors "
            f"here, and images are channels-last too; call it on a tensor made by contiguous()"
        )
    return recorder.plain(func, args, kwargs)


@handles({Tensor.register_hook})
def hook(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> Any:
    """Register the hook, and stop the tape: a hook may change gradients, which no operation does."""
    result = func(*args, **kwargs)
    recorder.tape.stop("a hook")
    return result


def _pad(tape: Tape, function: Any, args: Any, kwargs: Any, result: Tensor) -> LinearRule | None:
    def pads_zeros(input: Any, pad: Any, mode: str = "constant", value: float | None = None) -> bool:  # noqa: A002
        return mode != "constant" or not value

    return linear_in_first(tape, function, args, kwargs, result) if pads_zeros(*args, **kwargs) else None


def _permuted(order: Order, args: Sequence[Any], kwargs: dict[str, Any], result: Tensor) -> bool:
    if not args or not order.knows(args[0]) or kwargs:
        return False
    dimensions = args[1] if len(args) == 2 and isinstance(args[1], (tuple, list)) else args[1:]
    return len(dimensions) > 0 and dimensions[0] == 0


def _transposed(order: Order, args: Sequence[Any], kwargs: dict[str, Any], result: Tensor) -> bool:
    if len(args) != 3 or not order.knows(args[0]):
        return False
    return all(past_first(dimension, args[0]) for dimension in args[1:])


def _indexed(order: Order, args: Sequence[Any], kwargs: dict[str, Any], result: Tensor) -> bool:
    """Whether the index takes all samples, and slices and numbers of the other dimensions."""
    if len(args) != 2 or not order.knows(args[0]) or not isinstance(args[1], tuple) or not args[1]:
        return False
    start, *rest = args[1]
    plain = all(index is None or index is Ellipsis or isinstance(index, (int, slice)) for index in rest)
    return isinstance(start, slice) and start == slice(None) and plain


def _padded(order: Order, args: Sequence[Any], kwargs: dict[str, Any], result: Tensor) -> bool:
    first = first_argument(args, kwargs)
    pad = args[1] if len(args) > 1 else kwargs.get("pad", ())
    return order.knows(first) and len(pad) < 2 * first.dim()


register(
    named(
        "neg mean sum clone contiguous view reshape flatten unflatten squeeze unsqueeze permute transpose movedim "
        "expand narrow select chunk split unbind __getitem__ flip roll pixel_shuffle pixel_unshuffle channel_shuffle"
    ),
    linear_in_first,
)
register({F.pad}, _pad, _padded)
register(named("neg clone contiguous float double"), keeps_order=same_shape)
register(named("view reshape flatten unflatten squeeze unsqueeze view_as reshape_as"), keeps_order=row_major)
register(named("mean sum amax amin softmax log_softmax unbind select narrow"), keeps_order=along(1))
register(named("chunk split"), keeps_order=along(2))
register(named("permute"), keeps_order=_permuted)
register(named("transpose swapaxes"), keeps_order=_transposed)
register(named("__getitem__"), keeps_order=_indexed)
