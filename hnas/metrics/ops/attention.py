"""Attention, so that its layers are seen and it can be differentiated twice."""

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
    """Stands in for `torch.nn.functional.scaled_dot_product_attention`, without dropout.

    The fused kernels have no second derivative; this is the form that they were fused from.
    """
    if attn_mask is not None and attn_mask.dtype == torch.bool:  # true where a key is taken
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, -torch.inf)
    product = torch.ops.aten._scaled_dot_product_attention_math
    out: Tensor = product(query, key, value, attn_mask, 0.0, is_causal, **kwargs)[0]
    return out


replace({F.scaled_dot_product_attention}, attention)


def _opened(func: Any) -> Callable[..., Any]:
    """`func` with each function that it calls seen by the mode that is entered."""
    # Torch asks in such a function whether to hand over the call as a whole, and this time the answer is no.
    inside = {**func.__globals__, "has_torch_function": lambda arguments: False}
    opened = FunctionType(func.__code__, inside, func.__name__, func.__defaults__, func.__closure__)
    opened.__kwdefaults__ = func.__kwdefaults__
    return opened


_MULTI_HEAD = _opened(F.multi_head_attention_forward)


@handles({F.multi_head_attention_forward})
def multi_head(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> Any:
    """`F.multi_head_attention_forward`, which calls layers."""
    with recorder:
        return _MULTI_HEAD(*args, **kwargs)
