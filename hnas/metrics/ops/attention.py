"""Attention, unfused so that its layers are seen and it has a second derivative."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hnas.metrics.recorder import Recorder, handles, replace


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **kwargs: Any,
) -> Tensor:
    """Replaces `torch.nn.functional.scaled_dot_product_attention`; never applies dropout.

    The fused kernels have no second derivative. This is the mathematical form that they implement.
    """
    if attn_mask is not None and attn_mask.dtype == torch.bool:  # true where a query attends to a key
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, -torch.inf)
    product = torch.ops.aten._scaled_dot_product_attention_math
    out: Tensor = product(query, key, value, attn_mask, 0.0, is_causal, **kwargs)[0]
    return out


replace({F.scaled_dot_product_attention}, attention)


def _opened(func: Any) -> Callable[..., Any]:
    """Return a copy of `func` whose inner function calls are seen by the active mode."""
    # Such a function first asks whether to dispatch the call as a whole; here the answer is no.
    inside = {**func.__globals__, "has_torch_function": lambda arguments: False}
    opened = FunctionType(func.__code__, inside, func.__name__, func.__defaults__, func.__closure__)
    opened.__kwdefaults__ = func.__kwdefaults__
    return opened


_MULTI_HEAD = _opened(F.multi_head_attention_forward)


@handles({F.multi_head_attention_forward})
def multi_head(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> Any:
    """Run `F.multi_head_attention_forward`, recording the layers that it calls."""
    with recorder:
        return _MULTI_HEAD(*args, **kwargs)
